"""Names and checks that priors and guides of several stochastic layers share."""

from collections.abc import Sequence

from pyrovae.errors import InputError


def site(layer: int) -> str:
    """Name a layer's site, the lowest being 0: ``z``, ``z2``, ``z3`` and so on."""
    return f"z{layer + 1}" if layer else "z"


def require_layers(upper: Sequence[int]) -> None:
    """Raise an InputError where there is no layer above the lowest, or one without dimensions."""
    if not upper or min(upper) < 1:
        raise InputError(f"upper is {tuple(upper)}; expected the lengths of one or more layers, each at least 1")
