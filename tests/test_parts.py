"""Every prior with every guide, and every likelihood with both: what one word swaps works at once, or says why it cannot."""

from functools import partial
from itertools import cycle, product

import pyro
import pytest
import scipy.stats
import torch
from checks import goes, lacking, members, refused, slow_but
from pyro import poutine
from spaces import Line, latents, space_of
from torch import nn

import pyrovae.guides
import pyrovae.likelihoods
import pyrovae.priors
from pyrovae.compiling.recording import Recording
from pyrovae.engine.log_weights import log_weights
from pyrovae.guides import Guide
from pyrovae.likelihoods import Likelihood, Normal
from pyrovae.networks import MLP
from pyrovae.objectives import IWAE, ReweightedWakeSleep
from pyrovae.priors import Prior, StandardNormal
from pyrovae.vae import VAE

pytestmark = pytest.mark.usefixtures("float64")
network = partial(MLP, hidden=(6,))
priors = sorted(members(pyrovae.priors, Prior), key=lambda cls: cls is not StandardNormal)
guides = members(pyrovae.guides, Guide)
likelihoods = members(pyrovae.likelihoods, Likelihood)
latent_dim = 2
long = {"epochs": 100, "batch_size": 50, "optimizer": partial(torch.optim.Adam, lr=0.02), "progress": False}

grid = [(*pair, likelihood) for pair, likelihood in zip(product(priors, guides), cycle(likelihoods), strict=False)]
"""Every prior with every guide; the likelihoods in turn, so that each meets priors and guides of most kinds."""
others = [(priors[0], guides[0], likelihood) for likelihood in likelihoods]


def built(prior, guide, likelihood):
    return VAE((3,), latent_dim, prior=prior, guide=guide, likelihood=likelihood, encoder=network, decoder=network)


def built_loss(prior, guide, likelihood):
    """A pair, data, and the objective on it, which has seen them."""
    vae = built(prior, guide, likelihood)
    x = vae.model(size=4).detach()
    loss = IWAE(2)(vae.model, vae.guide)
    loss.start(x)
    return vae, x, loss


def simplest():
    """Each prior with the first guide that goes with it, and each guide with the first prior."""
    by_prior = {pair[0]: pair for pair in reversed(compatible)}
    by_guide = {pair[1]: pair for pair in reversed(compatible)}
    return [*dict.fromkeys([*by_prior.values(), *by_guide.values()])]


compatible = [pair for pair in product(priors, guides) if goes(*pair)]
simple = simplest()


def quick(prior, guide, likelihood):
    """Whether it is one of the simplest pairs, or one that is refused."""
    return (prior, guide, likelihood) in grid and ((prior, guide) in simple or (prior, guide) not in compatible)


@pytest.mark.parametrize(
    ("prior", "guide", "likelihood"),
    slow_but(quick, dict.fromkeys([*others, *grid])),
    ids=lambda cls: cls.__name__,
)
def test_a_swap(prior, guide, likelihood):
    if (prior, guide) not in compatible:
        with refused() as caught:
            built_loss(prior, guide, likelihood)
        assert any(not lacking(str(caught.value), word) for word in ("'z'", "'z2'", "prior=Hierarchical"))
        return
    vae, x, loss = built_loss(prior, guide, likelihood)
    assert log_weights(vae, x, num_samples=3).total.isfinite().all()
    assert_recorded_is_eager(loss, x)
    before = {name: value.detach().clone() for name, value in vae.named_parameters()}
    optimizer = torch.optim.Adam(vae.parameters(), lr=0.01)
    optimizer.zero_grad()
    loss(x).backward()
    optimizer.step()
    unmoved = [name for name, value in vae.named_parameters() if torch.equal(value, before[name])]
    assert not unmoved
    assert all(value.isfinite().all() for value in vae.parameters())


