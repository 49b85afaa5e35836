r"""Programs whose answers are known in closed form.

The linear-Gaussian model (probabilistic PCA), :math:`z \sim N(0, I),\; x \sim N(W z + b, s^2 I)`, has

.. math::
    \log p(x) = \log N(x; b, W W^\top + s^2 I), \qquad
    p(z \mid x) = N(z; V W^\top (x - b) / s^2, V), \quad V = (I + W^\top W / s^2)^{-1}

The variants put the same densities into other program structures, so that the same answers hold.
"""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn

from pyrovae.engine.plates import Plates

PLATES = Plates("data", 1)
"""Of every program here that has one plate."""


class LinearGaussian(PyroModule):
    """The model, with its weights as parameters (``s`` under a constraint)."""

    def __init__(self, data_dim: int = 3, latent_dim: int = 2) -> None:
        super().__init__()
        self.data_dim, self.latent_dim = data_dim, latent_dim
        self.weight = nn.Parameter(torch.arange(1.0, 1 + data_dim * latent_dim).sin().reshape(data_dim, latent_dim))
        self.bias = nn.Parameter(torch.linspace(-0.5, 0.7, data_dim))
        self.noise = PyroParam(torch.tensor(0.8), constraints.positive)

    def forward(self, x: Tensor) -> Tensor:
        with pyro.plate("data", len(x), dim=-1):
            return self.observe(self.latent(), x)

    def latent(self) -> Tensor:
        return pyro.sample("z", dist.Normal(self.bias.new_zeros(self.latent_dim), 1.0).to_event(1))

    def observe(self, z: Tensor, x: Tensor) -> Tensor:
        return pyro.sample("x", dist.Normal(self.mean(z), self.noise).to_event(1), obs=x)

    def mean(self, z: Tensor) -> Tensor:
        return z @ self.weight.T + self.bias

    def data(self, size: int) -> Tensor:
        """Draws from the model."""
        with torch.no_grad():
            return self.mean(torch.randn(size, self.latent_dim)) + self.noise * torch.randn(size, self.data_dim)

    @torch.no_grad()
    def log_p(self, x: Tensor) -> Tensor:
        covariance = self.weight @ self.weight.T + self.noise**2 * torch.eye(self.data_dim)
        return dist.MultivariateNormal(self.bias, covariance).log_prob(x)

    @torch.no_grad()
    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Its mean, shape ``(B, latent_dim)``, and its covariance."""
        precision = torch.eye(self.latent_dim) + self.weight.T @ self.weight / self.noise**2
        covariance = precision.inverse()
        return (x - self.bias) @ self.weight @ covariance / self.noise**2, covariance


class GaussianGuide(PyroModule):
    r"""The guide :math:`q(z \mid x) = N(A x + c, L L^\top)`, begun at the posterior of ``model``.

    Args:
        model: whose posterior it is.
        shift: added to every coordinate of the mean.
        widen: multiplies every standard deviation.
        diagonal: drop the posterior's correlations.
    """

    def __init__(self, model: LinearGaussian, shift: float = 0.0, widen: float = 1.0, diagonal: bool = False) -> None:
        super().__init__()
        origin, covariance = model.posterior(torch.zeros(1, model.data_dim))
        units, _ = model.posterior(torch.eye(model.data_dim))
        self.diagonal = diagonal
        self.slope = nn.Parameter((units - origin).T.contiguous())
        self.offset = nn.Parameter(origin[0] + shift)
        factor = covariance.diagonal().sqrt().diag() if diagonal else torch.linalg.cholesky(covariance)
        self.factor = nn.Parameter(widen * factor)

    def forward(self, x: Tensor) -> Tensor:
        with pyro.plate("data", len(x), dim=-1):
            return pyro.sample("z", self.proposal(x))

    def proposal(self, x: Tensor) -> dist.TorchDistribution:
        loc = x @ self.slope.T + self.offset
        if self.diagonal:
            return dist.Normal(loc, self.factor.diagonal()).to_event(1)
        return dist.MultivariateNormal(loc, scale_tril=self.factor.tril())

    @torch.no_grad()
    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x @ self.slope.T + self.offset, self.factor @ self.factor.T


def gaussian_kl(q: tuple[Tensor, Tensor], p: tuple[Tensor, Tensor]) -> Tensor:
    r""":math:`KL(q \| p)` of normal distributions, each given by means of shape ``(B, L)`` and one covariance."""
    precision = p[1].inverse()
    distance = torch.einsum("bi,ij,bj->b", q[0] - p[0], precision, q[0] - p[0])
    return 0.5 * ((precision @ q[1]).trace() - len(precision) + distance + p[1].logdet() - q[1].logdet())


def weight_variance(q: tuple[Tensor, Tensor], p: tuple[Tensor, Tensor]) -> Tensor:
    r""":math:`Var_q(w / p(x)) = \int p(z)^2 / q(z)\, dz - 1`, where :math:`2 S_p^{-1} - S_q^{-1}` is positive definite."""
    p_precision, q_precision = p[1].inverse(), q[1].inverse()
    precision = 2 * p_precision - q_precision
    linear = 2 * p[0] @ p_precision - q[0] @ q_precision
    exponent = (
        torch.einsum("bi,ij,bj->b", linear, precision.inverse(), linear) / 2
        + torch.einsum("bi,ij,bj->b", q[0], q_precision, q[0]) / 2
        - torch.einsum("bi,ij,bj->b", p[0], p_precision, p[0])
    )
    return (exponent + q[1].logdet() / 2 - p[1].logdet() - precision.logdet() / 2).exp() - 1


class WithDeterministic(LinearGaussian):
    """A ``pyro.deterministic`` outside the plate."""

    def forward(self, x: Tensor) -> Tensor:
        pyro.deterministic("covariance", self.weight @ self.weight.T)
        return super().forward(x)


class WithPixelPlate(LinearGaussian):
    """The pixels in a plate within the data plate, instead of an event dimension."""

    def observe(self, z: Tensor, x: Tensor) -> Tensor:
        mean = self.mean(z).transpose(-1, -2)
        mean = mean.reshape(*mean.shape[:-3], self.data_dim, len(x))  # the pixels' plate takes a dimension that z had
        with pyro.plate("pixels", self.data_dim, dim=-2):
            return pyro.sample("x", dist.Normal(mean, self.noise), obs=x.T)


class WithLatentPlate(LinearGaussian):
    """The latent coordinates in a plate within the data plate, under the site ``z``."""

    def latent(self) -> Tensor:
        with pyro.plate("coordinates", self.latent_dim, dim=-2):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
        return z.transpose(-1, -2).unsqueeze(-3) if z.dim() > 2 else z.T


class LatentPlateGuide(GaussianGuide):
    """The diagonal guide for it."""

    def forward(self, x: Tensor) -> Tensor:
        loc, scale = (x @ self.slope.T + self.offset).T, self.factor.diagonal()[:, None]
        with pyro.plate("data", len(x), dim=-1), pyro.plate("coordinates", len(loc), dim=-2):
            return pyro.sample("z", dist.Normal(loc, scale))


class Chain(LinearGaussian):
    r"""Two latent sites, :math:`a \sim N(0, 1),\; b \sim N(r a, 1 - r^2)`, and :math:`x \sim N(W (a, b) + b, s^2 I)`.

    ``order`` says which of the two is drawn first; the joint is the same.
    """

    correlation = 0.6

    def __init__(self, order: str = "ab") -> None:
        super().__init__(data_dim=3, latent_dim=2)
        self.order = order

    def latent(self) -> Tensor:
        first, second = self.order
        drawn = {first: pyro.sample(first, dist.Normal(0.0, 1.0))}
        loc, scale = self.correlation * drawn[first], (1 - self.correlation**2) ** 0.5
        drawn[second] = pyro.sample(second, dist.Normal(loc, scale))
        return torch.stack([drawn["a"], drawn["b"]], -1)

    @property
    def covariance(self) -> Tensor:
        return torch.tensor([[1.0, self.correlation], [self.correlation, 1.0]])

    @torch.no_grad()
    def log_p(self, x: Tensor) -> Tensor:
        covariance = self.weight @ self.covariance @ self.weight.T + self.noise**2 * torch.eye(3)
        return dist.MultivariateNormal(self.bias, covariance).log_prob(x)

    @torch.no_grad()
    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        covariance = (self.covariance.inverse() + self.weight.T @ self.weight / self.noise**2).inverse()
        return (x - self.bias) @ self.weight @ covariance / self.noise**2, covariance


class ChainGuide(GaussianGuide):
    """The Gaussian guide of a :class:`Chain`, one site after the other."""

    def __init__(self, model: Chain, order: str = "ab", shift: float = 0.0, widen: float = 1.0) -> None:
        super().__init__(model, shift, widen)
        self.order = order

    def forward(self, x: Tensor) -> None:
        loc, covariance = x @ self.slope.T + self.offset, self.factor @ self.factor.T
        i, j = (0, 1) if self.order == "ab" else (1, 0)
        first, second = self.order
        with pyro.plate("data", len(x), dim=-1):
            drawn = pyro.sample(first, dist.Normal(loc[:, i], covariance[i, i].sqrt()))
            slope = covariance[i, j] / covariance[i, i]
            residual = covariance[j, j] - slope * covariance[i, j]
            pyro.sample(second, dist.Normal(loc[:, j] + slope * (drawn - loc[:, i]), residual.sqrt()))


class Subsampled(PyroModule):
    """A pair with ``size`` of the data drawn at each call, in a plate that knows how many there are."""

    def __init__(self, model: LinearGaussian, guide: GaussianGuide, size: int) -> None:
        super().__init__()
        self.generator, self.proposal, self.size = model, guide, size

    def model(self, x: Tensor) -> Tensor:
        with pyro.plate("data", len(x), subsample_size=self.size, dim=-1) as rows:
            return self.generator.observe(self.generator.latent(), x[rows])

    def guide(self, x: Tensor) -> Tensor:
        with pyro.plate("data", len(x), subsample_size=self.size, dim=-1) as rows:
            return pyro.sample("z", self.proposal.proposal(x[rows]))


class Mixture(PyroModule):
    """A mixture of Gaussians, the component being the latent site ``c``; enumerated, it is known."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = torch.tensor([0.2, 0.5, 0.3])
        self.centres = nn.Parameter(torch.tensor([-2.0, 0.0, 1.0]))

    def forward(self, x: Tensor) -> Tensor:
        with pyro.plate("data", len(x), dim=-1):
            c = pyro.sample("c", dist.Categorical(self.weights))
            return pyro.sample("x", dist.Normal(self.centres[c], 0.7), obs=x)

    def joint(self, x: Tensor) -> Tensor:
        """``log p(x, c)`` of every component, shape ``(B, 3)``."""
        return self.weights.log() + dist.Normal(self.centres.detach(), 0.7).log_prob(x[:, None])


