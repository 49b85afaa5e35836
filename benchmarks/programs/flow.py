"""A guide with a normalising flow of zuko, in two methods of one module, as in Pyro's VAE tutorial."""

import math

import pyro
import pyro.distributions as dist
import torch
from pyro.contrib.zuko import ZukoToPyro
from torch import Tensor, nn
from zuko.flows import MAF, Flow

from benchmarks.networks import mlp
from benchmarks.programs.pair import Pair, hidden, latent, log_bernoulli, log_standard_normal, pixels

log_least_slope = math.log(1e-3)
"""Of zuko's affine transformation, whose slope is exp(a / (1 + abs(a / log_least_slope)))."""


class FlowVAE(nn.Module):
    """z ~ N(0, I), x ~ Bernoulli(decoder(z)); the guide z ~ an autoregressive flow, given the encoder's output.

    Such a flow scores in one pass and draws in one a feature, fifty here; a guide has to draw, so that it is inverted.

    References:
        | Improved Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016)
        | https://arxiv.org/abs/1606.04934
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = mlp(pixels, *hidden, latent), mlp(latent, *hidden, pixels)
        maf = MAF(latent, latent, transforms=2, hidden_features=hidden)
        self.flow = Flow(maf.transform.inv, maf.base)

    def model(self, x: Tensor) -> None:
        """Observe a batch."""
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(latent), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        """Draw the latents of a batch."""
        pyro.module("encoder", self.encoder)
        pyro.module("flow", self.flow)
        with pyro.plate("data", len(x)):
            pyro.sample("z", ZukoToPyro(self.flow(self.encoder(x))))


def flow() -> Pair:
    """The pair, and its loss by hand, which runs the masked networks of the flow."""
    vae = FlowVAE()
    masked = [step.hyper for step in vae.flow.transform.inv.transforms]

    def by_hand(x: Tensor) -> Tensor:
        context = vae.encoder(x)
        z = torch.randn_like(context)
        log_q = log_standard_normal(z)
        for network in masked:
            shift, raw = network(torch.cat([z, context], -1)).unflatten(-1, (latent, 2)).unbind(-1)
            log_slope = raw / (1 + (raw / log_least_slope).abs())
            z = z * log_slope.exp() + shift
            log_q = log_q - log_slope.sum(-1)
        log_p = log_standard_normal(z) + log_bernoulli(x, vae.decoder(z))
        return (log_q - log_p).sum()

    return Pair(vae.model, vae.guide, by_hand, nn.ModuleList([vae]))
