"""An objective on a pair, recorded as tensor operations and fused; Pyro's handlers run once, for the recording."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyrovae.compiling.fallback import recorded, require_agreement, warn_of_eager
from pyrovae.compiling.fusion import fuse
from pyrovae.compiling.recording import Recording
from pyrovae.engine.derivatives import derivatives
from pyrovae.errors import InputError
from pyrovae.objectives import Measurement, ObjectiveModule
from pyrovae.runtime.arguments import Arguments
from pyrovae.runtime.equivalence import BUFFER, GRADIENT, VALUE, Outcome, difference
from pyrovae.runtime.module_state import reached
from pyrovae.runtime.parameters import same_random_numbers

Graph = Callable[..., Measurement]
"""A function from the tensors among the arguments to a measurement."""
MOST_GRAPHS = 8
"""Number of shapes, and of values of other arguments, that one module is recorded for; further ones run eagerly."""


class CompiledObjective(nn.Module):
    """An objective's module with its parameters, whose loss is recorded and fused, as :func:`compile` returns it.

    ``compiled(x)`` is the loss, ``compiled.measure(x)`` the loss with its terms.
    """

    def __init__(self, module: ObjectiveModule) -> None:
        super().__init__()
        self.module = module
        self._graphs: dict[Any, Graph | None] = {}
        self._said: set[str] = set()

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Compute the loss: minus the bound, summed over the data, in nats."""
        return self.measure(*args, **kwargs).loss

    def measure(self, *args: Any, **kwargs: Any) -> Measurement:
        """Compute the loss and, for each datum, bound, reconstruction and KL."""
        arguments = Arguments(args, kwargs)
        graph = self._graph(arguments)
        return self.module.measure(*args, **kwargs) if graph is None else graph(*arguments.tensors)

    def _graph(self, arguments: Arguments) -> Graph | None:
        if arguments.changeable:
            return self._refuse(f"{arguments.changeable}, {_ONLY}", arguments)
        _start(self.module, arguments)
        wanted = tuple(value.requires_grad for value in self.module.parameters())
        training = tuple(module.training for module in self.module.modules())
        key = (arguments.key, wanted, training, torch.is_grad_enabled())
        if key not in self._graphs and len(self._graphs) >= MOST_GRAPHS:
            return self._refuse(f"they were recorded for {MOST_GRAPHS} {_OTHERS}", arguments)
        if key not in self._graphs:
            self._graphs[key] = recorded(lambda: self._record(arguments), lambda: self._run(arguments))
        return self._graphs[key]

    def _record(self, arguments: Arguments) -> Graph:
        make = _differentiable if torch.is_grad_enabled() else _undifferentiable
        graph = make(self.module, arguments)
        require_agreement(lambda: difference(self._run(arguments), self._tried(graph, arguments)))
        return graph

    def _refuse(self, why: str, arguments: Arguments) -> None:
        """Say once why calls like this run eagerly, if they run at all."""
        if why not in self._said:
            self._run(arguments)
            self._said.add(why)
            warn_of_eager(why)

    def _run(self, arguments: Arguments) -> Outcome:
        """Run the programs and their gradient eagerly, for their errors too, and leave no trace."""
        return self._tried(lambda *tensors: self._eagerly(arguments, tensors), arguments)

    def _eagerly(self, arguments: Arguments, tensors: Sequence[Tensor]) -> Measurement:
        args, kwargs = arguments.filled(tensors)
        return self.module.measure(*args, **kwargs)

    def _tried(self, graph: Graph, arguments: Arguments) -> Outcome:
        """Find what a measurement of these arguments gives and changes; random generators and buffers stay as they were."""
        named = {name: value for name, value in self.module.named_parameters() if value.requires_grad}
        tensors = leaves(arguments.tensors, [value.requires_grad for value in arguments.tensors])
        named |= {f"argument {place}": value for place, value in enumerate(tensors) if value.requires_grad}
        with same_random_numbers(*tensors), reached(self.module):
            measured = graph(*tensors)
            wanted = [*named.values()] if measured.loss.requires_grad else []
            gradients = derivatives(measured.loss, wanted) if wanted else ()
            buffers = {name: value.clone() for name, value in self.module.named_buffers()}
        terms = dict(zip(Measurement._fields, as_tensors(measured), strict=True))
        return {GRADIENT: dict(zip(named, gradients, strict=bool(wanted))), BUFFER: buffers, VALUE: terms}


_ONLY = (
    "whose contents may change without notice; a recording takes tensors, fixes numbers, words and None, and finds them in "
    "tuples, lists and dictionaries too"
)
_OTHERS = (
    "other shapes already; keep the batch size fixed, and pass a number that changes from call to call as a tensor: each "
    "value of one that is not is recorded by itself"
)


