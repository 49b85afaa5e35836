"""K particles are K runs of the programs: every weight against stock Pyro's densities in single runs at the same draws."""

from itertools import product

import pyro
import pytest
import torch
from checks import refused, slow_but

from pyrovae import log_weights
from tests.wild import stock
from tests.wild.rows import PROGRAMS, ROWS

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize(
    ("row", "particles"),
    slow_but(
        lambda row, particles: particles == 3 or row in PROGRAMS,
        product([row for row in ROWS if not row.refused], [1, 3]),
    ),
    ids=str,
)
def test_a_weight_is_that_of_a_run_of_its_own(row, particles):
    case = row.build()
    single = stock.drawn(stock.run(case.guide, case))
    weights = log_weights(case, *case.args, num_samples=particles, **case.kwargs)
    expected = [
        stock.log_weight(case, stock.draws_of_particle(weights.guide, single, k, particles)) for k in range(particles)
    ]
    torch.testing.assert_close(weights.total, torch.stack(expected), rtol=0, atol=1e-10)


@pytest.mark.parametrize("row", [row for row in ROWS if not (row.refused or row.no_likelihood)], ids=str)
def test_particles_have_draws_of_their_own(row):
    case = row.build()
    weights = log_weights(case, *case.args, num_samples=3, **case.kwargs).total
    assert (weights[0] != weights[1]).all()
    assert (weights[1] != weights[2]).all()


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_the_random_numbers_alone_decide(row):
    case = row.build()
    if row.refused:
        with refused(row.refused):
            log_weights(case, *case.args, **case.kwargs)
        return
    pyro.set_rng_seed(1)
    first = log_weights(case, *case.args, num_samples=2, **case.kwargs).total
    pyro.set_rng_seed(1)
    again = log_weights(case, *case.args, num_samples=2, **case.kwargs).total
    assert torch.equal(first, again)
