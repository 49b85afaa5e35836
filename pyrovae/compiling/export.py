"""What Python does to tensors, recorded once as one flat graph and fused: Pyro's handlers run then, and never again.

``make_fx`` takes down what one eager run does to tensors, its derivatives among it, and inductor turns that into kernels.
Random numbers stay those of torch's generators, drawn by torch's own operators in the order in which the recorded Python
drew them: the same seed gives the same draws, recorded or not.
"""

import linecache
import logging
import math
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

import pyro
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule, Node, graph_module
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from pyrovae.compiling.cpu_kernels import biased, onednn_products, product, rewrite, tanh
from pyrovae.runtime.equivalence import difference
from pyrovae.runtime.fixed_randomness import READINGS
from pyrovae.runtime.module_state import attributes, reached
from pyrovae.runtime.parameters import same_random_numbers

Made = TypeVar("Made")
Function = Callable[..., Any]
Buffer = tuple[dict[str, Tensor | None], str, Tensor]
"""Where a buffer is kept, under which name, and the tensor."""
_is_recording: ContextVar[bool] = ContextVar("is_recording", default=False)
_WHOLE = {Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.__dlpack__}
"""What hands all numbers in a tensor to Python, unseen by what takes down operations."""
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
    """What one run of a function did to tensors, as a flat graph: derivatives that it took and hooks that it met too.

    The function runs as it runs anywhere, on the tensors that are there, and what is done to them is taken down below
    autograd. So a gradient is the one that the programs themselves have, whatever in them has a backward pass of its own.
    Buffers and random generators are afterwards what they were.

    A buffer that the programs replace by another tensor is written to instead: it stays the one tensor that it is.

    Args:
        function: of ``inputs``; gives tensors, or None in the place of some.
        module: has the parameters and buffers that it uses. Those of networks that it calls besides are found.
        inputs: what it is run with.

    Attributes:
        tensors: what the graph reads and writes beside its inputs, the very tensors, in the order in which a call takes
            them: parameters, buffers, and whatever else the programs hold.

    Raises:
        NotRecordedError: where the function, or what it calls, looks at the numbers in a tensor.
    """

    def __init__(self, function: Function, module: nn.Module, inputs: Sequence[Tensor]) -> None:
        with same_random_numbers(*inputs), reached(module) as called, refused(), _torch_undisturbed(), _sources_forgotten():
            numbers = _Numbers(_without_effect(function, module, inputs))
            _require_no_memory(function, called, inputs)
            own = _tensors(called)
            with _recording(), numbers:
                self._graph = make_fx(lambda *all: _in_place(function, called, all[len(own) :]))(*own, *inputs)
            _reshape(self._graph)
            self.tensors: list[Tensor] = [*own, *_lift(self._graph)]
        self._own = len(own)
        self._buffers = [*_buffers(called)]

    def __call__(self, tensors: Sequence[Tensor], *inputs: Tensor) -> list[Any]:
        """What the function gives for inputs of the recorded shapes, with these tensors in the place of its own."""
        return self._graph(*tensors[: self._own], *inputs, *tensors[self._own :])

    def take_up(self) -> None:
        """Take over the numbers of buffers that were replaced, by an eager run say, and put the recorded ones back."""
        _write_back(self._buffers)


@contextmanager
def _recording() -> Iterator[None]:
    """Without validation, which looks at numbers, and without oneDNN, whose recurrent layers cannot be fused."""
    token = _is_recording.set(True)
    compiled = "torch._dynamo" in sys.modules  # parts that torch compiles are recorded as they were written
    try:
        with (
            pyro.validation_enabled(False),
            torch.backends.mkldnn.flags(enabled=False),
            torch._dynamo.config.patch(error_on_nested_fx_trace=False) if compiled else nullcontext(),
        ):
            yield
    finally:
        _is_recording.reset(token)


def is_recording() -> bool:
    """Whether what runs is recorded, here or by torch, and the numbers in tensors are not to be looked at."""
    return torch.compiler.is_compiling() or _is_recording.get()


def _tensors(modules: Iterable[nn.Module]) -> list[Tensor]:
    """The parameters and buffers of modules, each once."""
    found = (value for module in modules for value in (*module.parameters(), *module.buffers()))
    return [*{id(value): value for value in found}.values()]


