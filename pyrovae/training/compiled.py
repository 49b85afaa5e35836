"""An objective on a pair as fused tensor operations: Pyro's handlers run once, when the programs are recorded."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pyrovae.errors import InputError
from pyrovae.objectives import Measurement, ObjectiveModule
from pyrovae.recording import NotCompiledWarning, NotRecordedError, Recording, fuse

most_graphs = 8
"""Shapes that one module is recorded for; batches of further shapes run eagerly."""


class CompiledObjective(nn.Module):
    """What :func:`compile` returns: the parameters and the loss of an objective's module, recorded and fused.

    ``compiled(x)`` is the loss, ``compiled.measure(x)`` the loss with its terms.
    """

    def __init__(self, module: ObjectiveModule) -> None:
        super().__init__()
        self.module = module
        self._graphs: dict[Any, Callable[..., Measurement] | None] = {}

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        """Minus the bound, summed over the data, in nats."""
        return self.measure(*args, **kwargs).loss

    def measure(self, *args: Tensor, **kwargs: Tensor) -> Measurement:
        """The loss and, for each datum, bound, reconstruction and KL."""
        graph = self._graph(args, kwargs)
        return self.module.measure(*args, **kwargs) if graph is None else graph(*args, *kwargs.values())

    def _graph(self, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> Callable[..., Measurement] | None:
        tensors = (*args, *kwargs.values())
        shapes = tuple((value.shape, value.dtype, value.device, value.requires_grad) for value in tensors)
        wanted = tuple(value.requires_grad for value in self.module.parameters())
        training = tuple(module.training for module in self.module.modules())
        key = (shapes, tuple(kwargs), wanted, training, torch.is_grad_enabled())
        if key not in self._graphs:
            self._graphs[key] = self._record(args, kwargs)
        return self._graphs[key]

    def _record(self, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> Callable[..., Measurement] | None:
        if len(self._graphs) >= most_graphs:
            return warn_of_eager(f"they were recorded for {most_graphs} other shapes already; keep the batch size fixed")
        try:
            recording, tensors = record(self.module, args, kwargs), (*args, *kwargs.values())
            measure = partial(_called, recording, len(recording.tensors), len(args), tuple(kwargs))
            make = _differentiable if torch.is_grad_enabled() else _undifferentiable
            return make(measure, recording.tensors, tensors)
        except NotRecordedError as error:
            return warn_of_eager(f"they cannot be recorded: {error}")


def _called(recording: Recording, own: int, positional: int, names: tuple[str, ...], *tensors: Tensor) -> Measurement:
    """What was recorded, of its own tensors, the positional arguments and those with a name, one after another."""
    mine, given = tensors[:own], tensors[own:]
    named = dict(zip(names, given[positional:], strict=True))
    return Measurement(*recording(mine, *given[:positional], **named))


def compile(module: ObjectiveModule, *example: Tensor, **named: Tensor) -> CompiledObjective:
    r"""Record an objective on a pair, once, as one graph of tensor operations, and fuse it.

    The result has the very parameters and buffers of ``module``, the same loss and the same gradients, computed in one
    pass, for the same random draws: those that torch's generators give the eager module at the same seed. Gradients of
    gradients are not to be had. Each shape of batch has a graph of its own, recorded when it is first seen: seconds to
    tens of seconds, less where torch's cache on disk has it.

    A program whose Python branches on values of tensors, or that cannot be recorded for another reason, runs eagerly,
    after a :class:`NotCompiledWarning` that names line and reason. What Python decides without a tensor is decided when the
    program is recorded: a weight that a schedule changes must be a buffer or another tensor of a module, changed in place.

    Args:
        module: what an objective returns for a pair, ``IWAE(5)(model, guide)``.
        example: a batch to record at once, the arguments of the programs.
        named: arguments of the programs by name.

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
        compiled._graph(example, named)
    return compiled


def record(module: ObjectiveModule, args: Sequence[Tensor], kwargs: Mapping[str, Tensor] | None = None) -> Recording:
    """The module's measurement of a batch like this.

    Raises:
        InputError: where the programs cannot be weighed.
        NotRecordedError: where they cannot be recorded.
    """
    if module.plates is None:
        module.start(*args, **(kwargs or {}))
    if torch.is_grad_enabled():
        module.examine_gradient(*args, **(kwargs or {}))  # a recording sees no numbers
    return Recording(_Measure(module), args, kwargs)


def warn_of_eager(why: str) -> None:
    """Say that the programs run eagerly."""
    warnings.warn(f"the programs run eagerly: {why}", NotCompiledWarning, stacklevel=2)


class _Measure(nn.Module):
    """The module with all of its measurement as output, the tuple of tensors that ``torch.export`` wants."""

    def __init__(self, module: ObjectiveModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Tensor, **kwargs: Tensor) -> tuple[Tensor, ...]:
        measured = self.module.measure(*args, **kwargs)
        return (*measured[:-1], torch.as_tensor(measured.scale, device=measured.loss.device))


def _undifferentiable(
    measure: Callable[..., Measurement], own: Sequence[Tensor], args: Sequence[Tensor]
) -> Callable[..., Measurement]:
    fused = fuse(lambda *inputs: list(measure(*inputs)), detached(*own, *args))
    return lambda *args: Measurement(*fused(*detached(*own, *args)))


def _differentiable(
    measure: Callable[..., Measurement], own: Sequence[Tensor], args: Sequence[Tensor]
) -> Callable[..., Measurement]:
    """The measurement, whose loss hands on the gradient that was computed with it."""
    wanted = [tensor.requires_grad for tensor in (*own, *args)]

    @torch.enable_grad()
    def with_gradient(*inputs: Tensor) -> list[Tensor | None]:
        inputs = leaves(inputs, wanted)
        measured = measure(*inputs)
        gradients = torch.autograd.grad(measured.loss, [x for x in inputs if x.requires_grad], allow_unused=True)
        return [*detached(*measured), *gradients]  # pyright: ignore

    fused = fuse(with_gradient, detached(*own, *args))
    return lambda *args: Measurement(*_WithGradient.apply(fused, *own, *args))  # pyright: ignore


def detached(*tensors: Tensor) -> list[Tensor]:
    """The same numbers, outside of any graph of derivatives."""
    return [tensor.detach() for tensor in tensors]


def leaves(tensors: Sequence[Tensor], wanted: Sequence[bool]) -> tuple[Tensor, ...]:
    """The tensors, those that are wanted as leaves of a new graph of derivatives."""
    pairs = zip(tensors, wanted, strict=True)
    return tuple(value.detach().requires_grad_() if needed else value for value, needed in pairs)


class _WithGradient(torch.autograd.Function):
    """A measurement that was made together with its gradient."""

    @staticmethod
    def forward(ctx: Any, fused: Callable[..., Any], *inputs: Tensor) -> tuple[Tensor, ...]:
        outputs = fused(*detached(*inputs))
        terms, gradients = outputs[: len(Measurement._fields)], outputs[len(Measurement._fields) :]
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(*terms[1:])
        return tuple(terms)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, loss: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        saved = iter(ctx.saved_tensors)
        gradients = (next(saved) if needed else None for needed in ctx.needs_input_grad[1:])
        return None, *(None if gradient is None else loss * gradient for gradient in gradients)
