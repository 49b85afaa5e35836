"""Two plain functions with ``pyro.module`` statements, as in Pyro's introduction."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from benchmarks.networks import mlp
from benchmarks.programs.pair import NormalNetwork, Pair, hidden, latent, log_bernoulli, log_standard_normal, pixels


def functions() -> Pair:
    """z ~ N(0, I), x ~ Bernoulli(decoder(z)); the guide z ~ N(encoder(x))."""
    encoder, decoder = NormalNetwork(pixels, latent), mlp(latent, *hidden, pixels)

    def model(x: Tensor) -> None:
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(latent), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(*encoder(x)).to_event(1))

    def by_hand(x: Tensor) -> Tensor:
        loc, scale = encoder(x)
        noise = torch.randn_like(loc)
        z = loc + scale * noise
        log_q = log_standard_normal(noise) - scale.log().sum(-1)
        log_p = log_standard_normal(z) + log_bernoulli(x, decoder(z))
        return (log_q - log_p).sum()

    return Pair(model, guide, by_hand, nn.ModuleList([encoder, decoder]))
