"""One latent site in unconstrained space."""

import math
from typing import Any

from torch import Tensor

from pyrovae.engine.plates import Plates
from pyrovae.engine.shapes import data_place, per_datum
from pyrovae.engine.sites import Site
from pyrovae.evaluation.annealing.unconstrained.bijections import bijection


class UnconstrainedSite:
    """The values of one latent site as unconstrained numbers, and back.

    Args:
        site: the latent site, with a value that shows its shape.
        support: the values that it can have.
        plates: the plates, of which one is that of the data.

    Raises:
        NotImplementedError: where no bijection leads from unconstrained space to the support.
    """

    def __init__(self, site: Site, support: Any, plates: Plates) -> None:
        self._site, self._plates = site, plates
        self._map: Any = bijection(support)
        rank = self._map.codomain.event_dim - self._map.domain.event_dim
        self._place = data_place(site, plates) + rank - 1  # in a value with one more dimension behind
        self._alike = site["fn"].event_dim - self._map.codomain.event_dim
        self._shape = tuple(self._data_first(site["value"]).shape[2:])

    @property
    def size(self) -> int:
        """The number of unconstrained numbers a datum."""
        return math.prod(self._shape)

    def pack(self, value: Tensor) -> Tensor:
        """Map values of the site to unconstrained numbers, shape ``(K, B, size)``."""
        return self._data_first(value).flatten(2)

    def unpack(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Map unconstrained numbers to values of the site, with the log determinant of the Jacobian, shape ``(K, B)``."""
        shaped = u.reshape(*u.shape[:2], *self._shape)
        free = shaped.movedim((0, 1), (0, self._place)).squeeze(-1)
        value = self._map(free)
        log_det = self._map.log_abs_det_jacobian(free, value)
        if self._alike:  # numbers of one event, each of which is mapped by itself
            log_det = log_det.sum([*range(-self._alike, 0)])
        return value, per_datum(log_det, self._site, len(u), self._plates)

    def _data_first(self, value: Tensor) -> Tensor:
        return self._map.inv(value).unsqueeze(-1).movedim((0, self._place), (0, 1))
