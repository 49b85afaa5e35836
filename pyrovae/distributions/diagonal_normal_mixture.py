r"""A mixture of Gaussians with independent dimensions, whose draws carry the gradient of all its parameters.

Given the elements before it, an element of a draw has a mixture of one dimension for its distribution,

.. math::
    u_d = F_d(z_d \mid z_{<d}) = \sum_c w_{cd}\, \Phi\Big(\frac{z_d - \mu_{cd}}{\sigma_{cd}}\Big), \qquad
    w_{cd} \propto \pi_c \prod_{j < d} N(z_j; \mu_{cj}, \sigma_{cj}^2),

and :math:`u` is uniform whatever the parameters :math:`\varphi` are. So that it stays the same, z moves by

.. math::
    \frac{\partial z}{\partial \varphi} = -J^{-1} \frac{\partial F}{\partial \varphi}, \qquad
    J_{dj} = \frac{\partial F_d}{\partial z_j} = \begin{cases}
    \sum_c w_{cd}\, N(z_d; \mu_{cd}, \sigma_{cd}^2) & j = d \\
    \sum_c w_{cd}\, (\Phi_{cd} - F_d)\, (\mu_{cj} - z_j) / \sigma_{cj}^2 & j < d.
    \end{cases}
"""

import pyro.distributions as dist
import torch
from torch import Size, Tensor
from torch.nn.functional import pad


class DiagonalNormalMixture(dist.MixtureSameFamily):
    r"""A mixture of Gaussians with independent dimensions, whose draws carry the gradient of all its parameters.

    .. math::
        q(z) = \sum_c \pi_c \prod_d N(z_d; \mu_{cd}, \sigma_{cd}^2)

    Args:
        mixture_distribution: a ``Categorical`` of batch shape ``(*batch)`` over C components.
        component_distribution: a ``Normal`` of batch shape ``(*batch, C)`` and event shape ``(D,)``.

    References:
        | Stochastic Backpropagation through Mixture Density Distributions (Graves, 2016)
        | https://arxiv.org/abs/1607.05690
        | Implicit Reparameterization Gradients (Figurnov, Mohamed & Mnih, 2018)
        | https://arxiv.org/abs/1805.08498
    """

    has_rsample = True

    @torch.no_grad()
    def sample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        """Draw z, of shape ``(*sample_shape, *batch, D)``; unlike torch's multinomial, without a check of the numbers."""
        mixture = self.expand(Size(sample_shape) + self.batch_shape)
        normal = mixture.component_distribution.base_dist
        component = _drawn(mixture.mixture_distribution.probs)[..., None, None]
        loc, scale = (torch.take_along_dim(value, component, -2)[..., 0, :] for value in (normal.loc, normal.scale))
        return loc + scale * torch.randn_like(loc)

    def rsample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        """Draw z, moving with the parameters as the equations at the head of this file say."""
        z = self.sample(sample_shape)
        uniform, jacobian = self._distribution_functions(z)
        moved = uniform - uniform.detach()
        return z - torch.linalg.solve_triangular(jacobian.detach(), moved[..., None], upper=False)[..., 0]

    def _distribution_functions(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Compute F and its Jacobian J, of shapes ``(*batch, D)`` and ``(*batch, D, D)``, at z of shape ``(*batch, D)``."""
        normal = self.component_distribution.base_dist
        log_densities = normal.log_prob(z[..., None, :])
        before = pad(log_densities[..., :-1], (1, 0)).cumsum(-1)
        weights = (self.mixture_distribution.logits[..., None] + before).softmax(-2)
        functions = normal.cdf(z[..., None, :])
        uniform = (weights * functions).sum(-2)
        slopes = (normal.loc - z[..., None, :]) / normal.variance
        across = torch.einsum("...cd,...cj->...dj", weights * (functions - uniform[..., None, :]), slopes)
        along = (weights * log_densities.exp()).sum(-2).clamp(min=torch.finfo(z.dtype).tiny)
        return uniform, across.tril(-1) + torch.diag_embed(along)


def _drawn(probabilities: Tensor) -> Tensor:
    """Draw an index for each row of the last dimension, with its probabilities."""
    cumulative = probabilities.cumsum(-1)
    threshold = torch.rand_like(cumulative[..., :1]) * cumulative[..., -1:]
    return (cumulative <= threshold).sum(-1).clamp(max=probabilities.shape[-1] - 1)
