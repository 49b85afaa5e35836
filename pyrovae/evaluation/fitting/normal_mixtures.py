"""Mixtures of normal distributions of the unconstrained latents, one mixture a datum."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from pyrovae.evaluation.fitting.normals import Normals


class NormalMixtures(NamedTuple):
    """Mixtures of J normal distributions, one mixture for each of B data.

    Attributes:
        parts: the distributions, J times one for each datum; the first is the one that chains are whitened by.
        log_shares: the logarithms of their shares, shape ``(J, B)``; minus infinity for a part that a datum has not.
    """

    parts: Sequence[Normals]
    log_shares: Tensor

    def widened(self, factor: float | Tensor) -> Self:
        """Multiply the standard deviations in every direction by a number, or by one for each datum, ``(B,)``."""
        return self._replace(parts=[part.widened(factor) for part in self.parts])

    def rows(self, index: Tensor) -> Self:
        """Choose some of the data, each as often as it is named."""
        return self._replace(parts=[part.rows(index) for part in self.parts], log_shares=self.log_shares[:, index])

    def sample(self, number: int) -> Tensor:
        """Draw from every mixture, shape ``(number, B, D)``."""
        loc = self.parts[0].loc
        noise = torch.randn(number, *loc.shape, dtype=loc.dtype, device=loc.device)
        draws = [part.coloured(noise) for part in self.parts]
        if len(draws) == 1:
            return draws[0]
        chosen = torch.distributions.Categorical(logits=self.log_shares.T, validate_args=False).sample((number,))
        return torch.stack(draws).gather(0, chosen[None, ..., None].expand(1, *noise.shape))[0]

    def log_density(self, u: Tensor) -> Tensor:
        """Compute the log densities at positions of shape ``(K, B, D)``, shape ``(K, B)``, in nats."""
        densities = [part.log_density(u) + share for part, share in zip(self.parts, self.log_shares, strict=True)]
        return torch.stack(densities).logsumexp(0)
