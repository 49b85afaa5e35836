"""The inverse autoregressive flow: affine autoregressive steps from a Gaussian proposal."""

from collections.abc import Sequence

import pyro.distributions as dist
from torch import Tensor
from torch.nn.functional import softplus

from pyrovae.distributions.flow import FlowDistribution, require_transforms, zuko
from pyrovae.guides.guide import Guide
from pyrovae.networks import Build, Shape


class InverseAutoregressive(Guide):
    r"""The inverse autoregressive flow: affine autoregressive steps from a Gaussian proposal.

    .. math::
        z_0 = \mu(x) + \sigma(x) \odot \varepsilon, \quad \varepsilon \sim N(0, I), \qquad
        z_t = m_t(z_{t-1}, c(x)) + s_t(z_{t-1}, c(x)) \odot z_{t-1}, \qquad
        \log q(z_T \mid x) = \log N(z_0; \mu, \sigma^2) - \sum_{t,d} \log s_{td},

    where the element d of :math:`m_t` and :math:`s_t > 0` is a function of those before it alone, and
    :math:`\sigma = \log(1 + e^r) + 10^{-6}`. The encoder's output is :math:`(\mu, r, c)`, of length
    ``2 * latent_dim + context_dim``; :math:`z_T` is the site ``z``. A draw and its density take one pass; the density of any
    other z, for which the estimators ``stl`` and ``dreg`` ask, is found in ``latent_dim`` passes.

    Args:
        event_shape: shape of one datum.
        latent_dim: length of z.
        encoder: builds the network from its input and output shapes.
        transforms: the number T of steps, which take the elements in ascending and descending order in turn.
        hidden: the widths of the hidden layers of the network of a step.
        context_dim: length of c.

    Raises:
        InputError: where there is no step.

    References:
        | Improving Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016), section 4
        | https://arxiv.org/abs/1606.04934
    """

    def __init__(
        self,
        event_shape: Shape,
        latent_dim: int,
        encoder: Build,
        transforms: int = 2,
        hidden: Sequence[int] = (64, 64),
        context_dim: int = 64,
    ) -> None:
        require_transforms(transforms, "DiagonalNormal is the proposal")
        self.context_dim = context_dim
        super().__init__(event_shape, latent_dim, encoder)
        self.steps = zuko.flows.MAF(latent_dim, context_dim, transforms=transforms, hidden_features=hidden).transform

    @property
    def param_shape(self) -> Shape:
        return (2 * self.latent_dim + self.context_dim,)

    def proposal(self, params: Tensor) -> dist.TorchDistribution:
        loc, raw_scale, context = params.split([self.latent_dim, self.latent_dim, self.context_dim], dim=-1)
        base = zuko.distributions.DiagNormal(loc, softplus(raw_scale) + 1e-6)
        return FlowDistribution(zuko.distributions.NormalizingFlow(self.steps(context).inv, base))
