"""A VampPrior in a PyroModule of the user's, whose encoder is the guide's too."""

import math

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from benchmarks.networks import mlp
from benchmarks.programs.pair import NormalNetwork, Pair, hidden, latent, log_bernoulli, log_standard_normal, pixels

components = 100


class VampPrior(PyroModule):
    r"""The mixture of the guide's posteriors at learned pseudo-inputs :math:`u`, :math:`p(z) = \frac1C \sum_c q(z | u_c)`.

    References:
        | VAE with a VampPrior (Tomczak & Welling, 2018), equation 9
        | https://arxiv.org/abs/1705.07120
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.logits = nn.Parameter(torch.randn(components, pixels))

    def forward(self) -> Tensor:
        """Draw the latents."""
        posteriors = dist.Normal(*self.encoder(self.logits.sigmoid())).to_event(1)
        alike = dist.Categorical(logits=self.logits.new_zeros(components))
        return pyro.sample("z", dist.MixtureSameFamily(alike, posteriors))


class Model(PyroModule):
    """z ~ prior, x ~ Bernoulli(decoder(z))."""

    def __init__(self, prior: VampPrior) -> None:
        super().__init__()
        self.prior = prior
        self.decoder = mlp(latent, *hidden, pixels)

    def forward(self, x: Tensor) -> None:
        """Observe a batch."""
        with pyro.plate("data", len(x)):
            z = self.prior()
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)


class Guide(PyroModule):
    """z ~ N(encoder(x))."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> None:
        """Draw the latents of a batch."""
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(*self.encoder(x)).to_event(1))


def vamp() -> Pair:
    """The pair, and its loss by hand."""
    encoder = NormalNetwork(pixels, latent)
    model, guide = Model(VampPrior(encoder)), Guide(encoder)

    def log_prior(z: Tensor) -> Tensor:
        loc, scale = encoder(model.prior.logits.sigmoid())
        posteriors = log_standard_normal((z[:, None] - loc) / scale) - scale.log().sum(-1)
        return posteriors.logsumexp(-1) - math.log(components)

    def by_hand(x: Tensor) -> Tensor:
        loc, scale = encoder(x)
        noise = torch.randn_like(loc)
        z = loc + scale * noise
        log_q = log_standard_normal(noise) - scale.log().sum(-1)
        log_p = log_prior(z) + log_bernoulli(x, model.decoder(z))
        return (log_q - log_p).sum()

    return Pair(model, guide, by_hand, nn.ModuleList([model, guide]))
