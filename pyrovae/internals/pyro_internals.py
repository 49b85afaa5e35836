"""Private names of Pyro, each behind a name that says what it is for; no other file uses one.

The methods of a ``Messenger`` (``_pyro_sample``, ``_pyro_post_param`` and so on) are what Pyro asks its users to override,
and are not meant. ``tests/internals/test_pyro_internals.py`` asserts that each name exists and does what is relied on here.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyro
from pyro.distributions import MaskedDistribution
from pyro.poutine.runtime import _DIM_ALLOCATOR, _PYRO_STACK
from pyro.poutine.subsample_messenger import _Subsample as Subsample
from torch import nn

__all__ = ["Subsample"]

UNCONSTRAINED = "_unconstrained"
"""Suffix of the name under which a ``PyroModule`` keeps the free value of a parameter with a constraint."""


def name_in_store(module: nn.Module) -> str:
    """The prefix of the names under which a ``PyroModule`` enters its parameters into the store; empty for other modules."""
    return getattr(module, "_pyro_name", "")


def stored_constraints() -> dict[str, Any]:
    """The constraints of all entries of the parameter store, by name."""
    return dict(pyro.get_param_store()._constraints)


def mask_of(distribution: MaskedDistribution) -> Any:
    """What masks the density of a distribution: a truth value or a tensor of them."""
    return distribution._mask


def is_deterministic(site: Mapping[str, Any]) -> bool:
    """Whether a site is that of a ``pyro.deterministic`` statement."""
    return bool(site["infer"].get("_deterministic"))


@contextmanager
def outside_all_handlers() -> Iterator[None]:
    """Run programs apart from the one that is running: no handler and no plate around it is seen by them."""
    handlers, plates = _PYRO_STACK[:], _DIM_ALLOCATOR._stack[:]
    _PYRO_STACK.clear()
    _DIM_ALLOCATOR._stack.clear()
    try:
        yield
    finally:
        _PYRO_STACK[:] = handlers
        _DIM_ALLOCATOR._stack[:] = plates
