"""What Python does to tensors, recorded once as one flat graph and fused: Pyro's handlers run then, and never again.

``torch.export`` records a module's call, ``make_fx`` what a function does with such a recording (its gradient, say), and
inductor turns the result into kernels. Random numbers stay those of torch's generators, drawn by torch's own operators in
the order in which the recorded Python drew them: the same seed gives the same draws, recorded or not.
"""

import logging
import sysconfig
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pyro
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from pyrovae.parameters import same_random_numbers
from pyrovae.rewriting import biased, onednn_products, product, rewrite, tanh
from pyrovae.stillness import READINGS, reached

Made = TypeVar("Made")
_packages = [Path(str(package.__file__)).parent for package in (torch, pyro)]
_talkative = ("torch.utils.cpp_extension", "torch._inductor.ir")
"""Loggers that warn of there being no CUDA, and of operators without a shortcut."""
_not_the_users = tuple(map(str, [*_packages, Path(__file__).parent]))


def _bernoulli(probabilities: Tensor, **_: Any) -> Tensor:
    """Zeros and ones from the numbers that torch draws for them: inductor's own way takes others in double precision."""
    return torch.empty(probabilities.shape, dtype=probabilities.dtype, device=probabilities.device).bernoulli_(probabilities)


decompositions: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.bernoulli.default: _bernoulli,
    torch.ops.aten.addmm.default: biased,
    torch.ops.aten.mm.default: product,
    torch.ops.aten.tanh.default: tanh,
}
"""What operators are made of where they are fused; those of this library are added where they are defined."""


class NotCompiledWarning(UserWarning):
    """A program could not be recorded, or came in too many shapes, and runs eagerly."""


class NotRecordedError(Exception):
    """A program cannot be recorded; the message has the line and the reason."""


class Recording:
    """One call of a module as a graph of tensor operations; a function of its parameters and buffers too.

    Attributes:
        tensors: the parameters and buffers, the very ones of the module, in the order in which a call takes them.

    Raises:
        NotRecordedError: where the module, or what it calls, looks at the numbers in a tensor.
    """

    def __init__(self, module: nn.Module, args: Sequence[Tensor], kwargs: Mapping[str, Tensor] | None = None) -> None:
        given = dict(kwargs or {})
        alone = same_random_numbers(*args, *given.values())
        with torch.enable_grad(), alone, _refused(), _torch_undisturbed(), _Numbers(_without_effect(module, args, given)):
            self._graph = torch.export.export(module, tuple(args), given, strict=False).module()
        named = [*self._graph.named_parameters(), *self._graph.named_buffers()]
        self._names = [name for name, _ in named]
        self.tensors: list[Tensor] = [tensor for _, tensor in named]

    def __call__(self, tensors: Sequence[Tensor], *args: Tensor, **kwargs: Tensor) -> Any:
        """What the module gives for arguments of the recorded shapes, with these parameters and buffers."""
        return functional_call(self._graph, dict(zip(self._names, tensors, strict=True)), args, kwargs)


class _Numbers(TorchFunctionMode):
    """What Python reads of tensors, ``int(x.max())`` say: taken down, or, while a program is recorded, as it was before.

    Args:
        known: what is read, in order; empty to take it down.
        shift: added to what is read.
    """

    def __init__(self, known: Sequence[Any] = (), shift: int = 0) -> None:
        super().__init__()
        self.read: list[Any] = []
        self._known, self._shift = iter(known), shift

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in READINGS - {Tensor.__bool__, Tensor.tolist}:
            return func(*args, **(kwargs or {}))
        number = next(self._known, None)
        if number is None:
            number = func(*args, **(kwargs or {})) + self._shift
        self.read.append(number)
        return number


def _without_effect(module: nn.Module, args: Sequence[Tensor], kwargs: Mapping[str, Tensor]) -> list[Any]:
    """The numbers that Python reads of tensors, where what the module gives is the same for others in their place.

    Such is the number of trials of a multinomial distribution whose value is observed: its density does not need it.
    """
    outputs, reads = [], []
    for shift in (0, 1, -1):
        with same_random_numbers(*args, *kwargs.values()), reached(module), _Numbers(shift=shift) as numbers:
            outputs.append(_attempted(module, args, kwargs, shift))
        reads.append(numbers.read)
        if not numbers.read:
            return []
    return reads[0] if all(_are_equal(outputs[0], other) for other in outputs[1:]) else []


