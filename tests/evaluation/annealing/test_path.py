"""The path of densities, on latents in unconstrained space."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from annealed import Scales, pair, path_of, starts
from checks import warned
from programs import LinearGaussian, WithPixelPlate, drawing

from pyrovae.compiling.fallback import NotCompiledWarning
from pyrovae.engine.log_weights import log_weights
from pyrovae.engine.validation import find_plates
from pyrovae.runtime.batches import as_batch

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


class TestCompiled:
    @pytest.mark.parametrize("structure", [LinearGaussian, WithPixelPlate])
    @pytest.mark.usefixtures("unfused")
    def test_what_is_recorded_is_the_same_for_batches_of_its_size(self, structure):
        model, guide = pair(structure)
        x = model.data(6)
        path, u = path_of(model, guide, x[:3], 4), torch.randn(4, 3, path_of(model, guide, x[:3], 4).latents.dimensions)
        path.compile_for({3})
        for rows in (slice(0, 3), slice(3, 6), slice(4, 6)):
            data, place = as_batch(x[rows]), u[:, : len(x[rows])]
            fused, eager = path.with_batch(data), path_of(model, guide, x[rows], 4)
            for found, expected in zip(fused.joint(place, place), eager.joint(place, place), strict=True):
                torch.testing.assert_close(found, expected)
            for found, expected in zip(fused.values(place), eager.values(place), strict=True):
                torch.testing.assert_close(found, expected)
        assert recorded_methods(path) == {"joint", "values"}

    @pytest.mark.usefixtures("unfused")
    def test_data_of_other_supports_do_not_take_what_is_recorded(self):
        def program(x, high, observed):
            with pyro.plate("data", len(x), dim=-1):
                z = pyro.sample("z", dist.Uniform(torch.zeros_like(high), high))
                if observed:
                    pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        programs = partial(program, observed=True), partial(program, observed=False)
        one, other = ({"x": torch.zeros(2), "high": torch.tensor(high)} for high in ([1.0, 2.0], [3.0, 5.0]))
        path, u = path_of(*programs, one, 4), torch.randn(4, 2, 1)
        path.compile_for({2})
        path.joint(u, u)
        expected = path_of(*programs, other, 4).joint(u, u)
        torch.testing.assert_close(path.with_batch(as_batch(other)).joint(u, u), expected)

    def test_a_program_that_cannot_be_recorded_is_warned_of_once(self):
        model, guide = pair()

        def reading(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                if bool(z.sum() > 1e9):
                    raise RuntimeError
                pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), 1.0).to_event(1), obs=x[:, :1])

        path = path_of(reading, guide, model.data(3), 4)
        path.compile_for({3})
        u = torch.randn(4, 3, 2)
        with warned("recorded", category=NotCompiledWarning) as found:
            path.joint(u, u)
            path.values(u)
        assert len(found) == 1


def recorded_methods(path):
    """The methods that were recorded, by name."""
    return {name for (name, *_), fused in path._compiled._fused.items() if fused is not None}
