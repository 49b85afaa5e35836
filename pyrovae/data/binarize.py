r"""Binarisation of pixels :math:`x \in [0, 1]` for a model of zeros and ones.

================ ===============================================================================================
``none``         :math:`x` as it is, of any range
``dynamic``      :math:`b \sim \mathrm{Bernoulli}(x)`, drawn anew at each use
``fixed(SEED)``  :math:`b \sim \mathrm{Bernoulli}(x)`, drawn once with that seed; ``fixed`` is ``fixed(0)``
``threshold``    :math:`b = 1[x \ge 1/2]`
================ ===============================================================================================

Log-likelihoods of the four are those of four different data sets; "On the quantitative analysis of deep belief
networks" (Salakhutdinov and Murray, 2008) is the usual source of ``fixed``, "Importance weighted autoencoders"
(arXiv:1509.00519) of ``dynamic``.
"""

import difflib
import re
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pyrovae.data.values import check_unit_interval
from pyrovae.errors import InputError

spellings = ("none", "dynamic", "fixed", "fixed(0)", "threshold")


@dataclass(frozen=True)
class Binarize:
    """One of four binarisations: none, dynamic, fixed or by a threshold.

    Args:
        kind: ``none``, ``dynamic``, ``fixed`` or ``threshold``.
        seed: of the draws of ``fixed``, from 0 to 2^64 - 1.
    """

    kind: str
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**64:
            raise InputError(f"the seed of a binarisation is {self.seed}; expected 0 to 2^64 - 1: pass another seed")

    @classmethod
    def parse(cls, text: str) -> "Binarize":
        """Read ``none``, ``dynamic``, ``fixed``, ``fixed(SEED)`` or ``threshold``.

        Raises:
            InputError: for any other spelling; the message offers the nearest.
        """
        match = re.fullmatch(r"(none|dynamic|threshold|fixed)|fixed\((\d+)\)", str(text))
        if match is None:
            nearest = difflib.get_close_matches(str(text), spellings, n=1, cutoff=0)[0]
            expected = "none, dynamic, fixed, fixed(SEED) with a whole number, or threshold"
            raise InputError(f'binarize is "{text}"; expected {expected}: the nearest is "{nearest}"')
        return cls(match[1] or "fixed", int(match[2] or 0))

    def __str__(self) -> str:
        return f"fixed({self.seed})" if self.kind == "fixed" else self.kind

    def store(self, x: Tensor, index: np.ndarray) -> Tensor:
        """Compute what is stored of data ``x``, shape ``(N, *event_shape)``, that stand at ``index`` of their source.

        Raises:
            InputError: for a value outside [0, 1], unless the kind is ``none``.
        """
        if self.kind != "none":
            check_unit_interval(x, index, self)
        if self.kind == "fixed":
            return fixed_draws(x, index, self.seed)
        return (x >= 0.5).to(x.dtype) if self.kind == "threshold" else x

    def draw(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return stored data ``x`` for one use: a fresh draw on the device of ``x`` if ``dynamic``, else ``x``."""
        if self.kind != "dynamic":
            return x
        uniform = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        return (uniform < x).to(x.dtype)  # twice as fast as torch.bernoulli on a CPU


def fixed_draws(x: Tensor, index: np.ndarray, seed: int) -> Tensor:
    """Draw once from Bernoulli(x) for each datum, of the shape of ``x``.

    The draw of a datum is a function of the seed and its index alone: it is the same in every split, batch, process
    and device, whether the data are in memory or read as they go.
    """
    uniform = np.empty(tuple(x.shape), dtype=np.float32)
    for row, i in zip(uniform, index, strict=True):
        _stream(seed, int(i)).random(out=row, dtype=np.float32)
    return (torch.from_numpy(uniform).to(x.device) < x).to(x.dtype)


def _stream(seed: int, i: int) -> np.random.Generator:
    """Make a counter-based generator whose 128-bit key is the pair: no two pairs share a stream."""
    return np.random.Generator(np.random.Philox(key=seed + (i << 64)))
