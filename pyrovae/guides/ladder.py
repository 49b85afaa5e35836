"""The top-down proposal of a ladder VAE, which corrects the prior's layers by evidence from the data."""

from collections.abc import Callable, Sequence

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyrovae.distributions.layers import require_layers, site
from pyrovae.errors import InputError
from pyrovae.guides.guide import Guide
from pyrovae.networks import MLP, Build, Shape

Conditional = Callable[[Tensor], tuple[Tensor, Tensor]]


class Ladder(Guide):
    r"""The top-down proposal of a ladder VAE: each layer is the product of the prior's and of evidence from the data.

    .. math::
        q(z_1, \dots, z_n \mid x) = N(z_n; \hat\mu_n, \hat\sigma_n^2) \prod_{i=1}^{n-1} N(z_i; m_i, s_i^2), \qquad
        s_i^{-2} = \hat\sigma_i^{-2} + \sigma_i^{-2}, \quad
        m_i = s_i^2 (\hat\mu_i \hat\sigma_i^{-2} + \mu_i \sigma_i^{-2}),

    where :math:`\mu_i(z_{i+1}), \sigma_i(z_{i+1})` are those of the prior, ``pyrovae.priors.Hierarchical`` with the same
    ``upper``, whose parameters it uses and does not own, and :math:`(\hat\mu_i, \hat\sigma_i)` are linear in features: the
    lowest layer's, the encoder's output of shape ``(features,)``, and for each layer above those that a network makes of the
    features below; :math:`\hat\sigma = \log(1 + e^{s}) + 10^{-6}`. The sites are ``z`` (:math:`z_1`), ``z2``, ``z3`` and so
    on.

    The prior's layers are a part of both programs: an objective that gives each program the gradient of a bound of its own,
    such as ``ReweightedWakeSleep`` or ``PIWAE``, gives them the sum of the two.

    Args:
        event_shape: shape of one datum.
        latent_dim: length of the lowest layer.
        encoder: builds the network that makes the lowest features from its input and output shapes.
        upper: the lengths of the layers above it, from below.
        features: how many features each layer has.
        network: builds the networks between features from their input and output shapes.

    Raises:
        InputError: where there is no layer above, or one without dimensions; with a prior of other layers, and where it runs
            outside a ``VAE``.

    References:
        | Ladder Variational Autoencoders (Sønderby, Raiko, Maaløe, Sønderby & Winther, 2016)
        | https://arxiv.org/abs/1602.02282
    """

    def __init__(
        self,
        event_shape: Shape,
        latent_dim: int,
        encoder: Build,
        upper: Sequence[int] = (10,),
        features: int = 64,
        network: Build = MLP,
    ) -> None:
        require_layers(upper)
        self.features = features
        super().__init__(event_shape, latent_dim, encoder)
        self.lengths = (latent_dim, *upper)
        self.networks = nn.ModuleList(network((features,), (features,)) for _ in upper)
        self.evidence = nn.ModuleList(nn.Linear(features, 2 * length) for length in self.lengths)
        self.conditionals: list[Conditional] = []

    def meet(self, prior: nn.Module) -> None:
        lengths = getattr(prior, "lengths", None)
        if lengths != self.lengths:
            found = f"{type(prior).__name__}" + (f" with upper={lengths[1:]}" if lengths else "")
            raise InputError(
                f"the prior is {found}, and Ladder corrects the layers of another; take prior=Hierarchical with "
                f"upper={self.lengths[1:]}, or another guide"
            )
        self.conditionals = prior.conditionals()  # pyright: ignore  # networks, which Pyro does not enter as this guide's own

    @property
    def param_shape(self) -> Shape:
        return (self.features,)

    def proposal(self, params: Tensor) -> dist.TorchDistribution:
        """Return the evidence of the data on ``z`` alone, without the prior's layer."""
        return dist.Normal(*_moments(self.evidence[0], params)).to_event(1)

    def draw(self, params: Tensor) -> Tensor:
        """Draw every layer, from the highest down; returns the lowest."""
        if not self.conditionals:
            raise InputError("Ladder corrects a prior's layers and has no prior; build it as VAE(..., guide=Ladder)")
        features = [params]
        for network in self.networks:
            features.append(network(features[-1]))
        *evidence, highest = map(_moments, self.evidence, features)
        z = pyro.sample(site(len(evidence)), dist.Normal(*highest).to_event(1))
        for layer in reversed(range(len(evidence))):
            loc, scale = _product(evidence[layer], self.conditionals[layer](z))
            z = pyro.sample(site(layer), dist.Normal(loc, scale).to_event(1))
        return z


def _moments(linear: nn.Module, features: Tensor) -> tuple[Tensor, Tensor]:
    loc, raw_scale = linear(features).chunk(2, -1)
    return loc, softplus(raw_scale) + 1e-6


def _product(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Compute location and scale of the product of two normal densities."""
    (loc, scale), (other_loc, other_scale) = one, other
    norm = torch.hypot(scale, other_scale)
    return loc + (other_loc - loc) * (scale / norm).square(), scale / norm * other_scale
