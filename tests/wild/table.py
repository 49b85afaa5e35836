"""``python -m tests.wild.table``: every row by this library and by stock Pyro, from the same random numbers.

The columns: the one-particle bound of the batch, ours and stock Pyro's; the largest difference of a weight, among three
particles and all data, from a single run of stock Pyro at the same draws; log p(x), our estimate and its exact value, each a
mean over the data, and their largest distance in standard errors. What is refused, or fails, is shown by its first line.
"""

import argparse
import math
import warnings
from collections.abc import Callable, Iterable, Sequence

import pyro
import torch

from pyrovae import log_likelihood, log_weights
from tests.wild import stock
from tests.wild.bounds import bound, stock_bound
from tests.wild.case import Case, Row
from tests.wild.rows import ROWS

SEED = 0
COLUMNS = {"ours": 10, "stock": 10, "differ": 9, "weights": 9, "log p": 8, "exact": 8, "errors": 7}
HEAD = " ".join([f"{'program':48}", *(f"{name:>{width}}" for name, width in COLUMNS.items()), " said"])


def line(row: Row) -> str:
    """One row of the table."""
    said: list[str] = []
    ours, theirs, weights = (_number(row, said, column) for column in (bound, _stock_bound, _weights))
    log_p, exact, errors = _likelihood(row, said)
    numbers = f"{ours:10.4f} {theirs:10.4f} {abs(ours - theirs):9.2g} {weights:9.2g} {log_p:8.3f} {exact:8.3f} {errors:7.2f}"
    return f"{row.name:48} {numbers}  {'; '.join(dict.fromkeys(said))}".replace("nan", "  -").rstrip()


def _built(row: Row) -> Case:
    pyro.clear_param_store()
    pyro.set_rng_seed(SEED)
    return row.build()


def _number(row: Row, said: list[str], column: Callable[[Case], float]) -> float:
    try:
        return column(_built(row))
    except Exception as error:
        said.append(_first_line(error))
        return math.nan


def _first_line(error: Exception) -> str:
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first}"


def _stock_bound(case: Case) -> float:
    return stock_bound(case) if case.stock else math.nan


def _weights(case: Case, particles: int = 3) -> float:
    """How far the farthest weight is from that of a single run."""
    single = stock.drawn(stock.run(case.guide, case))
    weights = log_weights(case, *case.args, num_samples=particles, **case.kwargs)
    draws = [stock.draws_of_particle(weights.guide, single, k, particles) for k in range(particles)]
    expected = torch.stack([stock.log_weight(case, one) for one in draws])
    return (weights.total - expected).abs().max().item()


def _likelihood(row: Row, said: list[str]) -> tuple[float, float, float]:
    """The estimate of log p(x), its exact value, and their distance in standard errors."""
    case = _built(row)
    if case.exact is None or row.refused:
        return math.nan, math.nan, math.nan
    exact = case.exact()
    try:
        found = log_likelihood(case, case.data, row.num_samples, seed=SEED)
    except Exception as error:
        said.append(_first_line(error))
        return math.nan, exact.mean().item(), math.nan
    log_p, error = torch.from_numpy(found.log_p), torch.from_numpy(found.standard_error)
    return log_p.mean().item(), exact.mean().item(), ((log_p - exact).abs() / error).max().item()


def lines(rows: Iterable[Row]) -> Iterable[str]:
    """The table, a line at a time."""
    yield HEAD
    yield from map(line, rows)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.wild.table", description=__doc__)
    parser.add_argument("word", nargs="?", default="", help="print only the rows whose names contain it")
    word = parser.parse_args(argv).word
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for text in lines(row for row in ROWS if word in row.name):
        print(text, flush=True)


if __name__ == "__main__":
    main()
