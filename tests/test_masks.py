"""Numbers that were not observed: the density of the others alone, and draws of the missing ones."""

from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from checks import QUANTILE, members, refused
from torch import nn

import pyrovae
import pyrovae.likelihoods
from pyrovae.data import Array
from pyrovae.evaluation import impute
from pyrovae.likelihoods import Likelihood, Normal
from pyrovae.networks import MLP
from pyrovae.objectives import ELBO, IWAE
from pyrovae.vae import VAE

pytestmark = pytest.mark.usefixtures("float64")
network = partial(MLP, hidden=(6,))
likelihoods = members(pyrovae.likelihoods, Likelihood)
weight = torch.tensor([[1.5, 0.3], [-0.4, 1.0], [0.5, 0.5], [0.8, -0.9]], dtype=torch.float64)
bias = torch.tensor([0.1, -0.2, 0.3, 0.0], dtype=torch.float64)


def masks(size, *event_shape):
    """About two in three observed; of the first datum all, and of the second none."""
    mask = torch.rand(size, *event_shape) < 2 / 3
    mask[0], mask[1] = True, False
    return mask


def linear(in_shape, out_shape):
    layer = nn.Linear(*in_shape, *out_shape)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


@pytest.fixture
def pair():
    """A VAE of known log p(x): its decoder is linear and its noise normal."""
    return VAE((4,), 2, likelihood=partial(Normal, scale=0.5), encoder=network, decoder=linear)


def joint():
    return bias, weight @ weight.T + 0.25 * torch.eye(4)


@pytest.mark.parametrize("likelihood", likelihoods, ids=lambda cls: cls.__name__)
class TestEveryLikelihood:
    def test_the_density_is_that_of_the_observed_numbers(self, likelihood):
        vae = VAE((2, 3), 2, likelihood=likelihood, encoder=network, decoder=network)
        x, mask = vae.model(size=6).detach(), masks(6, 2, 3)
        weights = pyrovae.log_weights(vae, x, num_samples=3, mask=mask)
        p = vae.model.decode(weights.guide.nodes["z"]["value"])
        each = p.base_dist.log_prob(x)
        torch.testing.assert_close(weights.log_likelihood, torch.where(mask, each, 0.0).sum((-1, -2)))
        assert weights.discrete_dimensions is None

    def test_what_stands_in_the_gaps_does_not_matter(self, likelihood):
        vae = VAE((2, 3), 2, likelihood=likelihood, encoder=network, decoder=network)
        x, mask = vae.model(size=6).detach(), masks(6, 2, 3)
        loss = IWAE(2)(vae.model, vae.guide)
        found = []
        for filler in (x, torch.full_like(x, torch.nan), torch.full_like(x, 1e30)):
            pyro.set_rng_seed(0)
            loss.zero_grad()
            value = loss(torch.where(mask, x, filler), mask=mask)
            value.backward()
            found.append([value, *(parameter.grad.clone() for parameter in vae.parameters())])
        for other in found[1:]:
            torch.testing.assert_close(other, found[0], rtol=0, atol=0)
        assert all(value.isfinite().all() for value in found[0])

    def test_all_observed_is_no_mask(self, likelihood):
        vae = VAE((4,), 2, likelihood=likelihood, encoder=network, decoder=network)
        x = vae.model(size=6).detach()
        loss = ELBO(2)(vae.model, vae.guide)
        found = [loss(x, **given) for given in ({}, {"mask": torch.ones(6, 4, dtype=bool)}) if not pyro.set_rng_seed(0)]
        torch.testing.assert_close(*found)

    def test_values_off_the_support_are_refused_where_they_were_observed(self, likelihood):
        vae = VAE((4,), 2, likelihood=likelihood, encoder=network, decoder=network)
        x, mask = vae.model(size=5).detach(), torch.ones(5, 4, dtype=bool)
        x[1, 2], x[3, 0], mask[3, 0] = torch.nan, torch.nan, False
        with refused("'x'", 1, 20, "nan", [1, 2]):
            ELBO()(vae.model, vae.guide)(x, mask=mask)


def test_log_p_is_that_of_the_marginal_normal(pair):
    """With a proposal whose weights are bounded, z-tests at 1e-5 of each datum."""
    x, mask = pair.model(size=30).detach(), masks(30, 4)
    data = {"x": torch.where(mask, x, torch.nan), "mask": mask}
    estimate = pyrovae.log_likelihood((pair.model, broad_guide), data, 100_000)
    mean, covariance = joint()
    exact = [
        scipy.stats.multivariate_normal(mean[m], covariance[m][:, m]).logpdf(row[m]) if m.any() else 0.0
        for row, m in zip(x.numpy(), mask.numpy(), strict=True)
    ]
    assert estimate.standard_error.max() < 0.05
    assert (abs(estimate.log_p - exact) < QUANTILE * estimate.standard_error).all()


def test_training_is_the_same_recorded_or_not(unfused):
    found = []
    for compile in (False, True):
        pyro.set_rng_seed(0)
        vae = VAE((4,), 2, likelihood=Normal, encoder=network, decoder=network)
        x, mask = torch.randn(22, 4), masks(22, 4)
        data = {"x": torch.where(mask, x, torch.nan), "mask": mask}
        history = pyrovae.fit(vae, data, data, epochs=3, batch_size=5, compile=compile, progress=False)
        found.append([value for name, value in history.metrics[-1].items() if name != "seconds"])
    assert np.isfinite(found).all()
    np.testing.assert_allclose(*found)


