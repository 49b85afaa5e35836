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
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from pyrovae.errors import InputError
from pyrovae.parameters import same_random_numbers
from pyrovae.rewriting import biased, onednn_products, product, rewrite, tanh

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
        with torch.enable_grad(), same_random_numbers(*args, *given.values()), _refused(), _torch_undisturbed():
            self._graph = torch.export.export(module, tuple(args), given, strict=False).module()
        named = [*self._graph.named_parameters(), *self._graph.named_buffers()]
        self._names = [name for name, _ in named]
        self.tensors: list[Tensor] = [tensor for _, tensor in named]

    def __call__(self, tensors: Sequence[Tensor], *args: Tensor, **kwargs: Tensor) -> Any:
        """What the module gives for arguments of the recorded shapes, with these parameters and buffers."""
        return functional_call(self._graph, dict(zip(self._names, tensors, strict=True)), args, kwargs)


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
    except InputError:
        raise
    except Exception as error:
        raise NotRecordedError(_reason(error)) from error


def _reason(error: Exception) -> str:
    """What went wrong, and the last line of the user's own code on the way there."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_the_users(frame.filename)]
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    where = f" at {frames[-1].filename}:{frames[-1].lineno} ({frames[-1].line})" if frames else ""
    return f"{type(error).__name__}{where}: {first}"


def _is_the_users(filename: str) -> bool:
    standard = filename.startswith(sysconfig.get_paths()["stdlib"]) and "site-packages" not in filename
    return not standard and not filename.startswith((*_not_the_users, "<"))
