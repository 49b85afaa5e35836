r"""Recorded graphs in fewer operations on a CPU, the same but for rounding: products, tanh and the density of pixels.

The log density of independent binary pixels with logits l,

.. math::
    \sum_i \log p(x_i) = \sum_i \bigl[\min(l_i, 0) - (1 - x_i)\, l_i\bigr] - \log \prod_i (1 + e^{-|l_i|}),

needs one logarithm for many pixels: a factor lies between 1 and 2. What the product exceeds 1 by is what is multiplied out,
so that small excesses are kept, :math:`(1 + a)(1 + b) = 1 + (a + b + a b)`. Gradients are untouched: where there are any,
they have been recorded, and they need no logarithm.
"""

import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, reduce
from operator import add
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from pyrovae.compiling.inductor_internals import onednn_product, onednn_product_of_inputs

aten = torch.ops.aten
SIDE_BY_SIDE = 16
"""Products that are made together: as many as the widest register has numbers of float32."""
ONEDNN_ROWS = 1000
"""Of a product, from which on oneDNN can be the faster: it needs more time to begin."""
PROCESSOR = Path("/proc/cpuinfo")
"""What Linux says of it."""
MOST_FACTORS = 16
"""Of a product: more take longer to compile than they save, and 2 to this power is far from the largest float."""

TANH = (-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1)
"""Coefficients of tanh(a) / a - 1 in a squared, the highest first, for a up to 0.625."""


def biased(bias: Tensor, left: Tensor, right: Tensor, **scales: float) -> Tensor:
    """``addmm`` on a CPU, where it would write the bias to every row beforehand: it is added in the kernel that follows."""
    narrow = bias.dtype not in (torch.float32, torch.float64)  # the sum would be rounded twice
    if scales or narrow or bias.dim() != 1 or bias.device.type != "cpu":
        return NotImplemented
    return torch.mm(left, right) - (-bias)  # inductor would make an addmm of a sum


def product(left: Tensor, right: Tensor) -> Tensor:
    """``mm`` on a CPU, by oneDNN where that is the faster."""
    known = left.dtype == torch.float32 and left.device.type == "cpu" and left.is_contiguous() and left.numel() > 0
    if not known or len(left) < ONEDNN_ROWS or not onednn_is_faster():
        return NotImplemented
    return onednn_product(left, right)


@cache
def onednn_is_faster() -> bool:
    """Whether this is a processor of AMD with AVX-512: what torch takes, MKL, is written for those of Intel."""
    vendor = PROCESSOR.read_text() if PROCESSOR.exists() else platform.processor()
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return wide and "AuthenticAMD" in vendor and torch.backends.mkldnn.is_available() and torch.backends.mkl.is_available()


@contextmanager
def onednn_products() -> Iterator[None]:
    """Let inductor call oneDNN for matrices that are inputs of a graph, where its own lowering takes only constants."""
    if not onednn_is_faster():
        yield
        return
    with onednn_product_of_inputs():
        yield


def tanh(x: Tensor) -> Tensor:
    """Of float32 on a CPU in half the time, but for the last bit: a polynomial where :math:`1 - 2 / (e^{2a} + 1)` cancels.

    Source: Moshier, Cephes Mathematical Library, tanhf.
    """
    if x.dtype != torch.float32 or x.device.type != "cpu":
        return NotImplemented
    size = x.abs()
    square = size * size
    small = reduce(lambda value, coefficient: value * square + coefficient, TANH)
    large = 1.0 - 2.0 / ((2.0 * size).exp() + 1.0)
    return torch.where(size < 0.625, small * square * size + size, large).copysign(x)


def rewrite(graph: GraphModule) -> None:
    """Put the sums of Bernoulli log densities in a graph of ``make_fx`` into the form with few logarithms."""
    for total in graph.graph.find_nodes(op="call_function", target=aten.sum.dim_IntList):
        if (pixels := _pixels(total)) is not None:
            with graph.graph.inserting_before(total):
                total.replace_all_uses_with(graph.graph.call_function(log_bernoulli, pixels))
            graph.graph.erase_node(total)
    graph.recompile()


def _pixels(total: Node) -> tuple[Any, Any, tuple[int, ...]] | None:
    """Logits, x and the shape to give them, where the node sums their log density over the last dimension."""
    terms, *how = total.args
    if not isinstance(terms, Node) or how != [[-1]] or total.kwargs:
        return None
    negative = terms.args[0] if terms.target == aten.view.default else terms
    loss = negative.args[0] if isinstance(negative, Node) and negative.target == aten.neg.default else None
    if not isinstance(loss, Node) or loss.target != aten.binary_cross_entropy_with_logits.default or loss.kwargs:
        return None
    logits, x, *options = loss.args
    value = terms.meta["val"]
    plain = options in ([], [None, None, 0]) and value.dtype in (torch.float32, torch.float64)
    return (logits, x, tuple(value.shape)) if plain and factors(value.shape[-1]) > 1 else None


def factors(pixels: int) -> int:
    """The most factors, up to the limit, of which whole products can be made side by side; 1 if there are none."""
    rows, rest = divmod(pixels, SIDE_BY_SIDE)
    return 1 if rest or not rows else max(n for n in range(1, MOST_FACTORS + 1) if rows % n == 0)


def log_bernoulli(logits: Tensor, x: Tensor, shape: Sequence[int]) -> Tensor:
    """The log density of x, both of this shape, summed over the last dimension, in nats."""
    grouped = (*shape[:-1], -1, factors(shape[-1]), SIDE_BY_SIDE)
    logits, x = logits.reshape(grouped), x.reshape(grouped)
    pixels = [*zip(logits.unbind(-2), x.unbind(-2), strict=True)]  # of these, one kernel makes all that follows
    odds = [logit.abs().neg().exp() for logit, _ in pixels]
    linear = [(1.0 - x) * logit - logit.clamp(max=0.0) for logit, x in pixels]
    return -(reduce(add, linear) + log_of_one_more(excess(odds))).sum((-2, -1))


def excess(odds: Sequence[Tensor]) -> Tensor:
    r""":math:`\prod_i (1 + a_i) - 1`, without the loss of small ones."""
    if len(odds) == 1:
        return odds[0]
    left, right = excess(odds[: len(odds) // 2]), excess(odds[len(odds) // 2 :])
    return left + right + left * right


def log_of_one_more(value: Tensor) -> Tensor:
    r""":math:`\log(1 + a)` of numbers that are not negative, from the logarithm alone, which is the faster.

    What rounding takes from :math:`1 + a` is put back to first order.
    """
    rounded = 1.0 + value
    return rounded.log() + (value - (rounded - 1.0)) / rounded
