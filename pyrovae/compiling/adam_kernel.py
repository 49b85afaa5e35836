r"""Adam's update of all parameters in one pass over memory, on a CPU.

.. math::
    m \leftarrow \beta_1 m + (1 - \beta_1) g, \qquad v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \qquad
    \theta \leftarrow \kappa \theta - \frac{\eta c_t}{1 - \beta_1^t} \frac{m}{\sqrt v + \epsilon c_t}, \qquad
    c_t = \sqrt{1 - \beta_2^t}

with :math:`\kappa = 1 - \eta \lambda` where the decay :math:`\lambda` is decoupled (AdamW), and otherwise
:math:`\kappa = 1` and :math:`\lambda \theta` added to the gradient. These are the numbers of torch's fused kernel but for
their rounding. It takes each parameter by itself and divides twice a number; and it computes for ever with moments that
have become denormal, slowly, in all threads but the one that was told to flush them. Here such a moment becomes 0.

Source: Kingma and Ba, Adam: A Method for Stochastic Optimization (2015), algorithm 1, in the form at the end of section 2;
Loshchilov and Hutter, Decoupled Weight Decay Regularization (2019), algorithm 2.
"""

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from pyrovae.compiling.inductor_internals import load_cpp
from pyrovae.internals.torch_internals import fused_adam, fused_adamw
from pyrovae.runtime.parameters import is_dense

SOURCE = """
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

struct Update {
    void **parameters, **gradients, **means, **squares, **counts;
    const int64_t* sizes;
    const float* failed;
    int64_t number, threads, steps, wide_counts;
    double lr, beta1, beta2, eps, decay, kept, sign;
};

template <typename T>
static inline T flushed(T value) { return std::abs(value) < std::numeric_limits<T>::min() ? T(0) : value; }

template <typename T>
static double counted(void* count, int64_t steps) { return *static_cast<T*>(count) += steps; }

template <typename T>
static void update(const Update& all, int64_t k, double t, int64_t from, int64_t to) {
    T* __restrict__ p = static_cast<T*>(all.parameters[k]);
    const T* __restrict__ g = static_cast<const T*>(all.gradients[k]);
    T* __restrict__ m = static_cast<T*>(all.means[k]);
    T* __restrict__ v = static_cast<T*>(all.squares[k]);
    const double correction = std::sqrt(1 - std::pow(all.beta2, t));
    const T rate = all.lr * correction / (1 - std::pow(all.beta1, t)), eps = all.eps * correction;
    const T beta1 = all.beta1, beta2 = all.beta2, rest1 = 1 - all.beta1, rest2 = 1 - all.beta2;
    const T decay = all.decay, kept = all.kept, sign = all.sign;
    for (int64_t i = from; i < to; i++) {
        const T gradient = sign * g[i] + decay * p[i];
        const T mean = flushed(beta1 * m[i] + rest1 * gradient);
        const T square = flushed(beta2 * v[i] + rest2 * gradient * gradient);
        m[i] = mean;
        v[i] = square;
        p[i] = kept * p[i] - rate * mean / (std::sqrt(square) + eps);
    }
}

template <typename T>
static void update_all(const Update& all) {
    const int64_t line = 64 / sizeof(T);
    std::vector<double> counts(all.number);
    int64_t total = 0;
    for (int64_t k = 0; k < all.number; k++) {
        counts[k] = all.wide_counts ? counted<double>(all.counts[k], all.steps) : counted<float>(all.counts[k], all.steps);
        total += all.sizes[k];
    }
    if (all.failed && *all.failed) return;
    #pragma omp parallel num_threads(all.threads) if (all.threads > 1 && total > 32768)
    {
        const int64_t share = (total / omp_get_num_threads() / line + 1) * line;
        const int64_t first = share * omp_get_thread_num(), last = std::min(total, first + share);
        for (int64_t k = 0, start = 0; k < all.number; start += all.sizes[k++])
            update<T>(all, k, counts[k], std::max<int64_t>(first - start, 0), std::min(last - start, all.sizes[k]));
    }
}

extern "C" void update_float(const Update* all) { update_all<float>(*all); }
extern "C" void update_double(const Update* all) { update_all<double>(*all); }
"""

FUNCTIONS = {torch.float32: "update_float", torch.float64: "update_double"}
"""Names of the functions in :data:`SOURCE`, by the type of the parameters."""

POINTERS = ("parameters", "gradients", "means", "squares", "counts")


