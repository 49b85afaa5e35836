"""Proposals that are refined for each datum by gradient steps on its ELBO."""

from typing import Any, cast

import pyro
import torch
from torch import Tensor

from pyrovae.compiling.recording_context import is_recording
from pyrovae.engine.pair import Pair
from pyrovae.engine.programs import PairLike, programs, takes_pair
from pyrovae.errors import InputError, require_positive
from pyrovae.guides import Guide
from pyrovae.internals.pyro_internals import outside_all_handlers
from pyrovae.internals.torch_internals import version
from pyrovae.runtime.eval_mode import evaluating
from pyrovae.runtime.parameters import Program
from pyrovae.runtime.seeds import seeded


class Refined:
    r"""A guide whose parameters are refined for each datum that it is called with, as :func:`refine` returns it.

    It has no parameters of its own, hands no gradient on, and goes wherever a guide is evaluated. The parameters of the
    last batch are kept, so that many draws for one batch cost one refinement.
    """

    each_by_itself = True
    """True, as it does not mix the data of a batch: a check of that would cost two refinements."""

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
        """Refine the output of the encoder, shape ``(B, *param_shape)``."""
        if is_recording():
            raise RuntimeError("refine(...) runs a loop over gradients, which cannot be recorded")
        told = [(value, version(value)) for value in (x, *given.values())]
        if self._kept is None or not _same(self._kept[0], told):
            with (
                outside_all_handlers(),
                evaluating(self.model, self.guide),
                seeded(self.seed, x.device),
                torch.enable_grad(),
            ):
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
    r"""Make a guide whose proposal is refined for each datum by gradient steps on its ELBO, from the encoder's output.

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


def _same(kept: list[tuple[Tensor, int]], told: list[tuple[Tensor, int]]) -> bool:
    """Return whether these are the same tensors, unchanged."""
    return len(kept) == len(told) and all(a is b and old == new for (a, old), (b, new) in zip(kept, told, strict=True))
