"""One-particle evidence lower bounds of a case, summed over its data, from the random numbers of one seed."""

import pyro

from pyrovae import ELBO
from tests.wild import stock
from tests.wild.case import Case


def bound(case: Case, seed: int = 1) -> float:
    """What this library says, with nothing taken from formulas.

    The score function's gradient is taken where the guide draws what cannot be reparameterised; the value is the same.
    """
    module = ELBO(1, estimator="reparameterized" if _reparameterized(case) else "score_function")(case.model, case.guide)
    module.start(*case.args, **case.kwargs)
    pyro.set_rng_seed(seed)
    return -module(*case.args, **case.kwargs).item()


def _reparameterized(case: Case) -> bool:
    guide = stock.run(case.guide, case)
    return all(guide.nodes[name]["fn"].has_rsample for name in stock.drawn(guide))


def stock_bound(case: Case, seed: int = 1) -> float:
    """What stock Pyro says."""
    assert case.stock is not None
    loss = case.stock(case.model, case.guide)
    loss(*case.args, **case.kwargs)  # which makes the parameters that are made where they are used
    pyro.set_rng_seed(seed)
    return -loss(*case.args, **case.kwargs)
