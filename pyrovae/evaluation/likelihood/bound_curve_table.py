"""A table of bounds against their number of particles, to read in a terminal."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pyrovae.evaluation.estimates.table import method, warned

if TYPE_CHECKING:
    from pyrovae.evaluation.likelihood.bound_curve import BoundCurve

Array = NDArray[np.float64]


def table(curve: "BoundCurve") -> str:
    """Format the estimate of log p(x), the bounds, and their gaps to it."""
    return "\n\n".join("\n".join(lines) for lines in _parts(curve))


def _parts(curve: "BoundCurve") -> list[list[str]]:
    estimate = curve.log_likelihood
    head = [
        f"bounds on log p(x) of {len(estimate.log_p):,} data by {estimate.num_samples:,} draws each, in nats",
        f"log p(x) is {estimate.mean:.4f} ± {estimate.data_error:.4f} from the data ± {estimate.monte_carlo_error:.4f} "
        f"from the draws{'' if estimate.effort is None else f', {method(estimate)}'}",
    ]
    means = _table(curve, "mean ± from the data", curve.mean, curve.data_error, 2)
    gaps = _table(curve, "log p(x) - bound", curve.gap_mean, curve.gap_error, 4)
    return [head, means, gaps, *([[warned(estimate.warning)]] if estimate.warning else [])]


def _table(curve: "BoundCurve", title: str, values: Array, errors: Array, digits: int) -> list[str]:
    cells = [
        [f"{v:.{digits}f} ± {e:.{digits}f}" for v, e in zip(*row, strict=True)] for row in zip(values, errors, strict=True)
    ]
    header = [f"K = {count:,}" for count in curve.num_particles]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    width = max(map(len, (title, *curve.names)))
    rows = zip((title, *curve.names), (header, *cells), strict=True)
    return [f"  {name:<{width}}" + "".join(f"  {c:>{w}}" for c, w in zip(row, widths, strict=True)) for name, row in rows]
