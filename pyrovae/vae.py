"""A variational autoencoder from its parts: prior, likelihood, guide and two networks, wired into two Pyro programs."""

from collections.abc import Callable
from functools import partial

import pyro
import torch
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrovae.distributions.observed_part import observed_part, require_mask
from pyrovae.errors import InputError
from pyrovae.guides import DiagonalNormal, Guide
from pyrovae.likelihoods import Bernoulli, Likelihood
from pyrovae.networks import MLP, Build, Shape
from pyrovae.networks.conditional_network import ConditionalNetwork, output, require_rows
from pyrovae.priors import Prior, StandardNormal


class Model(PyroModule):
    r"""The generator, :math:`z \sim p(z),\; x \sim p(x \mid z)`, a Pyro program.

    ``model(x)`` observes the data ``x``, of shape ``(B, *event_shape)``, in the plate ``data``; ``model(size=n)`` draws
    ``n`` new ones, and ``model(c=c)`` one for each context.
    """

    def __init__(self, prior: Prior, likelihood: Likelihood, decoder: nn.Module) -> None:
        super().__init__()
        self.prior = prior
        self.likelihood = likelihood
        self.decoder = decoder

    def forward(self, x: Tensor | None = None, c: Tensor | None = None, mask: Tensor | None = None, size: int = 1) -> Tensor:
        """Observe ``x``, or draw new data; returns x.

        Args:
            x: the data, shape ``(B, *event_shape)``.
            c: what they are conditioned on, the context, shape ``(B, *context_shape)``.
            mask: the numbers that were observed, bool, of the shape of ``x``; all if not given. The others may have any
                value, NaN too.
            size: the number of data to draw where neither data nor contexts say it.

        Raises:
            InputError: where one of these has another shape than the programs were built for.
        """
        size = next((len(given) for given in (x, c) if given is not None), size)
        _check(self.likelihood.event_shape, size, x, c, mask)
        with pyro.plate("data", size, dim=-1):
            z = self.prior.given(c)
            p_x = self.decode(z, c)
            x = x if x is None or x.is_floating_point() else x.to(z.dtype)  # 0 and 1, and counts, are numbers in any type
            if x is None or mask is None:
                return pyro.sample("x", p_x, obs=x)
            filled = torch.where(mask, x, self.likelihood.filler)
            return pyro.sample("x", observed_part(p_x, mask), obs=filled)

    def decode(self, z: Tensor, context: Tensor | None = None) -> TorchDistribution:
        r"""The distribution :math:`p(x \mid z)`, for z of shape ``(*batch, latent_dim)``."""
        return self.likelihood.given(output(self.decoder, z, context), context)


class VAE(PyroModule):
    r"""A variational autoencoder: ``model`` and ``guide``, two Pyro programs that go wherever Pyro takes programs.

    .. math::
        z \sim p(z), \quad x \sim p(x \mid z) \qquad\text{and}\qquad z \sim q(z \mid x)

    With a ``context_shape`` each is conditioned on a context c, too, the conditional VAE: call the programs with
    ``c``, and hand :func:`pyrovae.fit` and all others ``{"x": x, "c": c}``. Which numbers were observed, where
    some were not, is said by ``{"x": x, "mask": mask}``.

    Every part is given as what builds it from its shapes alone (a class, or a ``functools.partial`` of one), so that
    changing a part is changing one argument.

    Args:
        event_shape: shape of one datum, such as ``(28, 28)``.
        latent_dim: length of the latent vector z.
        prior: builds p(z) from ``latent_dim``.
        likelihood: builds p(x | z) from ``event_shape``.
        guide: builds q(z | x) from ``event_shape``, ``latent_dim`` and the encoder's builder.
        encoder: builds the guide's network from its input and output shapes.
        decoder: builds the model's network from its input and output shapes.
        context_shape: shape of one context, if there is any; how it joins says
            :class:`pyrovae.networks.conditional_network.ConditionalNetwork`.

    References:
        | Auto-Encoding Variational Bayes (Kingma & Welling, 2014)
        | https://arxiv.org/abs/1312.6114
        | Learning Structured Output Representation using Deep Conditional Generative Models (Sohn, Lee & Yan, 2015)
        | https://papers.nips.cc/paper/5775

    Example:
        >>> vae = VAE((8, 8), latent_dim=2)
        >>> x = vae.model(size=5)
        >>> vae.guide(x).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        event_shape: Shape,
        latent_dim: int = 10,
        prior: Callable[[int], Prior] = StandardNormal,
        likelihood: Callable[[Shape], Likelihood] = Bernoulli,
        guide: Callable[[Shape, int, Build], Guide] = DiagonalNormal,
        encoder: Build = MLP,
        decoder: Build = MLP,
        context_shape: Shape | None = None,
    ) -> None:
        super().__init__()
        self.context_shape = context_shape = None if context_shape is None else tuple(context_shape)
        if context_shape is not None:
            encoder, decoder = (partial(ConditionalNetwork, build, context_shape) for build in (encoder, decoder))
        p_x = likelihood(tuple(event_shape))
        self.model = Model(prior(latent_dim), p_x, decoder((latent_dim,), p_x.param_shape))
        self.guide = guide(tuple(event_shape), latent_dim, encoder)
        self.model.prior.meet(self.guide.propose, tuple(event_shape), context_shape)
        self.guide.meet(self.model.prior)

    @torch.no_grad()
    def start_at_mean(self, mean: Tensor) -> None:
        """Set the decoder's output bias so that, untrained, it predicts ``mean``, of shape ``event_shape``.

        Raises:
            InputError: where the decoder has no ``start_output_at``.
        """
        decoder = self.model.decoder
        decoder = decoder.network if isinstance(decoder, ConditionalNetwork) else decoder
        if not hasattr(decoder, "start_output_at"):
            raise InputError(
                f"the decoder {type(decoder).__name__} has no method start_output_at(value), which sets its output bias; "
                "give it one, or do not ask to start at the data's mean"
            )
        _check_shape(mean[None], self.model.likelihood.event_shape)
        decoder.start_output_at(self.model.likelihood.start(mean))  # pyright: ignore


def _check(event_shape: Shape, size: int, x: Tensor | None, context: Tensor | None, mask: Tensor | None) -> None:
    if x is not None:
        _check_shape(x, event_shape)
    require_rows(context, size)
    if x is not None and mask is not None:
        require_mask(mask, x)


def _check_shape(x: Tensor, event_shape: Shape) -> None:
    if tuple(x.shape[1:]) != event_shape:
        raise InputError(
            f"x has shape {tuple(x.shape)}; expected (B, {', '.join(map(str, event_shape))}): build the VAE with "
            f"event_shape={tuple(x.shape[1:])}, or reshape the data"
        )