def _buffers(modules: Iterable[nn.Module]) -> Iterator[Buffer]:
    """The buffers of modules and their parts."""
    for part in {part: None for module in modules for part in module.modules()}:
        for name, value in part._buffers.items():
            if value is not None:
                yield part._buffers, name, value


def _in_place(function: Function, modules: Sequence[nn.Module], inputs: Sequence[Tensor]) -> Any:
    """Run a function, and write what it puts in the place of buffers into them."""
    before = [*_buffers(modules)]
    outputs = function(*inputs)
    _write_back(before)
    return outputs


@torch.no_grad()
def _write_back(former: Iterable[Buffer]) -> None:
    """Write the numbers of buffers that were replaced into the former ones, and put these back."""
    for buffers, name, value in former:
        if (new := buffers.get(name)) is not value:
            if new is None or (new.shape, new.dtype, new.device) != (value.shape, value.dtype, value.device):
                found = "None" if new is None else f"{new.dtype} of shape {tuple(new.shape)} on {new.device}"
                raise NotRecordedError(f"buffer {name!r} becomes another kind of tensor, {found}")
            value.copy_(new)
            buffers[name] = value


def _reshape(graph: GraphModule) -> None:
    """Let views that nothing writes to be copies where fused kernels lay numbers out otherwise than eager ones."""
    for node in graph.graph.find_nodes(op="call_function", target=torch.ops.aten.view.default):
        if not _is_written_to(node):
            node.target = torch.ops.aten.reshape.default


def _is_written_to(node: Node) -> bool:
    """Whether an operation writes to a tensor, or to a view of it."""
    for user in node.users:
        schema = getattr(user.target, "_schema", None)
        views = schema is not None and any(value.alias_info is not None for value in schema.returns)
        if schema is not None and (schema.is_mutable or (views and _is_written_to(user))):
            return True
    return False


