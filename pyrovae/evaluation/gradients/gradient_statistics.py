r"""How much of an objective's gradient is signal, and how much is noise of its draws."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pyrovae.engine.programs import PairLike, programs, takes_pair
from pyrovae.errors import InputError
from pyrovae.evaluation.gradients.buffer_copies import writing_to_copies
from pyrovae.evaluation.gradients.parameter_names import parameter_names
from pyrovae.evaluation.gradients.running_moments import RunningMoments
from pyrovae.evaluation.gradients.signal_to_noise import Array, GradientStatistics
from pyrovae.objectives import Objective, ObjectiveModule
from pyrovae.runtime.batches import Batch, DataLike, as_batch
from pyrovae.runtime.progress import progress_bar
from pyrovae.runtime.seeds import seeded


@takes_pair
def gradient_statistics(
    pair: PairLike,
    x: DataLike,
    objective: Objective,
    num_samples: int = 100,
    *,
    seed: int = 0,
    progress: bool = True,
) -> GradientStatistics:
    r"""Draw an objective's gradient on one batch again and again, and tell its mean from its noise.

    .. math::
        \bar g = \frac1R \sum_{r=1}^R g_r, \qquad
        \hat\sigma^2 = \frac1{R - 1} \sum_{r=1}^R (g_r - \bar g)^2, \qquad
        \mathrm{SNR} = \frac{|\bar g|}{\hat\sigma}, \qquad
        g_r = \nabla\, \mathrm{loss}(x; \varepsilon_r)

    for each scalar parameter, with fresh noise :math:`\varepsilon_r` at each of R draws. They are taken up one by one, so
    that memory does not grow with R. Groups of parameters are summarised by the mean of their signal-to-noise ratios.

    Modules run in the modes they are in, so that dropout that is on is part of the noise. Every draw finds their buffers,
    and the objective's, as they are, and leaves them so; so does it with ``.grad`` of the parameters.

    Args:
        pair: a ``VAE``, or the tuple ``(model, guide)`` of two Pyro programs with a plate over data, each called with ``x``.
        x: one batch, shape ``(B, *event_shape)``, where the programs are, or a mapping as :func:`pyrovae.fit` takes.
        objective: what is to be differentiated, such as ``IWAE(64, "dreg")``.
        num_samples: the number R of draws, at least 2.
        seed: the seed of the random numbers; the caller's random generators stay as they were.
        progress: whether to show a progress bar over draws on stderr, once the call has taken two seconds.

    Returns:
        :class:`GradientStatistics`: NumPy arrays by the names of the parameters; print it for a table.

    Raises:
        InputError: for fewer than two draws; where no parameter can be trained; naming the parameter, where a gradient is
            not finite; and all that the objective raises on this pair.

    Source: Rainforth et al., Tighter Variational Bounds are Not Necessarily Better (arXiv:1802.04537), section 3, for the
    ratio.
    """
    model, guide = programs(pair)
    if not isinstance(objective, Objective):
        raise InputError(f"objective is {objective!r}; expected an objective, such as pyrovae.IWAE(50)")
    if num_samples < 2:
        raise InputError(f"num_samples is {num_samples}; a variance needs at least 2")
    module, batch = objective(model, guide), as_batch(x)
    with torch.enable_grad(), seeded(seed, batch.x.device):
        with writing_to_copies(module):
            module.meet(batch)
        parameters = _trainable(module)
        names = parameter_names(module, parameters, batch)
        moments = RunningMoments(sum(value.numel() for value in parameters), batch.x.device)
        for _ in progress_bar(range(num_samples), total=num_samples, progress=progress):
            moments.add(_gradient(module, parameters, batch))
    mean, variance = (_by_name(flat, names, parameters) for flat in (moments.mean, moments.variance))
    _require_finite(mean)
    return GradientStatistics(mean, variance, num_samples)


def _trainable(module: nn.Module) -> list[nn.Parameter]:
    found = [value for value in module.parameters() if value.requires_grad]
    if not found:
        raise InputError("no parameter of the pair requires a gradient; call requires_grad_(True) on what is to be trained")
    return found


def _gradient(module: ObjectiveModule, parameters: Sequence[nn.Parameter], batch: Batch) -> Tensor:
    """One draw of the gradient, flattened, with 0 where the loss does not depend on a parameter."""
    with writing_to_copies(module):
        loss = module(batch.x, **batch.given)
    found = torch.autograd.grad(loss, parameters, allow_unused=True) if loss.requires_grad else [None] * len(parameters)
    parts = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
    return torch.cat([part.flatten() for part in parts])


def _by_name(flat: Tensor, names: Sequence[str], parameters: Sequence[nn.Parameter]) -> dict[str, Array]:
    """The arrays of the parameters' shapes that a flat tensor holds."""
    pieces = flat.cpu().split([value.numel() for value in parameters])
    return {name: piece.view(value.shape).numpy() for name, piece, value in zip(names, pieces, parameters, strict=True)}


def _require_finite(means: Mapping[str, Array]) -> None:
    for name, mean in means.items():
        if number := int((~np.isfinite(mean)).sum()):
            raise InputError(
                f"the gradient of {name} is not finite in {number} of {mean.size} places; look at the weights of this "
                "batch with pyrovae.log_weights((model, guide), x), or move the parameters to where they are finite"
            )
