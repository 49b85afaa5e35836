"""Programs in evaluation mode: dropout off, batch normalisation by its running statistics."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from pyro.poutine.runtime import am_i_wrapped
from torch import nn

from pyrovae.runtime.parameters import Program, seeing
from pyrovae.runtime.reachable_modules import modules_reached


@contextmanager
def evaluating(*programs: Program) -> Iterator[None]:
    """Put every network that programs reach into evaluation mode, and restore each part's mode on leaving.

    These are the networks that can be found from the programs
    (:func:`~pyrovae.runtime.reachable_modules.modules_reached`), be they modules, their methods or plain functions, and
    those that are called meanwhile in this thread by whatever program Pyro runs. Contexts may lie within each other.
    """
    with modes_kept() as modes:
        modes.evaluate(modules_reached(*programs))
        with seeing(modes.see, eager=False):
            yield


@contextmanager
def modes_kept(*modules: nn.Module) -> Iterator["Modes"]:
    """Restore the mode of modules and their parts on leaving, and of those that join meanwhile."""
    modes = Modes()
    for module in modules:
        modes.keep(module.modules())
    try:
        yield modes
    finally:
        modes.restore()


class Modes:
    """The modes that modules had, training or evaluation, when they were first seen."""

    def __init__(self) -> None:
        self._before: dict[nn.Module, bool] = {}

    def keep(self, modules: Iterable[nn.Module]) -> None:
        """Remember the modes of modules that were not seen before."""
        self._before = {**{module: module.training for module in modules}, **self._before}

    def evaluate(self, modules: Iterable[nn.Module]) -> None:
        """Remember the modes of modules that were not seen before, and put them into evaluation mode."""
        new = [module for module in modules if module not in self._before]
        self.keep(new)
        for module in new:
            module.training = False

    def see(self, module: nn.Module) -> None:
        """Put a module that is called into evaluation mode, if a program of Pyro's calls it."""
        if module not in self._before and am_i_wrapped():
            self.evaluate(module.modules())

    def restore(self) -> None:
        """Restore the mode of each module."""
        for module, mode in self._before.items():
            module.training = mode
