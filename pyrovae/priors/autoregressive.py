"""The autoregressive prior."""

from collections.abc import Sequence

import pyro
import torch
from torch import Tensor
from torch.nn.functional import pad

from pyrovae.distributions.autoregressive_mixture import AutoregressiveMixture
from pyrovae.errors import InputError
from pyrovae.priors.prior import Prior

with pyro.validation_enabled():  # zuko turns the validation of all of torch's distributions off as it is imported
    from zuko.nn import MaskedMLP


class Autoregressive(Prior):
    r"""The autoregressive prior: each dimension is a mixture of normals, given those before it.

    .. math::
        p(z) = \prod_d \sum_{c=1}^{C} \pi_c(z_{<d})\, N(z_d; \mu_c(z_{<d}), \sigma_c(z_{<d})^2), \qquad
        \sigma = \log(1 + e^{s}) + 10^{-6},

    on the site ``z``, with all :math:`(\log \pi, \mu, s)` from one masked network. A density, which training needs, takes
    one call of it, a draw ``latent_dim``. With one component it is what ``Flow`` of kind ``"maf"`` with one step is.

    Args:
        latent_dim: length of z.
        components: the number C of components of a dimension.
        hidden: the widths of the hidden layers of the network.

    Raises:
        InputError: for less than one component.

    References:
        | MADE: Masked Autoencoder for Distribution Estimation (Germain, Gregor, Murray & Larochelle, 2015)
        | https://arxiv.org/abs/1502.03509
        | Variational Lossy Autoencoder (Chen et al., 2017), section 3.2
        | https://arxiv.org/abs/1611.02731
    """

    like: Tensor

    def __init__(self, latent_dim: int, components: int = 5, hidden: Sequence[int] = (64, 64)) -> None:
        super().__init__(latent_dim)
        if components < 1:
            raise InputError(f"components is {components}; expected at least 1")
        self.components = components
        before = torch.ones(latent_dim, 1 + latent_dim, dtype=torch.bool).tril()  # the first input is always 1
        self.network = MaskedMLP(before.repeat_interleave(3 * components, 0), list(hidden))  # pyright: ignore
        self.register_buffer("like", torch.zeros(latent_dim), persistent=False)

    def forward(self) -> Tensor:
        return pyro.sample("z", AutoregressiveMixture(self._params, self.like))

    def _params(self, z: Tensor) -> Tensor:
        """Compute the parameters of every dimension, shape ``(*batch, latent_dim, 3, components)``."""
        return self.network(pad(z, (1, 0), value=1.0)).unflatten(-1, (self.latent_dim, 3, self.components))
