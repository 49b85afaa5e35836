"""The normal prior with learned location and scale."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyrovae.networks import MLP, Build, Shape
from pyrovae.priors.prior import Prior, Proposal


class LearnedNormal(Prior):
    r"""A normal prior whose location and scale are learned, a pair for each dimension.

    .. math::
        p(z) = \prod_d N(z_d; \mu_d, \sigma_d^2), \qquad \mu = 0,\; \sigma = 1 \text{ at first}

    on the site ``z``. A decoder and guide that begin with linear layers can do the same to z themselves; it serves where
    the guide's scale is fixed or the prior's parameters are of interest. In a ``VAE`` with a context c it is
    :math:`p(z \mid c)`, the prior of the conditional VAE: a network of the context gives what is added to :math:`\mu` and
    :math:`\log \sigma`.

    Args:
        latent_dim: length of z.
        network: builds the network from the shape of the context and that of its output, ``(2, latent_dim)``.

    References:
        | Learning Structured Output Representation using Deep Conditional Generative Models (Sohn, Lee & Yan, 2015)
        | https://papers.nips.cc/paper/5775
    """

    def __init__(self, latent_dim: int, network: Build = MLP) -> None:
        super().__init__(latent_dim)
        self.loc = nn.Parameter(torch.zeros(latent_dim))
        self.log_scale = nn.Parameter(torch.zeros(latent_dim))
        self._build = network
        self.network: nn.Module | None = None

    def meet(self, proposal: Proposal, event_shape: Shape, context_shape: Shape | None) -> None:
        if context_shape is not None:
            self.network = self._build(context_shape, (2, self.latent_dim))

    def forward(self) -> Tensor:
        return pyro.sample("z", dist.Normal(self.loc, self.log_scale.exp()).to_event(1))

    def given(self, context: Tensor | None) -> Tensor:
        if self.network is None or context is None:
            return self()
        loc, log_scale = self.network(context.to(self.loc.dtype)).unbind(-2)
        return pyro.sample("z", dist.Normal(self.loc + loc, (self.log_scale + log_scale).exp()).to_event(1))
