"""The bound of a batch against stock Pyro's, from the same random numbers."""

import pytest

from tests.wild.bounds import bound, stock_bound
from tests.wild.rows import ROWS

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_the_evidence_lower_bound_is_that_of_stock_pyro(row):
    case = row.build()
    if row.refused or case.stock is None:
        pytest.skip("stock Pyro has no bound that means the same")
    assert bound(case) == pytest.approx(stock_bound(case), abs=1e-5)
