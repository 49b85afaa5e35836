"""Proposals that are improved for each datum, and what the encoder's proposals lack."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyro
import torch
from numpy.typing import NDArray
from pyro.poutine.runtime import _DIM_ALLOCATOR, _PYRO_STACK
from torch import Tensor

from pyrovae.compiling.recording_context import is_recording
from pyrovae.engine.pair import Pair
from pyrovae.engine.programs import PairLike, programs, takes_pair
from pyrovae.errors import InputError, require_positive
from pyrovae.evaluation.estimates.estimate import LogLikelihood
from pyrovae.evaluation.estimates.standard_error import mean_and_error
from pyrovae.evaluation.likelihood.log_likelihood import log_likelihood
from pyrovae.guides import Guide
from pyrovae.runtime.batches import DataLike
from pyrovae.runtime.eval_mode import evaluating
from pyrovae.runtime.parameters import Program
from pyrovae.runtime.seeds import seeded


class Refined:
    r"""What :func:`refine` returns: a guide whose parameters are improved for each datum it is called with.

    It has no parameters of its own, hands no gradient on, and goes wherever a guide is evaluated. The parameters of the
    last batch are kept, so that many draws for one batch cost one refinement.
    """

    each_by_itself = True
    """No look need be taken whether it mixes the data of a batch, which would cost two refinements."""

    def __init__(
        self, model: Program, guide: Guide, steps: int, learning_rate: float, num_particles: int, seed: int
    ) -> None:
        self.model = model
        self.guide = guide
        self.steps = steps
        self.learning_rate = learning_rate
        self.num_particles = num_particles
        self.seed = seed
        self._kept: tuple[list[tuple[Tensor, int]], Tensor] | None = None

    def __call__(self, x: Tensor, **given: Tensor) -> Tensor:
        """Draw z for each datum of ``x``, of shape ``(B, *event_shape)``."""
        params = self.params(x, **given)
        with pyro.plate("data", len(x), dim=-1):
            return self.guide.draw(params)

    def params(self, x: Tensor, **given: Tensor) -> Tensor:
        """The improved output of the encoder, shape ``(B, *param_shape)``."""
        if is_recording():
            raise RuntimeError("refine(...) runs a loop over gradients, which cannot be recorded")
        told = [(value, value._version) for value in (x, *given.values())]
        if self._kept is None or not _same(self._kept[0], told):
            with _apart(), evaluating(self.model, self.guide), seeded(self.seed, x.device), torch.enable_grad():
                self._kept = told, self._refined(x, given)
        return self._kept[1]

    def _refined(self, x: Tensor, given: dict[str, Tensor]) -> Tensor:
        params = self.guide.encode(x, given.get("c"), given.get("mask")).detach().requires_grad_()

        def proposal(*_: Any, **__: Any) -> Tensor:
            with pyro.plate("data", len(x), dim=-1):
                return self.guide.draw(params)

        pair = Pair(self.model, proposal)
        pair.ready(x, **given)
        optimizer = torch.optim.Adam([params], lr=self.learning_rate)
        slower = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, self.steps)
        for _ in range(self.steps):
            bound = pair.weigh(self.num_particles, x, **given).total.mean(0).sum()
            (params.grad,) = torch.autograd.grad(-bound, params)
            optimizer.step()
            slower.step()
        return params.detach()


@takes_pair
def refine(
    pair: PairLike,
    steps: int = 200,
    *,
    learning_rate: float = 0.05,
    num_particles: int = 8,
    seed: int = 0,
) -> Refined:
    r"""A guide whose proposal is improved for each datum by gradient steps on its ELBO, beginning at the encoder's output.

    .. math::
        \lambda_{t+1} = \lambda_t + \eta_t \nabla_\lambda E_{q_\lambda(z)}[\log p(x, z) - \log q_\lambda(z)], \qquad
        \lambda_0 = \mathrm{encoder}(x),

    by Adam, with :math:`\eta_t` falling to 0. The model stays as it is, and so does the encoder. Its proposals are closer to
    the posterior, so that :func:`pyrovae.log_likelihood` needs fewer draws; and what the ELBO gains is the amortization gap.

    Args:
        pair: a ``VAE``, or the tuple ``(model, guide)`` of two Pyro programs; the guide is one of
            ``pyrovae.guides``, or has the same methods ``encode`` and ``draw``.
        steps: the number of gradient steps.
        learning_rate: :math:`\eta_0`.
        num_particles: draws a datum and step.
        seed: of these draws; the caller's random generators stay as they were.

    Returns:
        A guide to evaluate with, called as ``guide`` is.

    Raises:
        InputError: for a guide of another kind, whose parameters for a datum cannot be told; for less than one step or draw,
            and for a learning rate that is not positive; where a site of the guide cannot be reparameterised.

    Source: Kim, Wiseman, Miller, Sontag and Rush, Semi-Amortized Variational Autoencoders (arXiv:1802.02550); Cremer, Li and
    Duvenaud, Inference Suboptimality in Variational Autoencoders (arXiv:1801.03558), for the gap.
    """
    model, guide = programs(pair)
    if not (callable(getattr(guide, "encode", None)) and callable(getattr(guide, "draw", None))):
        raise InputError(
            f"guide is {type(guide).__name__}, which does not expose per-datum parameters; expected one of "
            "pyrovae.guides, or a program with methods encode(x, c, mask) and draw(params)"
        )
    require_positive(steps=steps, num_particles=num_particles)
    if not learning_rate > 0:
        raise InputError(f"learning_rate is {learning_rate}; expected a positive number")
    return Refined(model, cast(Guide, guide), steps, learning_rate, num_particles, seed)


@dataclass(frozen=True, eq=False)
class InferenceGaps:
    r"""What a guide's ELBO lacks to :math:`\log p(x)`, in two parts, of each datum, in nats.

    .. math::
        \log p(x) - \mathrm{ELBO}(q) =
        \underbrace{\log p(x) - \mathrm{ELBO}(q^*)}_\text{approximation} +
        \underbrace{\mathrm{ELBO}(q^*) - \mathrm{ELBO}(q)}_\text{amortization},

    where :math:`q^*` is the refined proposal of the same family.

    Attributes:
        amortized: the estimates with the guide.
        refined: the estimates with the refined guide.
    """

    amortized: LogLikelihood
    refined: LogLikelihood

    @property
    def amortization(self) -> NDArray[np.float64]:
        """What refinement gains, shape ``(N,)``: the amortization gap as far as it found the optimum."""
        return self.refined.bounds[1] - self.amortized.bounds[1]

    @property
    def approximation(self) -> NDArray[np.float64]:
        """What the family cannot reach, shape ``(N,)``: the estimate of log p(x) less the refined ELBO."""
        return self.refined.gap(1)

    def __str__(self) -> str:
        rows = [("ELBO", self.amortized.bounds[1]), ("ELBO, refined", self.refined.bounds[1])]
        rows += [("log p(x)", self.refined.log_p)]
        rows += [("amortization gap", self.amortization), ("approximation gap", self.approximation)]
        means = [(name, *mean_and_error(values)) for name, values in rows]
        lines = [f"  {name:<22}{mean:>12.4f} ± {error:.4f}" for name, mean, error in means]
        return "\n".join([f"{len(self.amortization):,} data, in nats", "", *lines])


@takes_pair
def inference_gaps(
    pair: PairLike,
    data: DataLike,
    num_samples: int = 1000,
    *,
    steps: int = 200,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool = False,
    **options: Any,
) -> InferenceGaps:
    """Measure how much of a guide's gap is amortization, and how much is its family's.

    Args:
        pair: a ``VAE``, or the tuple ``(model, guide)`` of two Pyro programs; the guide is of a kind that
            :func:`refine` takes.
        data: as :func:`pyrovae.log_likelihood` takes them.
        num_samples: draws a datum, of either guide.
        steps: gradient steps of the refinement.
        seed: where the noise starts.
        device: where to put each batch; by default it stays where it is.
        progress: whether to show a bar for either guide.
        options: ``learning_rate`` and ``num_particles`` of :func:`refine`.

    Returns:
        :class:`InferenceGaps`; print it for a table.

    Raises:
        InputError: as :func:`refine` and :func:`pyrovae.log_likelihood` do.

    Warns:
        ImportanceSamplingWarning: as :func:`pyrovae.log_likelihood` does.
    """
    model, guide = programs(pair)
    better = refine(pair, steps, seed=seed, **options)
    settings: dict[str, Any] = {"seed": seed, "device": device, "compile": False, "progress": progress}
    pairs = (model, guide), (model, better)
    found = [log_likelihood(each, data, num_samples, num_particles=(1,), **settings) for each in pairs]
    return InferenceGaps(*found)


def _same(kept: list[tuple[Tensor, int]], told: list[tuple[Tensor, int]]) -> bool:
    """Whether these are the same tensors, unchanged."""
    return len(kept) == len(told) and all(a is b and old == new for (a, old), (b, new) in zip(kept, told, strict=True))


@contextmanager
def _apart() -> Iterator[None]:
    """Run programs apart from the one that is running: none of Pyro's handlers around it sees them."""
    handlers, plates = _PYRO_STACK[:], _DIM_ALLOCATOR._stack[:]
    _PYRO_STACK.clear()
    _DIM_ALLOCATOR._stack.clear()
    try:
        yield
    finally:
        _PYRO_STACK[:] = handlers
        _DIM_ALLOCATOR._stack[:] = plates
