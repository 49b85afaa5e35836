"""What was not observed of a datum, drawn from its posterior."""

import math

import torch
from torch import Tensor
from tqdm.auto import tqdm

from pyrovae.distributions.observed_part import require_mask
from pyrovae.engine.pair import Pair
from pyrovae.errors import require_positive
from pyrovae.evaluation.latent.means import draws_first
from pyrovae.evaluation.latent.reconstructions import observed_site
from pyrovae.runtime.batches import DataLike, as_batch, batches
from pyrovae.runtime.device import home
from pyrovae.runtime.eval_mode import evaluating
from pyrovae.runtime.memory import MAX_ROWS
from pyrovae.runtime.parameters import Program
from pyrovae.runtime.seeds import seeded


def impute(
    model: Program,
    guide: Program,
    x: DataLike,
    mask: Tensor,
    num_samples: int = 10,
    *,
    num_particles: int = 1000,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool = False,
    max_rows: int = MAX_ROWS,
) -> Tensor:
    r"""Draw the missing numbers of each datum, given those that were observed.

    .. math::
        p(x_m \mid x_o) \approx \sum_{k=1}^{K} \frac{w_k}{\sum_j w_j}\, p(x_m \mid z_k), \qquad
        w_k = \frac{p(x_o \mid z_k)\, p(z_k)}{q(z_k \mid x_o)}, \quad z_k \sim q(z \mid x_o)

    where :math:`x_o` are the observed numbers and :math:`x_m` the missing ones. Latents are drawn with the guide as proposal
    and chosen by their weights (self-normalised importance resampling), and the missing numbers from the likelihood given
    the latent. It is exact as :math:`K` grows; the draws of one datum are independent given its :math:`K` latents.

    Args:
        model: a program with one observed site, the data, that takes ``mask`` and leaves out what it hides.
        guide: its proposal, which takes the same.
        x: the data, shape ``(N, *event_shape)``, with any numbers, NaN too, where nothing was observed; or a mapping that
            has them under ``x`` and beside them what the programs are given by name.
        mask: bool, of the shape of x, true where a number was observed.
        num_samples: the number S of completed copies of each datum.
        num_particles: the number K of latents that these are chosen from.
        seed: where the noise starts; the caller's random generators stay as they were.
        device: where to put each batch; by default it stays where it is.
        progress: whether to show a progress bar over data.
        max_rows: the most particles times data of one run of the programs; one datum at a time where K is more than that.

    Returns:
        Shape ``(S, N, *event_shape)``, on the CPU, with the observed numbers as they were.

    Raises:
        InputError: for numbers below one, a mask of another type or shape, and a model without exactly one observed site;
            and for a pair and data that cannot be weighed (see :func:`pyrovae.engine.log_weights.log_weights`).

    Source: Mattei and Frellsen, MIWAE: Deep Generative Modelling and Imputation of Incomplete Data Sets
    (arXiv:1812.02633), section 3.
    """
    require_positive(num_samples=num_samples, num_particles=num_particles, max_rows=max_rows)
    data = as_batch(x)
    require_mask(mask, data.x)
    data = as_batch({"x": data.x, **data.given, "mask": mask})
    device, at_once = home(data, device), max(1, max_rows // num_particles)
    pair = Pair(model, guide)
    completed = []
    with torch.no_grad(), evaluating(model, guide), seeded(seed, device):
        stream = batches(data, at_once, device=device)
        for batch in tqdm(stream, total=math.ceil(len(data) / at_once), disable=not progress):
            pair.meet(batch)
            weights = pair.weigh(num_particles, batch.x, **batch.given).of_proposal()
            weights.require_numbers()
            site = observed_site(weights.model)
            chosen = torch.distributions.Categorical(logits=weights.total.mT).sample((num_samples,))
            drawn = draws_first(site["fn"].sample(), site, weights.plates).reshape(num_particles, *batch.x.shape)
            drawn = drawn[chosen, torch.arange(len(batch), device=drawn.device)]
            completed.append(torch.where(batch.given["mask"], batch.x, drawn).cpu())
    return torch.cat(completed, 1)
