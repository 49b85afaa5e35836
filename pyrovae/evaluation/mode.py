"""Programs in evaluation mode: dropout off, batch normalisation by its running statistics."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from pyrovae.parameters import Program


@contextmanager
def evaluating(*programs: Program) -> Iterator[None]:
    """Put those programs that are modules (or methods of one) into evaluation mode, and put each submodule back.

    A plain function that closes over a network is left as it is: call ``network.eval()`` before.
    """
    modules = [part for program in programs for part in _modules(program)]
    modes = [module.training for module in modules]
    try:
        for module in modules:
            module.training = False
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def _modules(program: Program) -> list[nn.Module]:
    owner = getattr(program, "__self__", program)
    return list(owner.modules()) if isinstance(owner, nn.Module) else []