def _attempted(module: nn.Module, args: Sequence[Tensor], kwargs: Mapping[str, Tensor], shift: int) -> Any:
    """What the module gives; ``None`` where a number that is shifted makes it fail."""
    try:
        return module(*args, **kwargs)
    except Exception:
        if not shift:
            raise
        return None


def _are_equal(outputs: Any, others: Any) -> bool:
    pairs = zip(tree_leaves(outputs), tree_leaves(others), strict=False)
    return others is not None and all(torch.equal(value, other) for value, other in pairs)


def fuse(function: Callable[..., Any], inputs: list[Tensor]) -> Callable[..., Any]:
    """The function of tensors as fused kernels, without a gradient of its own; what it changes in place, it changes.

    Raises:
        NotRecordedError: where it, or what it calls, looks at the numbers in a tensor.
    """
    with torch.no_grad(), same_random_numbers(*inputs), _refused(), _torch_undisturbed():
        graph = make_fx(function, decompositions, tracing_mode="fake", _allow_non_fake_inputs=True)(*inputs)
        if inputs[0].device.type == "cpu":
            rewrite(graph)
        with onednn_products():
            fused: Any = torch._inductor.compile(graph, [*inputs], options=_options(inputs[0].device))
    return torch.no_grad()(fused)


def _options(device: torch.device) -> dict[str, Any]:
    """Inductor's: torch's own random numbers, sums whose order no timing decides, and on a CPU no Python between kernels."""
    in_order = {"reorder_for_peak_memory": False, "reorder_for_locality": False}  # random numbers must be drawn in theirs
    return {"fallback_random": True, "deterministic": True, "cpp_wrapper": device.type == "cpu", **in_order}


@contextmanager
def _torch_undisturbed() -> Iterator[None]:
    """Let torch use its own deprecated functions, and say nothing of what its user cannot change."""
    with warnings.catch_warnings(), ExitStack() as stack:
        for name in _talkative:
            stack.enter_context(_quiet(logging.getLogger(name)))
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", ".*_flat_weights.*", UserWarning)  # torch's own recurrent networks
        warnings.filterwarnings("ignore", "TensorFloat32 tensor cores", UserWarning)  # the precision is its user's choice
        yield


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _refused() -> Iterator[None]:
    """Whatever it is in a user's program that cannot be recorded, in one kind of error."""
    try:
        yield
    except Exception as error:
        raise NotRecordedError(_reason(error)) from error


def recorded(make: Callable[[], Made], eagerly: Callable[[], Any]) -> Made | None:
    """What ``make`` makes; None, with one warning that says why, where it cannot and the programs do run eagerly.

    Args:
        make: records, and fuses, what is to be computed.
        eagerly: computes it, and leaves everything as it was; whatever error it raises comes alone, since a program that
            fails by itself is not to be excused for not being recorded.
    """
    try:
        return make()
    except NotRecordedError as error:
        why = error
    eagerly()
    warn_of_eager(f"they cannot be recorded: {why}")
    return None


def warn_of_eager(why: str) -> None:
    """Say that the programs run eagerly."""
    warnings.warn(f"the programs run eagerly: {why}", NotCompiledWarning, stacklevel=2)


def _reason(error: Exception) -> str:
    """What went wrong, and the last line of the user's own code on the way there."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_the_users(frame.filename)]
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    where = f" at {frames[-1].filename}:{frames[-1].lineno} ({frames[-1].line})" if frames else ""
    return f"{type(error).__name__}{where}: {first}"


def _is_the_users(filename: str) -> bool:
    standard = filename.startswith(sysconfig.get_paths()["stdlib"]) and "site-packages" not in filename
    return not standard and not filename.startswith((*_not_the_users, "<"))
