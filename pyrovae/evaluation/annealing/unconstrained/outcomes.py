"""Every joint outcome of a datum's discrete latents, over which its densities are summed."""

import math
from typing import Any

import torch
from torch import Tensor

from pyrovae.engine.plates import Plates
from pyrovae.engine.shapes import data_place
from pyrovae.engine.sites import Site
from pyrovae.engine.supports import base_distribution
from pyrovae.errors import InputError

MOST_OUTCOMES = 128
"""Most joint outcomes that are summed over."""


class Outcomes:
    r"""The C joint outcomes of the discrete latents :math:`y` of a datum; one, of nothing, where there are no such latents.

    A density of the other latents is :math:`\log \sum_y \exp \log p(y, u)`.

    Args:
        sites: the discrete latent sites of the model by name, with values that show their shapes.
        plates: the plates, of which one is that of the data.

    Raises:
        InputError: for latents without a finite number of outcomes, and where there are more than 128 in all.
    """

    def __init__(self, sites: dict[str, Site], plates: Plates) -> None:
        finite = {name: _FiniteSite(name, site, plates) for name, site in sites.items()}
        self.number = math.prod(site.number for site in finite.values())
        if self.number > MOST_OUTCOMES:
            names = ", ".join(map(repr, sites))
            raise InputError(
                f"the discrete latents ({names}) have {self.number:,} joint outcomes for one datum; expected at most "
                f"{MOST_OUTCOMES}, which are summed over; sum them out in the model, or take log_likelihood"
            )
        self._values: dict[str, Tensor] = {}
        before = 1
        for name, site in finite.items():
            self._values[name] = site.values(torch.arange(self.number) // before % site.number)
            before *= site.number

    def repeated(self, u: Tensor) -> Tensor:
        """Repeat positions of shape ``(K, B, D)`` for every outcome, shape ``(CK, B, D)``."""
        return u if self.number == 1 else u.repeat(self.number, 1, 1)

    def values(self, particles: int) -> dict[str, Tensor]:
        """Return the values of the sites at every outcome, each for so many particles in a row."""
        return {name: values.repeat_interleave(particles, 0) for name, values in self._values.items()}

    def summed(self, log_density: Tensor) -> Tensor:
        """Sum densities of shape ``(CK, B)`` over the outcomes, shape ``(K, B)``."""
        return log_density if self.number == 1 else log_density.unflatten(0, (self.number, -1)).logsumexp(0)


class _FiniteSite:
    """The outcomes of one site: each option of each of the choices that a datum has there, in every combination."""

    def __init__(self, name: str, site: Site, plates: Plates) -> None:
        base: Any = base_distribution(site["fn"])
        try:
            self._options: Tensor = base.enumerate_support(expand=False).reshape(-1, *base.event_shape)
        except NotImplementedError as error:
            raise InputError(
                f"latent site {name!r} is discrete ({type(base).__name__}), its outcomes cannot be listed, and Hamiltonian "
                "transitions move along gradients; sum it out in the model, or take log_likelihood"
            ) from error
        self._place = data_place(site, plates)
        self._data, *self._shape = site["value"].movedim((0, self._place), (0, 1)).shape[1:]
        self._choices = math.prod(self._shape[: len(self._shape) - len(base.event_shape)])
        self.number: int = len(self._options) ** self._choices

    def values(self, places: Tensor) -> Tensor:
        """Return the values at outcomes of these numbers, in the shape that so many particles have."""
        digits = [places // len(self._options) ** choice % len(self._options) for choice in range(self._choices)]
        chosen = self._options[torch.stack(digits, 1).to(self._options.device)].reshape(len(places), 1, *self._shape)
        return chosen.expand(-1, self._data, *self._shape).movedim((0, 1), (0, self._place))
