"""A mode in which randomness beside the sample sites is fixed, so that two runs of a program can be compared."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pyrovae.internals.torch_internals import sample_dirichlet, standard_gamma

READINGS = {Tensor.__bool__, Tensor.__int__, Tensor.__index__, Tensor.__float__, Tensor.item, Tensor.tolist}
"""Functions that hand the number in a tensor to Python."""
CONSTANT = 0.5
"""The constant that replaces random numbers."""


class FixedRandomness(TorchFunctionMode):
    """A mode in which everything random, except given draws, is constant: dropout drops nothing.

    Args:
        altered: index, from 0, of the number that Python reads from a tensor and is told wrongly; none if not given.

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
            return func(*args, **kwargs).fill_(CONSTANT)
        determined = _determined.get(func)
        return func(*args, **kwargs) if determined is None else determined(*args, **kwargs)


def _another(number: Any) -> Any:
    return not number if isinstance(number, bool) else [] if isinstance(number, list) else number + 1


def _same(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x


def _likely(p: Tensor, *_: Any, **__: Any) -> Tensor:
    return (p > CONSTANT).to(p.dtype)


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
    **dict.fromkeys((*_dropouts, standard_gamma, torch.poisson), _same),  # pyright: ignore
    **{function: _recurrent(function) for function in (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)},  # pyright: ignore
    F.multi_head_attention_forward: _attention_of_heads,
    F.scaled_dot_product_attention: _attention,
    torch.bernoulli: _likely,
    torch.multinomial: _likeliest,
    sample_dirichlet: _normalized,
}