class MixtureGuide(PyroModule):
    """A discrete guide: the posterior of a mixture, its logits multiplied by ``sharpness``."""

    def __init__(self, mixture: Mixture, sharpness: float = 1.0) -> None:
        super().__init__()
        self.joint = mixture.joint
        self.sharpness = nn.Parameter(torch.tensor(sharpness))

    def forward(self, x: Tensor) -> Tensor:
        with pyro.plate("data", len(x), dim=-1):
            return pyro.sample("c", dist.Categorical(logits=self.sharpness * self.joint(x)))


def functions(model: LinearGaussian, guide: GaussianGuide) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The pair as plain functions: a network in ``pyro.module``, the rest in ``pyro.param``."""
    decoder = nn.Linear(model.latent_dim, model.data_dim)
    with torch.no_grad():
        decoder.weight.copy_(model.weight)
        decoder.bias.copy_(model.bias)
    noise = model.noise.detach().clone()
    slope, offset, factor = (value.detach().clone() for value in (guide.slope, guide.offset, guide.factor))

    def model_function(x: Tensor) -> Tensor:
        pyro.module("decoder", decoder)
        scale = pyro.param("noise", noise, constraint=constraints.positive)
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(model.latent_dim), 1.0).to_event(1))
            return pyro.sample("x", dist.Normal(decoder(z), scale).to_event(1), obs=x)

    def guide_function(x: Tensor) -> Tensor:
        loc = x @ pyro.param("slope", slope).T + pyro.param("offset", offset)
        scale_tril = pyro.param("factor", factor).tril()
        with pyro.plate("data", len(x), dim=-1):
            if guide.diagonal:
                return pyro.sample("z", dist.Normal(loc, scale_tril.diagonal()).to_event(1))
            return pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=scale_tril))

    return model_function, guide_function


class Tutorial(nn.Module):
    """A VAE as Pyro's tutorial writes it: two methods of one ``nn.Module``."""

    def __init__(self, data_dim: int = 3, latent_dim: int = 2) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.decoder = nn.Linear(latent_dim, data_dim)
        self.encoder = nn.Linear(data_dim, 2 * latent_dim)

    def model(self, x: Tensor) -> Tensor:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latent_dim), 1.0).to_event(1))
            return pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            loc, log_scale = self.encoder(x).chunk(2, -1)
            return pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def drawing(guide: Callable[..., Any], **values: Tensor) -> Callable[..., Any]:
    """The guide made to draw these values, its densities as they are."""
    trace = poutine.Trace()
    for name, value in values.items():
        trace.add_node(name, name=name, type="sample", value=value, is_observed=False, infer={})
    return poutine.replay(guide, trace=trace)
