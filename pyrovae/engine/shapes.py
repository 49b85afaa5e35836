"""Shapes of a site's values and densities: particles, plates, data and event."""

import torch
from torch import Tensor

from pyrovae.engine.plates import Plates, data_frame
from pyrovae.engine.sites import Site
from pyrovae.engine.stacking import is_of_each
from pyrovae.errors import InputError


def per_datum(values: Tensor, site: Site, particles: int, plates: Plates) -> Tensor:
    """Sum values of a site's batch shape over all plates but particles and data: shape ``(K, B)``.

    Raises:
        InputError: for values of several runs where there is one, which a program was handed by ``poutine.replay``, say.
    """
    data = data_frame(site, plates.data)
    shape = _batch_shape(site, particles, plates)
    if values.dim() > len(shape):
        raise InputError(
            f"site {site['name']!r} has densities of shape {tuple(values.shape)}; expected {tuple(shape)}, particles and "
            "plates: particles are drawn here, so hand the program the values of one run, or none"
        )
    values = values.expand(torch.broadcast_shapes(values.shape, shape))
    inner = [dim for dim in range(-plates.nesting, 0) if dim != data.dim]
    return values.sum(inner) if inner else values


def spread(values: Tensor, site: Site, plates: Plates) -> Tensor:
    """Reshape values of shape ``(K, B)`` to lie along the dimensions that particles and data have at a site."""
    return values.reshape(_batch_shape(site, len(values), plates))


def coordinates(values: Tensor, site: Site, plates: Plates) -> Tensor:
    """Flatten the inner plates and the event of a site's values into one dimension: shape ``(K, B, D)``."""
    place = data_place(site, plates)
    return values.unsqueeze(-1).movedim((0, place - 1), (0, 1)).flatten(2)


def data_place(site: Site, plates: Plates) -> int:
    """The dimension of the data in the values of a site, counted from the right, a negative number."""
    return data_frame(site, plates.data).dim - site["fn"].event_dim


def numbers_per_run(site: Site) -> int:
    """Number of scalars that a site has in one run."""
    value = torch.as_tensor(site["value"])
    return value.numel() // (len(value) if is_of_each(site) else 1)


def _batch_shape(site: Site, particles: int, plates: Plates) -> list[int]:
    """The shape of a site's batch with inner plates of size 1."""
    data = data_frame(site, plates.data)
    shape = [1] * (plates.nesting + 1)
    shape[0], shape[data.dim] = particles, data.size
    return shape