class _Update(ctypes.Structure):
    """What a function of :data:`SOURCE` takes."""

    _fields_ = (
        *((name, ctypes.POINTER(ctypes.c_void_p)) for name in POINTERS),
        ("sizes", ctypes.POINTER(ctypes.c_int64)),
        ("failed", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("number", "threads", "steps", "wide_counts")),
        *((name, ctypes.c_double) for name in ("lr", "beta1", "beta2", "eps", "decay", "kept", "sign")),
    )


class AdamKernel:
    """The update of these parameters, moments and counts of steps with these settings, by any gradients.

    It is called in the place of torch's operator ``_fused_adam_`` or ``_fused_adamw_``, with its arguments. Gradients have
    the strides of their parameters.

    Args:
        tensors: those of the operator that stay: parameters, moments, squares and counts.
        decoupled: whether the decay is.
        settings: those of the operator.
    """

    def __init__(self, *tensors: Sequence[Tensor], decoupled: bool, **settings: Any) -> None:
        parameters, *_, counts = self._held = [[value.detach() for value in each] for each in tensors]
        self._function = getattr(library(), FUNCTIONS[parameters[0].dtype])
        self._failed = settings.get("found_inf")  # a float, as torch has it
        decay, lr = settings["weight_decay"], settings["lr"]
        self._update = _Update(
            sizes=(ctypes.c_int64 * len(parameters))(*(value.numel() for value in parameters)),
            failed=None if self._failed is None else self._failed.data_ptr(),
            number=len(parameters),
            wide_counts=counts[0].dtype == torch.float64,
            decay=0.0 if decoupled else decay,
            kept=1.0 - lr * decay if decoupled else 1.0,
            sign=-1.0 if settings["maximize"] else 1.0,
            **{name: settings[name] for name in ("lr", "beta1", "beta2", "eps")},
        )
        self._gradients = _pointers(parameters)
        self._update.gradients = self._gradients
        for name, values in zip(("parameters", "means", "squares", "counts"), self._held, strict=True):
            setattr(self._update, name, _pointers(values))

    def __call__(self, _: Any, gradients: Sequence[Tensor], *__: Any, **___: Any) -> None:
        """Update by these gradients, the last of as many steps as were counted."""
        self._run(gradients, 0)

    def count_and_update(self, _: Any, gradients: Sequence[Tensor], *__: Any, **___: Any) -> None:
        """Count a step, and update by its gradients."""
        self._run(gradients, 1)

    def _run(self, gradients: Sequence[Tensor], steps: int) -> None:
        self._update.steps = steps
        self._gradients[:] = [value.data_ptr() for value in gradients]
        self._update.threads = torch.get_num_threads()
        self._function(ctypes.byref(self._update))


def adam_kernel(operator: Any, arguments: Sequence[Any], settings: dict[str, Any]) -> AdamKernel | None:
    """Return what computes the same as torch's operator for these arguments; None where there is nothing."""
    if operator not in (fused_adam, fused_adamw):
        return None
    parameters, gradients, means, squares, _, counts = arguments
    values = parameters, gradients, means, squares
    known = _plain(*values) and _plain(counts) and _aligned(*values)
    scaled = settings.get("grad_scale") is not None or isinstance(settings["lr"], Tensor)
    if not known or scaled or settings["amsgrad"] or library() is None:
        return None
    return AdamKernel(parameters, means, squares, counts, decoupled=operator is fused_adamw, **settings)


@cache
def library() -> ctypes.CDLL | None:
    """The functions of :data:`SOURCE`; None where they cannot be compiled."""
    try:
        return load_cpp(SOURCE)
    except (RuntimeError, OSError):  # there is no compiler, or one of another kind
        return None


def _plain(*lists: Sequence[Tensor]) -> bool:
    """Whether these are plain tensors on a CPU, all of one type that the kernel has."""
    values = [value for each in lists for value in each]
    alone = all(type(value) in (Tensor, nn.Parameter) and value.device.type == "cpu" for value in values)
    return alone and len({value.dtype for value in values}) == 1 and values[0].dtype in FUNCTIONS


def _aligned(parameters: Sequence[Tensor], *lists: Sequence[Tensor]) -> bool:
    """Whether the numbers of these lie side by side, in one order."""
    alike = all(value.stride() == own.stride() for each in lists for value, own in zip(each, parameters, strict=True))
    return alike and all(map(is_dense, parameters))


def _pointers(values: Sequence[Tensor]) -> Any:
    return (ctypes.c_void_p * len(values))(*[value.data_ptr() for value in values])
