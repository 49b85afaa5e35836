"""log p(x) of each datum against its exact value, by quadrature, enumeration, a forward algorithm or a closed form."""

import math

import pytest
import torch
from checks import refused

from pyrovae import fit, log_likelihood, log_weights
from tests.wild.rows import AXES, PROGRAMS, ROWS

pytestmark = pytest.mark.usefixtures("float64")
ERRORS = 4.0
"""Standard errors that an estimate may be off by; the seed is that of the fixture, and 0 where there is one to state."""
estimated = [*PROGRAMS, *(row for row in AXES if row.name.endswith("B fits"))]


def known(row):
    case = row.build()
    if case.exact is None:
        pytest.skip("log p(x) is not known")
    return case, case.exact()


@pytest.mark.parametrize("row", [r for r in estimated if not (r.refused or r.no_likelihood or r.no_batches)], ids=str)
def test_log_p_is_the_exact_one(row):
    case, exact = known(row)
    found = log_likelihood(case, case.data, row.num_samples, seed=0)
    error = torch.from_numpy(found.standard_error)
    assert ((torch.from_numpy(found.log_p) - exact).abs() < ERRORS * error).all(), f"{found.log_p} +- {error}, not {exact}"
    assert error.max() < 0.3


@pytest.mark.parametrize("row", [row for row in ROWS if row.no_batches], ids=str)
class TestWhatDoesNotComeInBatches:
    def test_log_p_of_the_weights_is_the_exact_one(self, row):
        case, exact = known(row)
        with torch.no_grad():
            weights = log_weights(case, *case.args, num_samples=row.num_samples, **case.kwargs).total
        found = weights.logsumexp(0) - math.log(len(weights))
        error = (weights - found).exp().std(0) / len(weights) ** 0.5
        assert ((found - exact).abs() < ERRORS * error).all(), f"{found} +- {error}, not {exact}"

    def test_it_is_refused_where_there_are_batches(self, row):
        case = row.build()
        with refused(row.no_batches):
            log_likelihood(case, case.data, 10)
        with refused(row.no_batches):
            fit(case, case.data, epochs=1, batch_size=2, progress=False)


@pytest.mark.parametrize("row", [row for row in ROWS if row.no_likelihood], ids=str)
def test_a_guide_without_a_density_has_no_likelihood(row):
    case = row.build()
    with refused(row.no_likelihood):
        log_likelihood(case, case.data, 10)
