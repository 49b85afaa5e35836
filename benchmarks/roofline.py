"""The least that a training step can cost: its products and convolutions alone, and its traffic of parameters.

Every matrix product and convolution of the step by hand, forward and backward, is timed by itself on operands of the same
shapes and strides; their sum is what remains where all else is free. Beside it stand the bytes that no step does without,
over the bandwidth of a copy of as many. The two are bounds each by itself, not to be added where they overlap.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import milliseconds
from benchmarks.peers.by_hand import Loss
from benchmarks.task import Task

products = {"mm", "addmm", "bmm", "baddbmm", "convolution", "convolution_backward"}

passes = 10
"""Over the parameters: read forward and backward, the gradient written; Adam reads four arrays and writes three."""


@dataclass(frozen=True)
class Floor:
    """What a step needs at least.

    Args:
        flops: floating-point operations in products and convolutions.
        seconds: what these take by themselves.
        moved: bytes of parameters, gradients, moments and data.
        copying: the seconds of a copy that moves as many.
    """

    flops: int
    seconds: float
    moved: int
    copying: float

    def __str__(self) -> str:
        rate, bandwidth = self.flops / self.seconds / 1e9, self.moved / self.copying / 1e9
        return (
            f"{self.flops / 1e6:.0f} MFLOP of products at {rate:.0f} GFLOP/s, {milliseconds(self.seconds)} ms; "
            f"{self.moved / 1e6:.1f} MB of parameters, moments and data at {bandwidth:.0f} GB/s, "
            f"{milliseconds(self.copying)} ms"
        )


def floor(task: Task, seconds: float = 0.05) -> Floor:
    """Measure it, each product for so long."""
    loss = Loss(task)
    rows = torch.arange(task.batch_size, device=task.data.device)

    def gradient() -> None:
        loss(task.data, rows).backward()

    with FlopCounterMode(display=False) as counted, _Products() as found:
        gradient()
    needed = sum(number * _seconds(product, seconds) for product, number in found.calls.items())
    moved = _bytes(task, loss)
    return Floor(counted.get_total_flops(), needed, moved, _copying(moved, task.data.device, seconds))


@dataclass(frozen=True)
class _Shape:
    """What a product's time depends on of an operand."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    def operand(self) -> Tensor:
        return torch.empty_strided(self.size, self.stride, dtype=self.dtype, device=self.device).normal_()


@dataclass(frozen=True)
class _Product:
    """A call of a product, without its operands' values."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    form: Any

    def call(self) -> Callable[[], Any]:
        values = [value.operand() if isinstance(value, _Shape) else value for value in self.arguments]
        args, kwargs = tree_unflatten(values, self.form)
        return lambda: self.function(*args, **kwargs)


class _Products(TorchDispatchMode):
    """Counts the products that are computed meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[_Product] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in products:
            values, form = tree_flatten((args, kwargs or {}))
            self.calls[_Product(func, tuple(map(_described, values)), form)] += 1
        return func(*args, **(kwargs or {}))


def _described(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return _Shape(tuple(value.shape), value.stride(), value.dtype, value.device)


@torch.no_grad()
def _seconds(product: _Product, seconds: float) -> float:
    call = product.call()
    if torch.cuda.is_available() and any(isinstance(v, _Shape) and v.device.type == "cuda" for v in product.arguments):
        return _without_launches(call, seconds)
    return _median(call, seconds)


def _without_launches(call: Callable[[], Any], seconds: float, repeats: int = 20) -> float:
    """The time of a call on a graphics card, which is otherwise that of its launch."""
    for _ in range(3):
        call()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repeats):
            call()
    return _median(graph.replay, seconds) / repeats


def _median(call: Callable[[], Any], seconds: float) -> float:
    timing = Timer("call()", globals={"call": call}, num_threads=torch.get_num_threads())
    return timing.blocked_autorange(min_run_time=seconds).median


def _bytes(task: Task, loss: Loss) -> int:
    parameters = sum(value.numel() for value in loss.parameters())
    return 4 * (passes * parameters + task.batch_size * task.data[0].numel())


def _copying(moved: int, device: torch.device, seconds: float) -> float:
    """The seconds of a copy that reads half of the bytes and writes as many."""
    source = torch.rand(moved // 8, device=device)
    target = torch.empty_like(source)
    return _median(lambda: target.copy_(source), seconds)
