"""The gradient of the mean loss on a batch, computed eagerly."""

from collections.abc import Callable, Sequence
from typing import NoReturn

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from pyrovae.engine.derivatives import derivatives
from pyrovae.errors import InputError
from pyrovae.objectives import Measurement, ObjectiveModule
from pyrovae.runtime.batches import Batch
from pyrovae.training.epoch_sums import Tally
from pyrovae.training.minibatch import Minibatch

Gradients = Sequence[Tensor | None]


def unchanged(x: Tensor) -> Tensor:
    """Return data as they are: the draw of those that are not binarised."""
    return x


class BatchGradient:
    r"""Gradient of the mean loss on a batch, in nats a datum, clipped.

    .. math::
        g = \nabla \frac1B \sum_{i=1}^B \ell_i, \qquad g \min(1, c / \lVert g \rVert)

    What was measured is added to a tally.

    Args:
        module: the objective on the pair, started.
        parameters: with respect to which.
        tally: what measurements are added to.
        draw: what each use makes of rows of the data, such as their binarisation.
        clip_norm: :math:`c`, the largest norm of a gradient, all parameters together.
        skips: whether the tally skips a batch that is not finite, or stops at it.

    Raises:
        InputError: where a gradient is sparse.
    """

    def __init__(
        self,
        module: ObjectiveModule,
        parameters: Sequence[nn.Parameter],
        tally: Tally,
        *,
        draw: Callable[[Tensor], Tensor] = unchanged,
        clip_norm: float | None = None,
        skips: bool = False,
    ) -> None:
        self.module = module
        self.parameters = parameters
        self.tally = tally
        self.device = parameters[0].device
        self._draw = draw
        self._clip_norm = clip_norm
        self._skips = skips

    def __call__(self, minibatch: Minibatch) -> Gradients:
        """Compute the gradient, and add the batch to the tally."""
        batch = self.with_draw(minibatch.batch())
        measured, gradients = self.measure(batch)
        return self.finish(self.tally, measured, gradients, len(batch))

    def with_draw(self, batch: Batch) -> Batch:
        """Return the batch as the programs are called with it: binarised by a new draw, say."""
        x, *given = batch.tensors
        return batch.with_tensors(self._draw(x), *given)

    def measure(self, batch: Batch) -> tuple[Measurement, Gradients]:
        """Measure a batch; return the measurement and the gradient of its mean loss."""
        measured = self.module.measure(batch.x, **batch.given)
        gradients = derivatives(_mean_loss(measured), self.parameters)
        if not all(value is None or value.layout == torch.strided for value in gradients):
            self._refuse_sparse(gradients)
        return measured, gradients

    def finish(self, tally: Tally, measured: Measurement, gradients: Gradients, data: int) -> Gradients:
        """Clip a gradient, and add to the tally what was measured, and whether all of it is finite."""
        pairs = zip(gradients, self.parameters, strict=True)
        gradients, norm = clipped([laid_out(value, parameter) for value, parameter in pairs], self._clip_norm)
        finite = torch.isfinite(_mean_loss(measured).detach() + norm)
        if self._skips:
            tally.add_finite(measured, finite, data)
        else:
            tally.add(measured, finite)
        return gradients

    def _refuse_sparse(self, gradients: Gradients) -> NoReturn:
        names = {id(value): name for name, value in self.module.named_parameters()}
        pairs = zip(self.parameters, gradients, strict=True)
        sparse = [names[id(value)] for value, each in pairs if each is not None and each.layout != torch.strided]
        raise InputError(
            f"the gradient of {', '.join(sparse)} is sparse; expected dense ones: build the embedding with sparse=False"
        )


def clipped(gradients: Gradients, clip_norm: float | None) -> tuple[Gradients, Tensor]:
    """Scale gradients down where their norm, all together, exceeds ``clip_norm``; return them and the norm before."""
    norm = get_total_norm([value for value in gradients if value is not None])
    if clip_norm is None:
        return gradients, norm
    factor = (clip_norm / (norm + 1e-6)).clamp(max=1.0)
    return [None if value is None else value * factor for value in gradients], norm


def laid_out(gradient: Tensor | None, parameter: Tensor) -> Tensor | None:
    """Return the gradient with the strides of its parameter, on which torch's fused kernels rely."""
    if gradient is None or gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


def _mean_loss(measured: Measurement) -> Tensor:
    """Divide the loss by the data plate's scale, and by the number of data."""
    return measured.loss / (measured.scale * measured.bound.numel())
