"""The normalizing-flow prior."""

import math
from collections.abc import Sequence
from functools import partial

import pyro
from torch import Tensor

from pyrovae.distributions.flow import FlowDistribution, Kind, family, require_transforms
from pyrovae.networks import Shape
from pyrovae.priors.prior import Prior, Proposal


class Flow(Prior):
    r"""The normalizing-flow prior: a flow transforms a standard normal vector.

    .. math::
        \log p(z) = \log N(f(z); 0, I) + \log \left| \det \frac{\partial f(z)}{\partial z} \right|, \qquad
        f = f_T \circ \cdots \circ f_1

    on the site ``z``; in a ``VAE`` with a context, f depends on that, too. Every :math:`f_t` is autoregressive in its input,
    so that a density, which training needs, takes one pass; a draw is found in ``latent_dim`` passes.

    Args:
        latent_dim: length of z.
        kind: what the steps do to an element: ``"nsf"`` bends it by a rational-quadratic spline, and ``"maf"`` scales and
            shifts it.
        transforms: the number T of steps, which take the elements in ascending and descending order in turn.
        hidden: the widths of the hidden layers of the network of a step.

    Raises:
        InputError: where the kind is none of these, and where there is no step.

    References:
        | Variational Lossy Autoencoder (Chen et al., 2017), section 3.2
        | https://arxiv.org/abs/1611.02731
        | Masked Autoregressive Flow for Density Estimation (Papamakarios, Pavlakou & Murray, 2017)
        | https://arxiv.org/abs/1705.07057
        | Neural Spline Flows (Durkan, Bekasov, Murray & Papamakarios, 2019)
        | https://arxiv.org/abs/1906.04032
    """

    def __init__(self, latent_dim: int, kind: Kind = "maf", transforms: int = 3, hidden: Sequence[int] = (64, 64)) -> None:
        super().__init__(latent_dim)
        build = family(kind)
        require_transforms(transforms, "StandardNormal is the prior")
        self._build = partial(build, latent_dim, transforms=transforms, hidden_features=hidden)
        self.flow = self._build()
        self.conditional = False

    def meet(self, proposal: Proposal, event_shape: Shape, context_shape: Shape | None) -> None:
        if context_shape is not None:
            self.flow, self.conditional = self._build(context=math.prod(context_shape)), True

    def forward(self) -> Tensor:
        return pyro.sample("z", FlowDistribution(self.flow()))

    def given(self, context: Tensor | None) -> Tensor:
        if not self.conditional or context is None:
            return self()
        return pyro.sample("z", FlowDistribution(self.flow(context.flatten(1).to(next(self.parameters()).dtype))))