def compile(module: ObjectiveModule, *example: Any, **named: Any) -> CompiledObjective:
    r"""Record an objective on a pair, once, as one graph of tensor operations, and fuse it.

    The result has the very parameters and buffers of ``module``, the same loss and the same gradients, computed in one
    pass, for the same random draws: those that torch's generators give the eager module at the same seed. Gradients of
    gradients are not available. Each shape of batch has a graph of its own, recorded when it is first seen: seconds to
    tens of seconds, less where torch's cache on disk has it.

    A program whose Python branches on values of tensors, or that cannot be recorded for another reason, runs eagerly,
    after a :class:`NotCompiledWarning` that names line and reason. What Python decides without a tensor is decided when the
    program is recorded: a weight that a schedule changes must be a buffer or another tensor of a module, changed in place,
    or an argument that is a tensor.

    Arguments that are no tensors (numbers, words, ``None``, enumerations) are fixed by a recording, and each value of them
    has one of its own; tensors may lie within tuples, lists and dictionaries. With any other argument a call runs eagerly.

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
    if example or named:
        compiled._graph(Arguments(example, named))
    return compiled


def record(module: ObjectiveModule, arguments: Arguments, function: Callable[..., Any]) -> Recording:
    """Record a function of the tensors among the arguments that measures a batch like this.

    Raises:
        InputError: where the programs cannot be weighed.
        NotRecordedError: where they cannot be recorded.
    """
    args, kwargs = arguments.filled(arguments.tensors)
    module.ready(*args, **kwargs)
    if torch.is_grad_enabled():
        module.examine_gradient(*args, **kwargs)  # a recording sees no numbers
    return Recording(function, module, arguments.tensors)


def _start(module: ObjectiveModule, arguments: Arguments) -> None:
    if module.plates is None:
        args, kwargs = arguments.filled(arguments.tensors)
        module.start(*args, **kwargs)


def as_tensors(measured: Measurement) -> list[Tensor]:
    """Return all of a measurement as tensors without gradients."""
    return detached(*measured[:-1], torch.as_tensor(measured.scale, device=measured.loss.device))


def _undifferentiable(module: ObjectiveModule, arguments: Arguments) -> Graph:
    def measure(*tensors: Tensor) -> list[Tensor]:
        args, kwargs = arguments.filled(tensors)
        return as_tensors(module.measure(*args, **kwargs))

    run = _fused(record(module, arguments, measure), arguments.tensors)
    return lambda *args: Measurement(*run(*args))


def _differentiable(module: ObjectiveModule, arguments: Arguments) -> Graph:
    """Record a measurement whose loss hands on the gradient that was computed with it."""
    parameters = [value for value in module.parameters() if value.requires_grad]
    given = [value.requires_grad for value in arguments.tensors]

    def measure(*tensors: Tensor) -> list[Tensor | None]:
        inputs = leaves(tensors, given)
        args, kwargs = arguments.filled(inputs)
        measured = module.measure(*args, **kwargs)
        wanted = [*parameters, *(value for value in inputs if value.requires_grad)]
        return [*as_tensors(measured), *derivatives(measured.loss, wanted)]

    run = _fused(record(module, arguments, measure), arguments.tensors)
    return lambda *args: Measurement(*_WithGradient.apply(run, args, *parameters, *args))  # pyright: ignore


def _fused(recording: Recording, args: Sequence[Tensor]) -> Callable[..., Any]:
    own = detached(*recording.tensors)
    fused = fuse(lambda *inputs: recording(inputs[: len(own)], *inputs[len(own) :]), [*own, *detached(*args)])

    def run(*args: Tensor) -> Any:
        recording.take_up()
        return fused(*own, *detached(*args))

    return run


def detached(*tensors: Tensor) -> list[Tensor]:
    """Detach tensors from their graph of derivatives."""
    return [tensor.detach() for tensor in tensors]


def leaves(tensors: Sequence[Tensor], wanted: Sequence[bool]) -> tuple[Tensor, ...]:
    """Make those tensors that are wanted leaves of a new graph of derivatives."""
    pairs = zip(tensors, wanted, strict=True)
    return tuple(value.detach().requires_grad_() if needed else value for value, needed in pairs)


class _WithGradient(torch.autograd.Function):
    """A measurement that was made together with its gradient."""

    @staticmethod
    def forward(ctx: Any, run: Callable[..., Any], args: Sequence[Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
        outputs = run(*args)
        terms, gradients = outputs[: len(Measurement._fields)], outputs[len(Measurement._fields) :]
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(*terms[1:])
        return tuple(terms)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, loss: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        saved = iter(ctx.saved_tensors)
        gradients = (next(saved) if needed else None for needed in ctx.needs_input_grad[2:])
        return None, None, *(None if gradient is None else loss * gradient for gradient in gradients)
