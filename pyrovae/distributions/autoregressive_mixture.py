"""The autoregressive distribution whose conditionals are mixtures of normals."""

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints
from torch.nn.functional import softplus


class AutoregressiveMixture(TorchDistribution):
    r"""An autoregressive distribution of vectors, whose conditionals are mixtures of normals.

    .. math::
        p(z) = \prod_d \sum_c \pi_{cd} N(z_d; \mu_{cd}, \sigma_{cd}^2), \qquad \sigma = \log(1 + e^{s}) + 10^{-6},

    where :math:`(\log \pi_{cd}, \mu_{cd}, s_{cd})` are functions of the numbers before :math:`z_d`. A density takes one call
    of the network, a draw one a number.

    Args:
        network: from z, shape ``(*batch, D)``, to those parameters, shape ``(*batch, D, 3, components)``.
        like: a tensor of shape ``(D,)``, of the type and on the device of the draws.
        batch_shape: of independent vectors.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012
    support: Any = constraints.real_vector

    def __init__(self, network: Callable[[Tensor], Tensor], like: Tensor, batch_shape: Size = Size()) -> None:  # noqa: B008
        self.network = network
        self.like = like
        super().__init__(batch_shape, like.shape, validate_args=False)

    def expand(self, batch_shape: Size, _instance: None = None) -> "AutoregressiveMixture":
        return AutoregressiveMixture(self.network, self.like, Size(batch_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        return _conditionals(self.network(value)).log_prob(value).sum(-1)

    @torch.no_grad()
    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008
        z = self.like.new_zeros(self._extended_shape(sample_shape))
        for place in range(z.shape[-1]):
            z[..., place] = _conditionals(self.network(z)[..., place, :, :]).sample()
        return z


def _conditionals(params: Tensor) -> dist.MixtureSameFamily:
    logits, loc, raw_scale = params.unbind(-2)
    return dist.MixtureSameFamily(dist.Categorical(logits=logits), dist.Normal(loc, softplus(raw_scale) + 1e-6))
