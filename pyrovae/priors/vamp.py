"""The VampPrior, a mixture of the guide's posteriors."""

import pyro
import torch
from torch import Tensor, nn

from pyrovae.distributions.equal_mixture import EqualMixture
from pyrovae.errors import InputError
from pyrovae.networks import Shape
from pyrovae.priors.prior import Prior, Proposal


class Vamp(Prior):
    r"""The VampPrior, a mixture of the guide's proposals at learned pseudo-inputs.

    .. math::
        p(z) = \frac{1}{C} \sum_{c=1}^{C} q(z \mid u_c)

    on the site ``z``, with :math:`u_c` of the shape of one datum, learned; where there is a context, with a learned one of
    that beside it, so that the prior is one for all contexts. It belongs to the guide of its ``VAE``, whose
    parameters it uses and does not own. The pseudo-inputs begin as noise around one half, as suits pixels in [0, 1];
    :meth:`start_at` lets them begin at data, as ``pyrovae train --start_prior_at_data true`` does.

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
    def start_at(self, x: Tensor, context: Tensor | None = None) -> None:
        """Start the pseudo-inputs at data.

        Args:
            x: the data, shape ``(components, *event_shape)``.
            context: their contexts, shape ``(components, *context_shape)``; without them pseudo-contexts stay as they are.

        Raises:
            InputError: for other shapes, and for contexts where there are none.
        """
        for name, values, pseudo in (("x", x, self.pseudo_inputs), ("context", context, self.pseudo_contexts)):
            if values is None:
                continue
            expected = "none" if pseudo is None else f"{tuple(pseudo.shape)}, one datum a component"
            if pseudo is None or values.shape != pseudo.shape:
                raise InputError(f"{name} has shape {tuple(values.shape)}; expected {expected}")
            pseudo.copy_(values)

    def forward(self) -> Tensor:
        if self.proposal is None:
            raise InputError("Vamp is made of a guide's proposals and has no guide; build it as VAE(..., prior=Vamp)")
        return pyro.sample("z", EqualMixture(self.proposal(self.pseudo_inputs, self.pseudo_contexts)))
