"""The path of densities, on latents in unconstrained space."""

import pytest
import torch
from annealed import Scales, pair, path_of, starts
from programs import LinearGaussian, WithPixelPlate, drawing

from pyrovae.engine.log_weights import log_weights
from pyrovae.engine.validation import find_plates

pytestmark = pytest.mark.usefixtures("float64")


class TestLatents:
    def test_they_are_packed_and_unpacked(self):
        programs = Scales()
        x = torch.randn(3, 2)
        path = path_of(programs.model, programs.guide, x, 4)
        u = torch.randn(4, 3, 2)
        values, log_volume = path.latents.unpack(u)
        assert values["s"].shape == (4, 2, 3)
        torch.testing.assert_close(values["s"], u.exp().transpose(1, 2))
        torch.testing.assert_close(log_volume, u.sum(-1))
        torch.testing.assert_close(path.latents.pack(values), u)

    @starts
    @pytest.mark.parametrize("structure", [LinearGaussian, WithPixelPlate])
    def test_the_ends_of_the_path_are_the_densities(self, start, structure):
        model, guide = pair(structure)
        x = model.data(3)
        path = path_of(model, guide, x, 4, start)
        state = path.begin(path.sample_initial())
        fixed = {"z": path.latents.unpack(state.u)[0]["z"]}
        weights = log_weights((model, drawing(guide, **fixed)), x, num_samples=4, plates=find_plates((model, guide), x))
        torch.testing.assert_close(state.log_f0, weights.log_prior if start == "prior" else weights.log_proposal)
        torch.testing.assert_close(state.log_f1, weights.log_joint)
        moved = 1e-6 * torch.randn_like(state.u)
        other = path.at(state.u + moved, state.u)
        for change, gradient in (
            (other.log_f0 - state.log_f0, state.gradient_0),
            (other.log_f1 - state.log_f1, state.gradient_1),
        ):
            torch.testing.assert_close(change, (gradient * moved).sum(-1), rtol=1e-3, atol=1e-9)
