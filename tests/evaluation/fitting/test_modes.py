"""Other modes of a posterior, and the doubt where they are not known to be all."""

import pytest
import torch
from annealed import TwoModes, path_of

from pyrovae.evaluation.fitting.modes import fit_on, is_alone, with_other_modes
from pyrovae.evaluation.fitting.normals import Normals

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def path():
    return path_of(TwoModes.model, TwoModes.guide, torch.tensor([4.0, 6.0, 9.0]), 1)


@pytest.fixture
def fit(path):
    return fit_on(path, Normals.from_draws(path.sample("guide", 64)))


def test_both_modes_are_parts_of_equal_shares(path, fit):
    found = with_other_modes(path, fit, path.sample("prior", 16))
    assert len(found.mixtures.parts) == 2
    one, other = (part.loc[:, 0] for part in found.mixtures.parts)
    torch.testing.assert_close(one, -other, atol=0.1, rtol=0.0)
    torch.testing.assert_close(found.mixtures.log_shares.exp(), torch.full((2, 3), 0.5), atol=0.1, rtol=0.0)
    assert found.complete.all()
    assert (found.evaluations > fit.evaluations).all()


def test_a_guide_of_one_mode_is_not_alone(path):
    draws = path.sample("guide", 64)
    assert not is_alone(path, Normals.from_draws(draws), path.sample("prior", 16))[0].any()


def test_without_another_mode_there_is_one_part(path, fit):
    starts = path.sample("prior", 16).abs()
    found = with_other_modes(path, fit, starts)
    assert len(found.mixtures.parts) == 1
    assert found.complete.all()
    assert is_alone(path, fit.normals, starts)[0].all()


def test_a_mode_that_was_met_once_leaves_doubt(path, fit):
    starts = path.sample("prior", 16).abs()
    starts[0] = -starts[0]
    found = with_other_modes(path, fit, starts)
    assert len(found.mixtures.parts) == 2
    assert not found.complete.any()
