"""A program's runs made comparable: what is random beside its sample sites stands still, and no parameter hides an axis."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from pyrovae.errors import InputError
from pyrovae.runtime.parameters import Program, owner, seeing

READINGS = {Tensor.__bool__, Tensor.__int__, Tensor.__index__, Tensor.__float__, Tensor.item, Tensor.tolist}
"""What gives Python a number of a tensor."""
STILL = 0.5
"""What stands for a random number where none is to be random."""
PERTURBATION = 0.3
"""By how much, at the most, parameters that are all alike are moved apart, relative to their size."""


@contextmanager
def reached(*programs: Program, numbers: bool = True) -> Iterator[list[nn.Module]]:
    """The modules that programs are, or call meanwhile; what they keep is afterwards what it was.

    Args:
        programs: what runs meanwhile.
        numbers: whether what modules keep in attributes, as Python numbers and tensors, is put back too; buffers always are.
    """
    kept = Kept()
    found = [module for module in map(owner, programs) if isinstance(module, nn.Module)]

    def see(module: nn.Module) -> None:
        found.append(module)
        kept.keep(module)

    for module in found:
        kept.keep(module)
    try:
        with seeing(see):
            yield found
    finally:
        kept.restore(numbers)


class Kept:
    """What modules kept when they were first seen: buffers, and tensors and numbers in attributes of their own.

    Args:
        modules: those that are seen now.
    """

    def __init__(self, modules: Iterable[nn.Module] = ()) -> None:
        self._buffers: dict[nn.Module, dict[str, Tensor]] = {}
        self._attributes: dict[nn.Module, dict[str, Any]] = {}
        self._contents: dict[Tensor, Tensor] = {}
        for module in modules:
            self.keep(module)

    def keep(self, module: nn.Module) -> None:
        """Remember those of a module and its parts."""
        for part in module.modules():
            if part not in self._buffers:
                _require_shapes(part)
                self._buffers[part] = {name: value for name, value in part._buffers.items() if value is not None}
                self._attributes[part] = attributes(part)
                for value in (*self._buffers[part].values(), *self._attributes[part].values()):
                    if isinstance(value, Tensor) and value not in self._contents:
                        self._contents[value] = value.data.clone()

    def restore(self, numbers: bool = True) -> None:
        """Put them back, unseen by autograd; a program may have changed tensors in place, or put others in their place."""
        for part, buffers in self._buffers.items():
            part._buffers.update(buffers)
            if numbers:
                vars(part).update(self._attributes[part])
        for value, before in self._contents.items():
            if value.layout != torch.strided or not torch.equal(value.data, before):
                value.data.copy_(before)


def _require_shapes(module: nn.Module) -> None:
    own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    if any(is_lazy(value) for value in own):
        raise InputError(
            f"{type(module).__name__} has parameters without a shape, which its first call will give them; run the network "
            "once on a batch before"
        )


def attributes(module: nn.Module) -> dict[str, Any]:
    """The tensors and numbers that a module keeps beside its parameters and buffers."""
    kept = (name for name, value in vars(module).items() if isinstance(value, Tensor | int | float))
    return {name: vars(module)[name] for name in kept if name != "training"}


@contextmanager
def perturbed(modules: list[nn.Module]) -> Iterator[None]:
    """Move numbers apart that would hide what a program makes of its input: a head or a gate that begins at zero, say.

    These are the parameters of the modules, the running statistics of normalisation, and the values of ``pyro.param``
    statements. What is moved is put back.
    """
    parameters = [value for module in modules for value in module.parameters()]
    parts = {part for module in modules for part in module.modules()}
    running = [value for part in parts for name, value in part.named_buffers(recurse=False) if name in STATISTICS]
    stored = [value for _, value in pyro.get_param_store().named_parameters()]
    moved = {value: value.data.clone() for value in (*parameters, *running, *stored) if _hides(value)}
    for value in moved:
        value.data.copy_(_apart(value.data))  # unseen by autograd, for which graphs made before must stay as they are
    try:
        yield
    finally:
        for value, before in moved.items():
            value.data.copy_(before)


STATISTICS = ("running_mean", "running_var")
"""The buffers of batch normalisation, which begin alike for all features."""
SMALL = 1e-3
"""The size of numbers that multiply their input by next to nothing."""


def _hides(value: Tensor) -> bool:
    """Whether some of these numbers, which may be written to, are zero, or all are small or alike."""
    plain = type(value) in (Tensor, nn.Parameter)  # others, quantised ones say, cannot do all that follows
    own = plain and value.is_floating_point() and value.numel() > 0 and not value.is_inference()
    if not own or any(step == 0 for step, size in zip(value.stride(), value.shape, strict=True) if size > 1):
        return False
    numbers = value.data
    alike = numbers.numel() > 1 and (numbers == numbers.flatten()[0]).all()
    return bool(alike or (numbers == 0).any() or numbers.abs().max() < SMALL)


def _apart(value: Tensor) -> Tensor:
    """Numbers of the same sign and about the same size, no two alike; those that are zero, or all small, become larger."""
    steps = torch.linspace(1.0, 2.0, value.numel(), dtype=torch.float64).mul(1e3).sin().reshape(value.shape).to(value)
    size = value.abs().max()
    if size < SMALL:
        return value + PERTURBATION * steps
    alike = (value == value.flatten()[0]).all()
    return value + PERTURBATION * torch.where(alike | (value == 0), size * steps, 0.0)


class Still(TorchFunctionMode):
    """Let everything that is random, but for draws that are given, be constant: dropout drops nothing.

    Args:
        altered: which of the numbers that Python reads of tensors, from 0, it is told wrongly; none if not given.

    Attributes:
        reads: how many numbers it has read.
    """

    def __init__(self, altered: int | None = None) -> None:
        super().__init__()
        self.reads = 0
        self._altered = altered

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in READINGS:
            self.reads += 1
            number = func(*args, **kwargs)
            return _another(number) if self.reads - 1 == self._altered else number
        if func in _constant:
            return func(*args, **kwargs).fill_(STILL)
        determined = _determined.get(func)
        return func(*args, **kwargs) if determined is None else determined(*args, **kwargs)


def _another(number: Any) -> Any:
    return not number if isinstance(number, bool) else [] if isinstance(number, list) else number + 1


def _same(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x


def _likely(p: Tensor, *_: Any, **__: Any) -> Tensor:
    return (p > STILL).to(p.dtype)


def _likeliest(p: Tensor, number: int, *_: Any, **__: Any) -> Tensor:
    return p.argmax(-1, keepdim=True).expand(*p.shape[:-1], number)


def _normalized(concentration: Tensor, *_: Any, **__: Any) -> Tensor:
    return concentration / concentration.sum(-1, keepdim=True)


def _attention(*args: Any, **kwargs: Any) -> Tensor:
    kept = {name: value for name, value in kwargs.items() if name != "dropout_p"}
    return F.scaled_dot_product_attention(*args[:4], *([0.0] if len(args) > 4 else []), *args[5:], **kept)


def _attention_of_heads(*args: Any, **kwargs: Any) -> Any:
    bound = inspect.signature(F.multi_head_attention_forward).bind(*args, **kwargs)
    bound.arguments["training"] = False
    return F.multi_head_attention_forward(*bound.args, **bound.kwargs)


def _recurrent(function: Callable[..., Any]) -> Callable[..., Any]:
    """A recurrent network whose layers have no dropout between them."""

    def run(*args: Any, **kwargs: Any) -> Any:
        return function(*(0.0 if isinstance(value, float) else value for value in args), **kwargs)

    return run


_constant = {torch.randn, torch.rand, torch.randn_like, torch.rand_like, torch.normal}
_constant |= {Tensor.normal_, Tensor.uniform_, Tensor.exponential_, Tensor.cauchy_, Tensor.log_normal_, Tensor.bernoulli_}
_dropouts = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout)
_determined: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys((*_dropouts, torch._standard_gamma, torch.poisson), _same),  # pyright: ignore
    **{function: _recurrent(function) for function in (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)},  # pyright: ignore
    F.multi_head_attention_forward: _attention_of_heads,
    F.scaled_dot_product_attention: _attention,
    torch.bernoulli: _likely,
    torch.multinomial: _likeliest,
    torch._sample_dirichlet: _normalized,  # pyright: ignore
}


def is_close(values: Tensor, others: Tensor, further: Tensor | float = 0.0) -> bool:
    """Whether numbers are the same but for rounding, which sums in another order differ by, or for ``further``."""
    precision = 1e-8 if values.dtype == torch.float64 else 1e-4
    apart = (values - others).abs() <= precision * (1.0 + others.abs()) + further
    return bool((apart | (values == others) | (values.isnan() & others.isnan())).all())
