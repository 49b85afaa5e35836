"""The normalizing-flow proposal, with the encoder's output as the flow's context."""

from collections.abc import Sequence

import pyro.distributions as dist
from torch import Tensor

from pyrovae.distributions.flow import FlowDistribution, Kind, family, require_transforms, zuko
from pyrovae.guides.guide import Guide
from pyrovae.networks import Build, Shape


class Flow(Guide):
    r"""The normalizing-flow proposal, with the encoder's output as the flow's context.

    .. math::
        z = m(c) + s(c) \odot f_T(\cdots f_1(\varepsilon, c), c), \quad \varepsilon \sim N(0, I), \qquad
        \log q(z \mid x) = \log N(\varepsilon; 0, I) - \log \left| \det \frac{\partial z}{\partial \varepsilon} \right|,

    where :math:`c`, of length ``context_dim``, is the encoder's output; on the site ``z``. Every :math:`f_t` is
    autoregressive in its input, so that a draw and its density take one pass; the density of any other z, for which the
    estimators ``stl`` and ``dreg`` ask, is found in ``latent_dim`` passes.

    Args:
        event_shape: shape of one datum.
        latent_dim: length of z.
        encoder: builds the network from its input and output shapes.
        kind: what the steps do to an element: ``"nsf"`` bends it by a rational-quadratic spline, and ``"maf"`` scales and
            shifts it.
        transforms: the number T of steps, which take the elements in ascending and descending order in turn.
        hidden: the widths of the hidden layers of the network of a step.
        context_dim: length of c.

    Raises:
        InputError: where the kind is none of these, and where there is no step.

    References:
        | Variational Inference with Normalizing Flows (Rezende & Mohamed, 2015)
        | https://arxiv.org/abs/1505.05770
        | Neural Spline Flows (Durkan, Bekasov, Murray & Papamakarios, 2019)
        | https://arxiv.org/abs/1906.04032
        | Masked Autoregressive Flow for Density Estimation (Papamakarios, Pavlakou & Murray, 2017)
        | https://arxiv.org/abs/1705.07057
    """

    def __init__(
        self,
        event_shape: Shape,
        latent_dim: int,
        encoder: Build,
        kind: Kind = "nsf",
        transforms: int = 2,
        hidden: Sequence[int] = (64, 64),
        context_dim: int = 64,
    ) -> None:
        build = family(kind)
        require_transforms(transforms, "DiagonalNormal is the proposal")
        self.context_dim = context_dim
        super().__init__(event_shape, latent_dim, encoder)
        steps = build(latent_dim, context_dim, transforms=transforms, hidden_features=hidden)
        affine = zuko.flows.ElementWiseTransform(latent_dim, context_dim, hidden_features=hidden)
        self.flow = zuko.lazy.Flow(zuko.lazy.LazyComposedTransform(*steps.transform.transforms, affine).inv, steps.base)

    @property
    def param_shape(self) -> Shape:
        return (self.context_dim,)

    def proposal(self, params: Tensor) -> dist.TorchDistribution:
        return FlowDistribution(self.flow(params))
