"""A pair that sees data in their own units does not know in what units they were written down."""

from functools import partial

import pytest
import torch
from checks import refused

import pyrovae
from pyrovae.likelihoods import Normal
from pyrovae.networks import MLP
from pyrovae.standardize import Rescaled, RescaledNormal, Units

pytestmark = pytest.mark.usefixtures("float64")


def test_they_are_the_mean_and_the_root_of_the_mean_variance():
    x = torch.randn(50, 3) * torch.tensor([1.0, 5.0, 0.0]) + torch.tensor([0.0, -2.0, 7.0])
    units = Units.of(x)
    torch.testing.assert_close(units.origin, x.mean(0))
    torch.testing.assert_close(units.unit**2, x.var(0, correction=0).mean())


@pytest.mark.parametrize("value", [0.0, 0.1, 1e8 + 0.1])
def test_data_that_are_all_alike_have_the_unit_one(value):
    assert Units.of(torch.full((10, 2), value)).unit == 1.0
    assert Units.of(torch.full((10, 2), value, dtype=torch.float32)).unit == 1.0


def test_they_have_the_precision_of_the_data():
    units = Units.of(torch.randn(5, 2, dtype=torch.float32))
    assert units.origin.dtype == units.unit.dtype == torch.float32


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_a_scale_that_densities_cannot_be_computed_with_is_refused(scale):
    x = torch.randn(10, 2) * scale
    Units.of(x)
    with refused("torch.float32", "sklearn.preprocessing.StandardScaler"):
        Units.of(x.float())


def test_a_network_sees_numbers_of_about_one():
    x = 1e6 + 1e3 * torch.randn(1000, 3)
    seen = Rescaled(lambda *_: torch.nn.Identity(), Units.of(x), (3,), (3,))(x)
    torch.testing.assert_close(seen.mean(0), torch.zeros(3), atol=1e-9, rtol=0.0)
    torch.testing.assert_close(seen.square().mean(), torch.tensor(1.0))


def test_the_likelihood_is_that_of_numbers_of_about_one_by_the_jacobian():
    x = 4.0 + 3.0 * torch.randn(20, 2)
    units = Units.of(x)
    loc = torch.randn(20, 2)
    inside = Normal((2,), learned="shared")(loc).log_prob((x - units.origin) / units.unit)
    torch.testing.assert_close(RescaledNormal(units, (2,))(loc).log_prob(x), inside - 2 * units.unit.log())


def test_the_likelihood_starts_at_a_mean():
    likelihood = RescaledNormal(Units.of(4.0 + 3.0 * torch.randn(20, 2)), (2,))
    mean = torch.tensor([5.0, -1.0])
    torch.testing.assert_close(likelihood(likelihood.start(mean)).mean, mean)


@pytest.mark.parametrize(("scale", "shift"), [(1024.0, 0.0), (2.0**-30, 0.0), (1e5, 1e6)])
def test_training_is_the_same_in_whatever_units(scale, shift):
    x, bounds = torch.randn(60, 3), []
    for data in (x, scale * x + shift):
        torch.manual_seed(0)
        units, small = Units.of(data), partial(MLP, hidden=(8,))
        likelihood, encoder = partial(RescaledNormal, units), partial(Rescaled, small, units)
        vae = pyrovae.VAE((3,), 2, likelihood=likelihood, encoder=encoder, decoder=small)
        history = pyrovae.fit(vae, data, epochs=3, batch_size=20, progress=False)
        bounds.append(torch.tensor([epoch["train_bound"] for epoch in history.metrics]))
    expected = bounds[0] - 3 * torch.tensor(scale).log()
    torch.testing.assert_close(bounds[1], expected, rtol=1e-8, atol=1e-8)
