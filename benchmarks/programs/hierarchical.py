"""Two stochastic layers in two PyroModules: a top-down model and a bottom-up guide."""

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from benchmarks.networks import mlp
from benchmarks.programs.pair import NormalNetwork, Pair, hidden, latent, log_bernoulli, log_standard_normal, pixels

top = 25


class TopDown(PyroModule):
    """z2 ~ N(0, I), z1 ~ N(prior(z2)), x ~ Bernoulli(decoder(z1))."""

    def __init__(self) -> None:
        super().__init__()
        self.prior = NormalNetwork(top, latent)
        self.decoder = mlp(latent, *hidden, pixels)

    def forward(self, x: Tensor) -> None:
        """Observe a batch."""
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(x.new_zeros(top), 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(*self.prior(z2)).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z1)).to_event(1), obs=x)


class BottomUp(PyroModule):
    """z1 ~ N(first(x)), z2 ~ N(second(z1))."""

    def __init__(self) -> None:
        super().__init__()
        self.first = NormalNetwork(pixels, latent)
        self.second = NormalNetwork(latent, top)

    def forward(self, x: Tensor) -> None:
        """Draw both layers for a batch."""
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Normal(*self.first(x)).to_event(1))
            pyro.sample("z2", dist.Normal(*self.second(z1)).to_event(1))


def hierarchical() -> Pair:
    """The pair, and its loss by hand."""
    model, guide = TopDown(), BottomUp()

    def by_hand(x: Tensor) -> Tensor:
        z1, log_q1 = drawn(*guide.first(x))
        z2, log_q2 = drawn(*guide.second(z1))
        loc, scale = model.prior(z2)
        log_p1 = log_standard_normal((z1 - loc) / scale) - scale.log().sum(-1)
        log_p = log_standard_normal(z2) + log_p1 + log_bernoulli(x, model.decoder(z1))
        return (log_q1 + log_q2 - log_p).sum()

    return Pair(model, guide, by_hand, nn.ModuleList([model, guide]))


def drawn(loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """A draw from N(loc, scale^2), and its log density."""
    noise = torch.randn_like(loc)
    return loc + scale * noise, log_standard_normal(noise) - scale.log().sum(-1)
