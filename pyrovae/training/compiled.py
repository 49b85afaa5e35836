"""An objective on a pair as fused tensor operations: Pyro's handlers run once, when the programs are recorded."""

import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from pyrovae.errors import InputError
from pyrovae.objectives import Measurement, ObjectiveModule

most_graphs = 8
"""Shapes that one module is recorded for; batches of further shapes run eagerly."""

_packages = [Path(str(package.__file__)).parent for package in (torch, pyro)]
_not_the_users = tuple(map(str, [*_packages, Path(__file__).parents[1]]))


class NotCompiledWarning(UserWarning):
    """A program could not be recorded, or came in too many shapes, and runs eagerly."""


class CompiledObjective(nn.Module):
    """What :func:`compile` returns: the parameters and the loss of an objective's module, recorded and fused.

    ``compiled(x)`` is the loss, ``compiled.measure(x)`` the loss with its terms.
    """

    def __init__(self, module: ObjectiveModule) -> None:
        super().__init__()
        self.module = module
        self._graphs: dict[Any, Callable[..., Any] | None] = {}

    def forward(self, *args: Tensor) -> Tensor:
        """Minus the bound, summed over the data, in nats."""
        return self.measure(*args).loss

    def measure(self, *args: Tensor) -> Measurement:
        """The loss and, for each datum, bound, reconstruction and KL."""
        graph = self._graph(args)
        return self.module.measure(*args) if graph is None else Measurement(*graph(*args))

    def _graph(self, args: tuple[Tensor, ...]) -> Callable[..., Any] | None:
        shapes = tuple((value.shape, value.dtype, value.device) for value in args)
        key = (shapes, self.module.training)
        if key not in self._graphs:
            self._graphs[key] = self._record(args)
        return self._graphs[key]

    def _record(self, args: tuple[Tensor, ...]) -> Callable[..., Any] | None:
        if len(self._graphs) >= most_graphs:
            return _eager(f"they were recorded for {most_graphs} other shapes already; keep the batch size fixed")
        if self.module.plates is None:
            self.module.start(*args)
        try:
            with torch.enable_grad():
                recorded = torch.export.export(_Measure(self.module), args, strict=False).module()
        except InputError:
            raise
        except Exception as error:  # whatever it is in a user's program that cannot be recorded
            return _eager(f"they cannot be recorded: {_reason(error)}")
        return torch.compile(recorded)


def compile(module: ObjectiveModule, *example: Tensor) -> CompiledObjective:
    r"""Record an objective on a pair, once, as one graph of tensor operations, and fuse it.

    The result has the very parameters and buffers of ``module``, the same loss and the same gradients. Latents are drawn
    from torch's generators, so that a seed, or a generator's state put back, gives the same draws again; they are not
    the draws that the eager module makes from that seed. Each shape of batch has a graph of its own, recorded when it is
    first seen: seconds to tens of seconds, less where torch's cache on disk has it.

    A program whose Python branches on values of tensors, or that cannot be recorded for another reason, runs eagerly,
    after one :class:`NotCompiledWarning` that names line and reason.

    Args:
        module: what an objective returns for a pair, ``IWAE(5)(model, guide)``.
        example: a batch to record at once, the arguments of the programs.

    Raises:
        InputError: for another kind of module, and where the programs cannot be weighed.

    Example:
        >>> import pyrovae, torch
        >>> vae = pyrovae.VAE((4,), latent_dim=2)
        >>> loss = pyrovae.compile(pyrovae.IWAE(5)(vae.model, vae.guide))
        >>> loss(torch.ones(20, 4)).backward()  # doctest: +SKIP
    """
    if not isinstance(module, ObjectiveModule):
        raise InputError(
            f"module is a {type(module).__name__}; expected an objective on a pair: compile(IWAE(5)(model, guide), x)"
        )
    compiled = CompiledObjective(module)
    if example:
        compiled._graph(example)
    return compiled


class _Measure(nn.Module):
    """The module with all of its measurement as output, the tuple that ``torch.export`` wants of a ``forward``."""

    def __init__(self, module: ObjectiveModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Tensor) -> tuple[Any, ...]:
        return tuple(self.module.measure(*args))


def _eager(reason: str) -> None:
    warnings.warn(f"the programs run eagerly: {reason}", NotCompiledWarning, stacklevel=2)


def _reason(error: Exception) -> str:
    """What went wrong, and the last line of the user's own code on the way there."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_not_the_users)]
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    where = f" at {frames[-1].filename}:{frames[-1].lineno} ({frames[-1].line})" if frames else ""
    return f"{type(error).__name__}{where}: {first}"
