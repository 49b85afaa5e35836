"""The update of the parameters by the gradient of a step: the optimiser's, and that of their moving averages."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from pyrovae.compiling.tape import Tape
from pyrovae.internals.torch_internals import has_step_hooks
from pyrovae.runtime.parameters import is_dense
from pyrovae.training.batch_gradient import Gradients
from pyrovae.training.ema import Averages
from pyrovae.training.unmoved_parameters import MovedParameters


class Update:
    """The optimiser's step, and that of the averages; on a CPU from the tape of an earlier one where kernels are fused.

    Args:
        module: whose parameters the first step is expected to move.
        optimizer: it is made to use torch's fused kernels where it has them and was not told otherwise.
        averages: of the parameters, if any are kept.
        compile: whether steps are to be without their Python where they can be.

    Attributes:
        parameters: those that are trained.
        capturable: whether it can be captured in a CUDA graph.
        seconds_to_first: from when this was made to the end of the first update.
    """

    def __init__(self, module: nn.Module, optimizer: Optimizer, averages: Averages | None, *, compile: bool) -> None:
        self.parameters = trained_parameters(optimizer)
        self.seconds_to_first: float | None = None
        fused = _use_fused_kernels(optimizer) and compile and not has_step_hooks(optimizer)
        device = self.parameters[0].device.type
        self.capturable, self._taping = fused and device == "cuda", fused and device == "cpu"
        self._module = module
        self._optimizer = optimizer
        self._averages = averages
        self._settings: list[dict[str, Any]] = []
        self._failed: Tensor | None = None
        self._tape: Tape | None = None
        optimizer.register_load_state_dict_post_hook(lambda _: self._forget())
        self._began = perf_counter()

    def __call__(self, gradients: Gradients) -> None:
        """Move the parameters."""
        with _denormals_flushed():
            self._move(gradients)

    def _move(self, gradients: Gradients) -> None:
        if self.seconds_to_first is None:
            self._first(gradients)
        else:
            self._again(gradients)

    def _again(self, gradients: Gradients) -> None:
        """Play the tape, or make one: its kernels, and so the rounding, are the same."""
        if self._tape is not None and self._tape.fits(gradients):
            self._tape.play(gradients)
        elif self._taping:
            with Tape(gradients) as self._tape:
                self._plain(gradients)
        else:
            self._plain(gradients)

    def settings_changed(self) -> bool:
        """Forget the tape; return whether the optimiser's settings, which graphs have in them, have changed since."""
        self._tape = None
        before, groups = self._settings, self._optimizer.param_groups
        self._settings = [{name: value for name, value in group.items() if name != "params"} for group in groups]
        return self._settings != before

    def _forget(self) -> None:
        """Forget the tape and the settings, since the optimiser now has other tensors than tapes and graphs move."""
        self._tape, self._settings = None, []

    def skip_where(self, failed: Tensor) -> None:
        """Change nothing from now on where this flag is 1; fused kernels read it on the device."""
        self._failed = self._optimizer.found_inf = failed  # pyright: ignore

    def close(self) -> None:
        """Free gradients, and the flag that is read on the device."""
        self._tape = self._failed = None
        self._optimizer.zero_grad()
        vars(self._optimizer).pop("found_inf", None)

    def _plain(self, gradients: Gradients) -> None:
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self._optimizer.step()
        if self._averages is not None:
            self._averages.update(self._failed)

    def _first(self, gradients: Gradients) -> None:
        watched = MovedParameters(self._module)
        self._again(gradients)
        self.seconds_to_first = perf_counter() - self._began
        failed = self._failed is not None and bool(self._failed)
        if not failed and any(group["lr"] for group in self._optimizer.param_groups):
            watched.warn(self._module)


def trained_parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    """Return the parameters of an optimiser that require a gradient."""
    return [value for group in optimizer.param_groups for value in group["params"] if value.requires_grad]


@contextmanager
def _denormals_flushed() -> Iterator[None]:
    """Let results below the smallest normal number be zero, on this thread of the CPU.

    A moment of Adam whose gradient stays at zero, that of a pixel that is always black say, shrinks until rounding keeps it
    where it is, among the denormal numbers; there each step would be slow, for ever.
    """
    before = sys.float_info.min / 2 == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def _use_fused_kernels(optimizer: Optimizer) -> bool:
    """Turn on torch's fused kernels where the optimiser has them and was not told otherwise; whether they are on.

    They keep Python out of the update, and can be captured in a CUDA graph and told on the device to do nothing.
    """
    for group in optimizer.param_groups:
        if type(optimizer) in (Adam, AdamW, SGD) and not group["foreach"] and group["fused"] is None:
            group["fused"] = not group["differentiable"] and all(map(_has_fused_kernel, group["params"]))
        if group.get("fused") and "capturable" in group:
            group["capturable"] = group["params"][0].is_cuda
    return all(group.get("fused") for group in optimizer.param_groups)


def _has_fused_kernel(parameter: Tensor) -> bool:
    """Whether torch's fused kernels update a parameter rightly: they take its numbers to lie side by side."""
    return parameter.is_floating_point() and is_dense(parameter)
