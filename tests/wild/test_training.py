"""Training is the same, recorded and fused or not."""

import warnings

import pyro
import pytest
import torch
from checks import slow_but

from pyrovae import ELBO, IWAE, fit
from pyrovae.compiling.fallback import NotCompiledWarning
from tests.wild import counts
from tests.wild.case import Row
from tests.wild.rows import ROWS

pytestmark = [
    pytest.mark.usefixtures("float64"),
    # rectifiers that are never on, and parts of a decoder that its operation does not use
    pytest.mark.filterwarnings("ignore::pyrovae.training.UnmovedParameterWarning"),
]
dropout = Row("prodlda, dropout", lambda: counts.topics(4, 7, training=True, dropout=0.2))
counted = Row("prodlda, dropout, length given", lambda: counts.topics(4, 7, training=True, dropout=0.2, total=40))
LOOKS = {"cvae, half a picture given", "dmm, padded", "prodlda, dropout"}
"""These look at numbers: they select pixels by value, turn sequences by their lengths, find the longest document."""
named = {row.name: row for row in ROWS}
REPRESENTATIVES = {
    named["vae, convolutional"]: IWAE(2),
    named["cvae, labels joined"]: IWAE(2),
    named["cvae, half a picture given"]: ELBO(),
    dropout: ELBO(),
    counted: ELBO(),
    named["dmm, padded"]: ELBO(),
    named["hmm, summed by hand"]: IWAE(2),
    named["softmax(h, dim=1), B fits"]: IWAE(2),
}
"""With what is maximised."""
FUSED = (named["vae, convolutional"], counted)
"""Each compilation takes seconds, so that there are few."""


def trained(row, objective, compile):
    """The parameters, and the statistics of batch normalisation, after five steps."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    case = row.build()
    settings = {"epochs": 5, "batch_size": case.size, "seed": 0, "progress": False}
    history = fit(case, case.data, objective=objective, compile=compile, **settings)
    return history.module.state_dict()


TWINS = (named["vae, convolutional"], named["cvae, labels joined"], dropout)
"""Rows that are near to others here, or to pairs whose steps ``training/test_steps.py`` compares."""


@pytest.mark.parametrize("row", slow_but(lambda row: row not in TWINS, REPRESENTATIVES), ids=str)
def test_recorded_as_eager(row, unfused):
    assert_compiled_as_eager(row)


@pytest.mark.parametrize("row", slow_but(lambda row: row is not counted, FUSED), ids=str)
def test_compiled_as_eager(row):
    assert_compiled_as_eager(row)


def assert_compiled_as_eager(row):
    objective = REPRESENTATIVES[row]
    eager = trained(row, objective, compile=False)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", NotCompiledWarning)
        compiled = trained(row, objective, compile=True)
    ran_eagerly = any(issubclass(warning.category, NotCompiledWarning) for warning in said)
    assert not ran_eagerly or row.name in LOOKS, [str(warning.message) for warning in said]
    assert eager.keys() == compiled.keys()
    for name, value in eager.items():
        torch.testing.assert_close(compiled[name], value, rtol=0, atol=1e-6, msg=name)