class TestImpute:
    def test_draws_are_those_of_the_conditional_normal(self, pair):
        """Means and standard deviations of the missing numbers of three data, z-tests at 1e-5."""
        x = pair.model(size=3).detach()
        mask = torch.tensor([[True, False, True, False], [False] * 4, [True, True, False, True]])
        seen = torch.where(mask, x, torch.nan)
        draws = impute((pair.model, broad_guide), seen, mask, 4000, num_particles=100_000, max_rows=10**6)
        assert draws.shape == (4000, 3, 4)
        mean, covariance = joint()
        for row in range(3):
            seen_here, missing = mask[row], ~mask[row]
            assert torch.equal(draws[:, row, seen_here], x[row, seen_here].expand(4000, -1))
            gain = covariance[missing][:, seen_here] @ torch.linalg.inv(covariance[seen_here][:, seen_here])
            expected = mean[missing] + gain @ (x[row, seen_here] - mean[seen_here])
            left = covariance[missing][:, missing] - gain @ covariance[seen_here][:, missing]
            scale = left.diagonal().sqrt()
            error = (draws[:, row, missing].mean(0) - expected) / scale
            spread = draws[:, row, missing].var(0) / scale**2 - 1
            assert (error.abs() < 0.1).all()
            assert error.abs().max() < QUANTILE * (1 / 4000 + 1 / 3000) ** 0.5
            assert spread.abs().max() < QUANTILE * (2 / 4000 + 2 / 3000) ** 0.5

    def test_the_same_seed_draws_the_same_and_leaves_the_callers_alone(self, pair):
        x, mask = pair.model(size=6).detach(), masks(6, 4)
        before = torch.get_rng_state()
        one, same, other = (impute(pair, x, mask, 2, num_particles=20, seed=s) for s in (1, 1, 2))
        assert torch.equal(one, same)
        assert not torch.equal(one, other)
        assert torch.equal(torch.get_rng_state(), before)

    def test_data_in_an_inner_plate_and_what_is_given_by_name(self):
        """Pixels in a plate within the data plate; the mean of each datum is given."""

        def model(x, mask, mean):
            with pyro.plate("data", len(x), dim=-1):
                z = pyro.sample("z", dist.Normal(0.0, 1e-3))
                with pyro.plate("pixels", x.shape[1], dim=-2), poutine_mask(mask.T):
                    pyro.sample("x", dist.Normal(z + mean, 1e-3), obs=torch.where(mask, x, 0.0).T)

        def guide(x, mask, mean):
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("z", dist.Normal(0.0, 1e-3))

        x, mask, mean = torch.zeros(5, 3), torch.rand(5, 3) < 0.5, 10.0 * torch.arange(5.0)
        drawn = impute((model, guide), {"x": x, "mean": mean}, mask, 2, num_particles=4, max_rows=8)
        expected = torch.where(mask, x, mean[:, None].expand(5, 3))
        torch.testing.assert_close(drawn, expected.expand(2, 5, 3), atol=0.1, rtol=0)

    def test_a_mask_may_be_an_array_or_lie_in_the_mapping(self, pair):
        x, mask = torch.randn(6, 4), masks(6, 4)
        draw = partial(impute, pair, num_samples=2, num_particles=5)
        expected = draw(x, mask)
        for found in (draw(x, mask.numpy()), draw({"x": x, "mask": mask}), draw({"x": x, "mask": mask.numpy()})):
            assert torch.equal(found, expected)

    @pytest.mark.parametrize(("x", "found"), [(torch.zeros(6, 4), "no"), ({"mask": masks(6, 4)}, "two")])
    def test_one_mask_is_expected(self, pair, x, found):
        given = () if found == "no" else (masks(6, 4),)
        with refused(found, "impute(pair, x, mask)"):
            impute(pair, x if not given else {"x": torch.zeros(6, 4), **x}, *given)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (
                {"mask": torch.zeros(6, 4, dtype=torch.int64)},
                ["torch.int64", (6, 4), "torch.bool"],
            ),
            ({"mask": torch.ones(6, 3, dtype=bool)}, ["torch.bool", (6, 3), (6, 4)]),
            ({"num_samples": 0}, ["num_samples", 0, 1]),
            ({"num_particles": 0}, ["num_particles", 0, 1]),
        ],
    )
    def test_what_cannot_be_is_refused(self, pair, change, words):
        given = {"x": torch.zeros(6, 4), "mask": masks(6, 4)} | change
        with refused(*words):
            impute(pair, **given)


def poutine_mask(mask):
    return pyro.poutine.mask(mask=mask)


def broad_guide(x, mask=None):
    """The prior, widened: heavy enough for every posterior here, whatever was observed."""
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("z", dist.Normal(torch.zeros(2), 1.2).to_event(1))


def test_nan_in_a_file_is_missing_where_it_is_said(tmp_path):
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    gaps = np.random.default_rng(1).random(x.shape) < 0.3
    np.save(tmp_path / "x.npy", np.where(gaps, np.nan, x))
    data = Array(str(tmp_path / "x.npy"), missing=True)
    for part in (data.train, data.validation, data.test):
        assert torch.equal(part.given["mask"], torch.from_numpy(~gaps[part.index]))
        assert torch.equal(part.x, torch.from_numpy(np.where(gaps, 0, x)[part.index]))
    with refused("float32", "nan"):
        Array(str(tmp_path / "x.npy"))
    with refused("in_memory=True"):
        Array(str(tmp_path / "x.npy"), missing=True, in_memory=False)
    np.save(tmp_path / "y.npy", np.where(gaps, np.inf, x))
    with refused("float32", "inf"):
        Array(str(tmp_path / "y.npy"), missing=True)
