"""Imputation: draws of the missing numbers of a datum from their posterior."""

import math

import numpy as np
import torch
from torch import Tensor

from pyrovae.distributions.observed_part import require_mask
from pyrovae.engine.pair import Pair
from pyrovae.engine.programs import PairLike, programs, takes_pair
from pyrovae.errors import InputError, require_positive
from pyrovae.evaluation.latent.means import draws_first
from pyrovae.evaluation.latent.reconstructions import observed_site
from pyrovae.runtime.batches import Batch, DataLike, as_batch, batches
from pyrovae.runtime.device import home
from pyrovae.runtime.eval_mode import evaluating
from pyrovae.runtime.memory import data_at_once
from pyrovae.runtime.progress import progress_bar
from pyrovae.runtime.seeds import seeded


@takes_pair
def impute(
    pair: PairLike,
    x: DataLike,
    mask: Tensor | np.ndarray | None = None,
    num_samples: int = 10,
    *,
    num_particles: int = 1000,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool = True,
    max_rows: int | None = None,
) -> Tensor:
    r"""Draw the missing numbers of each datum, given those that were observed.

    .. math::
        p(x_m \mid x_o) \approx \sum_{k=1}^{K} \frac{w_k}{\sum_j w_j}\, p(x_m \mid z_k), \qquad
        w_k = \frac{p(x_o \mid z_k)\, p(z_k)}{q(z_k \mid x_o)}, \quad z_k \sim q(z \mid x_o)

    where :math:`x_o` are the observed numbers and :math:`x_m` the missing ones. Latents are drawn with the guide as proposal
    and chosen by their weights (self-normalised importance resampling), and the missing numbers from the likelihood given
    the latent. It is exact as :math:`K` grows; the draws of one datum are independent given its :math:`K` latents.

    Args:
        pair: a ``VAE``, or the tuple ``(model, guide)`` of two Pyro programs, both of which take ``mask``; the
            model has one observed site, the data, and leaves out what the mask hides.
        x: the data, shape ``(N, *event_shape)``, with any numbers, NaN too, where nothing was observed; or a mapping that
            has them under ``x`` and beside them what the programs are given by name.
        mask: bool, of the shape of x, true where a number was observed; by default ``x["mask"]``.
        num_samples: the number S of completed copies of each datum.
        num_particles: the number K of latents that these are chosen from.
        seed: where the noise starts; the caller's random generators stay as they were.
        device: where to put each batch; by default it stays where it is.
        progress: show a bar over data on stderr once the call has taken two seconds.
        max_rows: at most so many rows, particles times data, in one pass of the programs; if null, 4,096. One datum at a
            time where K is more than that.

    Returns:
        A tensor of shape ``(S, N, *event_shape)``, on the CPU, with the observed numbers as they were.

    Raises:
        InputError: for numbers below one, no mask or two, a mask of another type or shape, and a model without one
            observed site; and for a pair and data that cannot be weighed (see :func:`pyrovae.log_weights`).

    Source: Mattei and Frellsen, MIWAE: Deep Generative Modelling and Imputation of Incomplete Data Sets
    (arXiv:1812.02633), section 3.
    """
    model, guide = programs(pair)
    require_positive(num_samples=num_samples, num_particles=num_particles, max_rows=max_rows)
    data = _masked(as_batch(x), mask)
    device, at_once = home(data, device), data_at_once(max_rows, num_particles)
    module = Pair(model, guide)
    completed = []
    with torch.no_grad(), evaluating(model, guide), seeded(seed, device):
        stream = batches(data, at_once, device=device)
        for batch in progress_bar(stream, total=math.ceil(len(data) / at_once), progress=progress):
            module.meet(batch)
            weights = module.weigh(num_particles, batch.x, **batch.given).with_proposal_density()
            weights.require_numbers()
            site = observed_site(weights.model)
            chosen = torch.distributions.Categorical(logits=weights.total.mT).sample((num_samples,))
            drawn = draws_first(site["fn"].sample(), site, weights.plates).reshape(num_particles, *batch.x.shape)
            drawn = drawn[chosen, torch.arange(len(batch), device=drawn.device)]
            completed.append(torch.where(batch.given["mask"], batch.x, drawn).cpu())
    return torch.cat(completed, 1)


def _masked(data: Batch, mask: Tensor | np.ndarray | None) -> Batch:
    """Join the data with the one mask that says what was observed."""
    if (mask is None) != ("mask" in data.given):
        found = "there is no mask" if mask is None else "there are two masks"
        raise InputError(f"{found}; expected one: impute(pair, x, mask), or impute(pair, {{'x': x, 'mask': mask}})")
    data = data if mask is None else as_batch({"x": data.x, **data.given, "mask": mask})
    require_mask(data.given["mask"], data.x)
    return data
