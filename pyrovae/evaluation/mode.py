"""Programs in evaluation mode: dropout off, batch normalisation by its running statistics."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from pyrovae.parameters import Program, owner


@contextmanager
def evaluating(*programs: Program) -> Iterator[None]:
    """Put those programs that run a module into evaluation mode, and put each submodule back.

    They are modules, methods of one, and either under Pyro's handlers or partial arguments. A plain function that closes
    over a network is left as it is: call ``network.eval()`` before.
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
    module = owner(program)
    return list(module.modules()) if isinstance(module, nn.Module) else []