def assert_recorded_is_eager(loss, x):
    """The program that is recorded gives the same value and gradients from the same noise."""
    parameters = [*loss.parameters()]

    def step(x):
        found = loss(x)
        return [found.detach(), *torch.autograd.grad(found, parameters)]

    pyro.set_rng_seed(1)
    eager = step(x)
    recording = Recording(step, loss, [x])
    pyro.set_rng_seed(1)
    for ours, theirs in zip(recording(recording.tensors, x), eager, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_every_likelihood_meets_every_kind_of_prior_and_guide():
    """That the grid is what it says: each pair of a prior and a guide is in it, and each likelihood."""
    assert {(prior, guide) for prior, guide, _ in grid} == {*product(priors, guides)}
    assert {likelihood for _, _, likelihood in [*grid, *others]} == {*likelihoods}


def quadrature(space):
    """Points that cover the plane or the circle, shape ``(n, 2)``, and the measure of each.

    So many that the worst error, that of the Laplace prior, whose density has a kink, is 4e-4 nats.
    """
    points, u, measure = space.grid(401, reach=100.0)
    measure = measure * (u[1] - u[0])
    if space is Line:
        return torch.cartesian_prod(points[:, 0], points[:, 0]), torch.cartesian_prod(measure, measure).prod(-1)
    return points[1:], measure[1:]


@torch.no_grad()
def log_p(vae, x):
    """The exact log p(x), shape ``(B,)``, by quadrature."""
    points, measure = quadrature(space_of(vae.model.prior))
    lengths = {name: length for name, (length, _) in sorted(latents(vae.model.prior).items())}
    z = dict(zip(lengths, points.split([*lengths.values()], -1), strict=True))
    conditioned = poutine.condition(vae.model.prior, data=z)
    trace = poutine.trace(pyro.plate("points", len(points), dim=-1)(conditioned)).get_trace()
    trace.compute_log_prob()
    prior = sum(trace.nodes[name]["log_prob"] for name in z) + measure.log()
    assert prior.logsumexp(0).abs() < 1e-3
    decoded = vae.model.decode(z["z"])
    return torch.stack([(prior + decoded.log_prob(row)).logsumexp(0) for row in x])


def linear(in_shape, out_shape):
    return nn.Linear(*in_shape, *out_shape)


class Steady(nn.Module):
    """A prior's layer whose mean is linear and whose scale is one for all, so that posteriors stay normal."""

    def __init__(self, in_shape, out_shape):
        super().__init__()
        self.loc = nn.Linear(*in_shape, *out_shape[1:])

    def forward(self, above):
        loc = self.loc(above)
        return torch.stack([loc, torch.zeros_like(loc)], -2)


def trained_soon(prior, guide):
    """Whether it is one of four: a prior with tails, a guide with correlations, layers, and the sphere."""
    kinds = (pyrovae.guides.FullRankNormal, pyrovae.guides.Hierarchical)
    return prior in (pyrovae.priors.Laplace, pyrovae.priors.UniformSphere) or guide in kinds


@pytest.mark.filterwarnings("ignore::pyrovae.evaluation.ImportanceSamplingWarning")
@pytest.mark.parametrize(("prior", "guide"), slow_but(trained_soon, simple), ids=lambda cls: cls.__name__)
def test_the_interval_of_log_p_holds_the_truth(prior, guide):
    """At its own 95%, of the data whose k-hat lets it be trusted: fewer than so many at once in 100,000 seeds.

    The decoder is linear and the noise normal, so that few posteriors have tails that a normal proposal lacks.
    """
    dim = latent_dim
    if prior is pyrovae.priors.Hierarchical:  # the two dimensions are those of two layers
        dim, prior, guide = 1, partial(prior, upper=(1,), network=Steady), partial(guide, upper=(1,), network=network)
    vae = VAE((3,), dim, prior=prior, guide=guide, likelihood=Normal, encoder=network, decoder=linear)
    with torch.no_grad():
        vae.model.decoder.weight.copy_(torch.tensor([[1.5, 0.3], [-0.4, 1.5], [0.5, 0.5]])[:, :dim])
        x = vae.model(size=100)
    vae.model.requires_grad_(False)
    pyrovae.fit(vae, x, objective=ReweightedWakeSleep(10), **long)
    vae.model.requires_grad_(True)
    estimate = pyrovae.log_likelihood(vae, x, 4000)
    exact = log_p(vae, x).numpy()
    trusted = estimate.k_hat < estimate.threshold
    inside = abs(estimate.log_p - exact)[trusted] < 1.96 * estimate.standard_error[trusted]
    assert trusted.mean() > 0.8
    assert estimate.standard_error[trusted].max() < 0.2
    assert inside.sum() >= scipy.stats.binom(len(inside), 0.95).ppf(1e-5)
