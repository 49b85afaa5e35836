"""The prior that is a mixture of the guide's posteriors."""

import pyro
import torch
from torch import Tensor, nn

from pyrovae.distributions.equal_mixture import EqualMixture
from pyrovae.errors import InputError
from pyrovae.networks import Shape
from pyrovae.priors.prior import Prior, Proposal


class Vamp(Prior):
    r"""A mixture of the guide's proposals at pseudo-inputs, the variational mixture of posteriors.

    .. math::
        p(z) = \frac{1}{C} \sum_{c=1}^{C} q(z \mid u_c)

    on the site ``z``, with :math:`u_c` of the shape of one datum, learned; where there is a context, with a learned one of
    that beside it, so that the prior is one for all contexts. It belongs to the guide of its ``VAE``, whose
    parameters it uses and does not own. The pseudo-inputs begin as noise around one half, as suits pixels in [0, 1];
    :meth:`start_at` lets them begin at data.

    Args:
        latent_dim: length of z.
        components: the number :math:`C` of pseudo-inputs.

    Raises:
        InputError: for less than one component, and where it runs outside a ``VAE``.

    References:
        | VAE with a VampPrior (Tomczak & Welling, 2018), equation 9
        | https://arxiv.org/abs/1705.07120
    """

    pseudo_inputs: nn.Parameter

    def __init__(self, latent_dim: int, components: int = 50) -> None:
        super().__init__(latent_dim)
        if components < 1:
            raise InputError(f"components is {components}; expected at least 1")
        self.components = components
        self.proposal: Proposal | None = None
        self.pseudo_contexts: nn.Parameter | None = None

    def meet(self, proposal: Proposal, event_shape: Shape, context_shape: Shape | None) -> None:
        self.proposal = proposal
        self.pseudo_inputs = nn.Parameter(0.5 + 0.1 * torch.randn(self.components, *event_shape))
        if context_shape is not None:
            self.pseudo_contexts = nn.Parameter(0.5 + 0.1 * torch.randn(self.components, *context_shape))

    @torch.no_grad()
    def start_at(self, x: Tensor) -> None:
        """Let the pseudo-inputs begin at the data ``x``, of shape ``(components, *event_shape)``."""
        if x.shape != self.pseudo_inputs.shape:
            raise InputError(
                f"x has shape {tuple(x.shape)}; expected {tuple(self.pseudo_inputs.shape)}, one datum a component"
            )
        self.pseudo_inputs.copy_(x)

    def forward(self) -> Tensor:
        if self.proposal is None:
            raise InputError("Vamp is made of a guide's proposals and has no guide; build it as VAE(..., prior=Vamp)")
        return pyro.sample("z", EqualMixture(self.proposal(self.pseudo_inputs, self.pseudo_contexts)))