def _lift(graph: GraphModule) -> list[Tensor]:
    """Make the tensors that a graph holds its last inputs, and return them."""
    values = {node: getattr(graph, node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    values = {node: value for node, value in values.items() if isinstance(value, Tensor)}
    last = [node for node in graph.graph.nodes if node.op == "placeholder"][-1]
    lifted: dict[int, tuple[Tensor, Any]] = {}
    for node, value in values.items():
        if id(value) not in lifted:
            with graph.graph.inserting_after(last):
                last = graph.graph.placeholder(f"held_{len(lifted)}")
            last.meta = dict(node.meta)
            lifted[id(value)] = value, last
        node.replace_all_uses_with(lifted[id(value)][1])
        graph.graph.erase_node(node)
    graph.recompile()
    for name in {node.target for node in values}:
        delattr(graph, name)
    return [value for value, _ in lifted.values()]


class _Numbers(TorchFunctionMode):
    """What Python reads of tensors, ``int(x.max())`` say: taken down, or, while a program is recorded, as it was before.

    Args:
        known: what is read, in order; empty to take it down.
        shift: added to what is read.
        most: how often a tensor may be looked at, so that a loop that ends at a certain number ends at others too.
    """

    def __init__(self, known: Sequence[Any] = (), shift: int = 0, most: float = math.inf) -> None:
        super().__init__()
        self.read: list[Any] = []
        self.looks = 0
        self._most = most
        self._known, self._shift = iter(known), shift

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _WHOLE and is_recording():
            where = _where(traceback.extract_stack())
            raise NotRecordedError(f"{func.__name__}{where} hands the numbers in a tensor to Python")
        if func is F.one_hot and is_recording():
            return _one_hot(*args, **(kwargs or {}))
        self.looks += func in READINGS
        if self.looks > self._most:
            raise NotRecordedError("another number in the place of one that Python reads makes a loop go on")
        if func not in READINGS - {Tensor.__bool__, Tensor.tolist}:
            return func(*args, **(kwargs or {}))
        number = next(self._known, None)
        if number is None:
            number = func(*args, **(kwargs or {})) + self._shift
        self.read.append(number)
        return number


def _one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """Torch's, but for its look at the numbers."""
    if num_classes < 1:
        where = _where(traceback.extract_stack())
        raise NotRecordedError(f"one_hot{where} counts the classes among the numbers in a tensor; pass num_classes")
    return (tensor.unsqueeze(-1) == torch.arange(num_classes, device=tensor.device)).long()


def _without_effect(function: Function, module: nn.Module, inputs: Sequence[Tensor]) -> list[Any]:
    """The numbers that Python reads of tensors, where what the function gives is the same for others in their place.

    Such is the number of trials of a multinomial distribution whose value is observed: its density does not need it.
    """
    outputs, reads, most = [], [], math.inf
    for shift in (0, 1, -1):
        with same_random_numbers(*inputs), reached(module), _Numbers(shift=shift, most=most) as numbers:
            outputs.append(_attempted(function, inputs, shift))
        reads.append(numbers.read)
        most = 10 * numbers.looks + 100 if not shift else most
        if not numbers.read:
            return []
    return reads[0] if all(_are_equal(outputs[0], other) for other in outputs[1:]) else []


def _require_no_memory(function: Function, modules: Sequence[nn.Module], inputs: Sequence[Tensor]) -> None:
    """Raise a NotRecordedError where what a function gives depends on what Python remembers of the last time."""
    kept = {part: attributes(part) for module in modules for part in module.modules()}
    outputs = []
    for _ in range(2):
        with same_random_numbers(*inputs), reached(*kept, numbers=False):
            outputs.append(function(*inputs))
    if not _are_equal(*outputs):
        changed = [
            f"{type(part).__name__}.{name}"
            for part, before in kept.items()
            for name, value in attributes(part).items()
            if value is not before.get(name)
        ]
        what = f" ({', '.join(changed)} is another each time)" if changed else ""
        raise NotRecordedError(
            f"run again on the same data and random numbers, they give something else{what}; what changes from step to step "
            "must be a buffer"
        )


def _attempted(function: Function, inputs: Sequence[Tensor], shift: int) -> Any:
    """What the function gives; ``None`` where a number that is shifted makes it fail."""
    try:
        return function(*inputs)
    except Exception:
        if not shift:
            raise
        return None


def _are_equal(outputs: Any, others: Any) -> bool:
    """Whether two outputs are the same but for rounding, which is another each time on some devices."""
    one, other = ({"output": dict(enumerate(tree_leaves(each)))} for each in (outputs, others))
    return len(one["output"]) == len(other["output"]) and difference(one, other) is None


def fuse(function: Callable[..., Any], inputs: list[Tensor]) -> Callable[..., Any]:
    """The function of tensors as fused kernels, without a gradient of its own; what it changes in place, it changes.

    Raises:
        NotRecordedError: where it, or what it calls, looks at the numbers in a tensor.
    """
    with torch.no_grad(), same_random_numbers(*inputs), refused(), _torch_undisturbed(), _sources_forgotten():
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
        warnings.filterwarnings("ignore", ".*complex operators.*", UserWarning)  # they are computed as they would be eagerly
        warnings.filterwarnings("ignore", "TF32 acceleration on top of oneDNN", UserWarning)  # said where it is turned off
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
def _sources_forgotten() -> Iterator[None]:
    """Let torch keep nothing of the graphs that are made meanwhile, of which it would keep the source of each for ever."""
    from torch._inductor.codecache import PyCodeCache  # takes a second to import

    sources, modules = graph_module._loader.eval_cache, PyCodeCache.modules
    before, number = set(sources), len(modules)
    try:
        yield
    finally:
        for name in set(sources) - before:
            sources.pop(name, None)
            linecache.cache.pop(name, None)
        del modules[number:]


@contextmanager
def refused() -> Iterator[None]:
    """Whatever it is in a user's program that cannot be recorded, in one kind of error."""
    try:
        yield
    except NotRecordedError:
        raise
    except Exception as error:
        raise NotRecordedError(_reason(error)) from error


def require_agreement(look: Callable[[], str | None]) -> None:
    """Raise a NotRecordedError where a recording fails when it is run, or gives something else than the programs.

    Args:
        look: runs both on the same random numbers, and says what is different.
    """
    with refused():
        if (found := look()) is not None:
            raise NotRecordedError(f"at the same random numbers, recorded they give something else: {found}")


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
    """What went wrong, and where."""
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}{_where(traceback.extract_tb(error.__traceback__))}: {first}"


def _where(frames: Iterable[traceback.FrameSummary]) -> str:
    """The last line of the user's own code on the way."""
    own = [frame for frame in frames if _is_the_users(frame.filename)]
    return f" at {own[-1].filename}:{own[-1].lineno} ({own[-1].line})" if own else ""


def _is_the_users(filename: str) -> bool:
    standard = filename.startswith(sysconfig.get_paths()["stdlib"]) and "site-packages" not in filename
    return not standard and not filename.startswith((*_not_the_users, "<"))
