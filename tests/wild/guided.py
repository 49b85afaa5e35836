"""Guides that a library writes, and guides with more in them than a density of the latents."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.contrib.cevae import Guide, Model
from pyro.infer import autoguide
from pyro.infer.reparam import LocScaleReparam
from torch import Tensor, nn

from tests.wild.case import Case, Row, linear
from tests.wild.exact import affine, over_grid

FEATURES, LATENT, NOISE = 3, 2, 0.8


class Factors(nn.Module):
    """Factor analysis, whose log p(x) is known; the guide is made of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = linear(LATENT, FEATURES)

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(LATENT), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), NOISE).to_event(1), obs=x)


def automatic(kind: str, **settings) -> Case:
    pair, x = Factors(), torch.randn(4, FEATURES)
    guide = getattr(autoguide, kind)(pair.model, **settings)
    case = Case(pair.model, guide, (x,), 4, modules=(pair,))
    poutine.block(guide)(x)  # which makes its parameters
    with torch.no_grad():
        for name, value in guide.named_parameters() if isinstance(guide, nn.Module) else ():
            if "loc" in name:
                value.add_(0.1 * torch.randn_like(value))
    return case.with_exact(lambda: affine(case, pair.decoder, LATENT, NOISE))


class Levels(nn.Module):
    """Two levels for each datum, the lower moved from its prior's centre by Pyro's handler, and a factor of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = linear(FEATURES, 4), linear(1, FEATURES)

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            top = pyro.sample("top", dist.Normal(0.3, 1.0))
            z = pyro.sample("z", dist.Normal(top, 0.7))
            pyro.sample("x", dist.Normal(self.decoder(z.unsqueeze(-1)), NOISE).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            loc, log_scale = self.encoder(x).chunk(2, -1)
            pyro.sample("top", dist.Normal(0.3 * loc[:, 0], (0.1 * log_scale[:, 0]).exp()))
            pyro.sample("z_decentered", dist.Normal(0.3 * loc[:, 1], (0.1 * log_scale[:, 1]).exp()))

    def marginal(self, x: Tensor) -> Tensor:
        slope, offset = self.decoder.weight[:, 0], self.decoder(torch.tensor([0.3]))
        covariance = torch.outer(slope, slope) * (1.0 + 0.7**2) + NOISE**2 * torch.eye(FEATURES)
        return dist.MultivariateNormal(offset, covariance).log_prob(x).detach()


def reparametrized(by_hand: bool) -> Case:
    pair, x = Levels(), torch.randn(4, FEATURES)
    model = poutine.reparam(pair.model, config={"z": LocScaleReparam(0.0)})
    guide = pair.guide if by_hand else autoguide.AutoNormal(model, init_scale=0.8)
    case = Case(model, guide, (x,), 4, modules=(pair,))
    return case.with_exact(lambda: pair.marginal(x))


class Causes(nn.Module):
    """The causal autoencoder of Pyro's own package, whose guide also predicts treatment and outcome."""

    def __init__(self) -> None:
        super().__init__()
        kinds = {"outcome_dist": "bernoulli", "feature_dim": FEATURES, "latent_dim": 1, "hidden_dim": 4, "num_layers": 2}
        self.generator, self.recognition = Model(dict(kinds)), Guide(dict(kinds))
        with torch.no_grad():
            for network in (self.recognition.z0_nn, self.recognition.z1_nn):
                last = network.fc[-1]
                last.weight.mul_(0.1)  # near the prior
                last.bias.copy_(torch.tensor([0.0, 0.6]))


def causes() -> Case:
    pair, x = Causes(), torch.randn(4, FEATURES)
    t, y = torch.bernoulli(torch.full((2, 4), 0.5))
    case = Case(pair.generator, pair.recognition, (x,), 4, {"t": t, "y": y}, modules=(pair,))
    return case.with_exact(lambda: over_grid(case, "z", 1, 0.1))


class Holes(nn.Module):
    """Numbers that were not observed, the others given by ``obs_mask``; features in a plate of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.weight = linear(FEATURES, 2), nn.Parameter(torch.tensor([0.8, -0.5, 1.0]))

    def model(self, x: Tensor, seen: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            with pyro.plate("features", FEATURES, dim=-2):
                pyro.sample("x", dist.Normal(z * self.weight[:, None], NOISE), obs=x.T, obs_mask=seen.T)

    def guide(self, x: Tensor, seen: Tensor) -> None:
        loc, log_scale = self.encoder(x * seen).chunk(2, -1)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(0.3 * loc[:, 0], (0.1 * log_scale[:, 0]).exp()))

    def marginal(self, x: Tensor, seen: Tensor) -> Tensor:
        covariance = torch.outer(self.weight, self.weight) + NOISE**2 * torch.eye(FEATURES)
        parts = zip(x, seen, strict=True)
        return torch.stack([_density(row[here], covariance[here][:, here]) for row, here in parts]).detach()


def _density(x: Tensor, covariance: Tensor) -> Tensor:
    return dist.MultivariateNormal(torch.zeros(len(x)), covariance).log_prob(x) if len(x) else torch.zeros(())


def holes() -> Case:
    pair, x = Holes(), torch.randn(4, FEATURES)
    seen = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 0, 1], [1, 1, 0]]).bool()
    case = Case(pair.model, pair.guide, (x,), 4, {"seen": seen}, modules=(pair,), stock=None, left_out=("x_unobserved",))
    return case.with_exact(lambda: pair.marginal(x, seen))


class Shifted(Factors):
    """A guide with a factor in it, which is no density of the latents."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = linear(FEATURES, LATENT)

    def guide(self, x: Tensor) -> None:
        pyro.module("shifted", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.2 * self.encoder(x), 0.9).to_event(1))
            pyro.factor("penalty", -1.0 - z.square().sum(-1), has_rsample=True)


def shifted() -> Case:
    pair = Shifted()
    x = torch.randn(4, FEATURES)
    case = Case(pair.model, pair.guide, (x,), 4, modules=(pair,))
    return case.with_exact(lambda: affine(case, pair.decoder, LATENT, NOISE))


JOINT = "joint over the data"
ROWS = [
    Row("AutoNormal", lambda: automatic("AutoNormal", init_scale=0.8)),
    Row("AutoNormalMessenger", lambda: automatic("AutoNormalMessenger", init_scale=0.8)),
    Row("AutoHierarchicalNormalMessenger", lambda: automatic("AutoHierarchicalNormalMessenger", init_scale=0.8)),
    Row("AutoDelta", lambda: automatic("AutoDelta"), no_likelihood="'z'"),
    Row("AutoDiagonalNormal", lambda: automatic("AutoDiagonalNormal"), refused="'_AutoDiagonalNormal_latent'"),
    Row("AutoStructured", lambda: automatic("AutoStructured"), refused="AutoNormal"),
    Row("reparam, guide by hand", lambda: reparametrized(by_hand=True)),
    Row("reparam, AutoNormal", lambda: reparametrized(by_hand=False)),
    Row("cevae", causes),
    Row("a factor in the guide", shifted),
    Row("obs_mask", holes),
]
