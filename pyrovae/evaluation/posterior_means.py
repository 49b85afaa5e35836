"""The means of a guide's proposals: a point a datum, where the latent space is read."""

import pyro
import torch
from pyro import poutine
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from pyrovae.batches import Batch, DataLike, as_data, batches
from pyrovae.evaluation.device import home
from pyrovae.evaluation.limits import MAX_ROWS
from pyrovae.evaluation.mode import evaluating
from pyrovae.evaluation.moments import mean, mean_of_draws
from pyrovae.evaluation.noise import Seed, Seeds, seeded, set_seed
from pyrovae.evaluation.plates import plates_of
from pyrovae.parameters import Program, parameter_store
from pyrovae.weights import Plates, Site


def posterior_means(
    model: Program,
    guide: Program,
    data: DataLike,
    *,
    draws: int = 1000,
    seed: Seed = 0,
    device: torch.device | str | None = None,
    max_rows: int = MAX_ROWS,
) -> Tensor:
    r"""The mean :math:`E_{q(z \mid x)}[z]` of each datum's proposal.

    It is exact where the guide has one random site, whose distribution knows its mean. Otherwise the mean of each site
    is averaged over draws of the sites before it; a distribution that does not know its mean (a flow) is drawn itself.

    Args:
        model: the generator, which tells where the data plate is.
        guide: the proposal, called with one batch ``x``.
        data: a tensor or array of shape ``(N, *event_shape)``, a ``Dataset``, or a mapping as :func:`pyrovae.fit` takes.
        draws: the number of draws to average where the mean is not exact; they leave a variance of at most
            :math:`\mathrm{Var}_q(z) / \mathrm{draws}`.
        seed: where the noise starts; the caller's random generators stay as they were. A seed a datum, of shape ``(N,)``,
            alone decides the noise of that datum: data are then taken one at a time, where the mean is not exact.
        device: where to put each batch; by default it stays where it is.
        max_rows: the most draws times data of one run of the guide.

    Returns:
        Shape ``(N, D)``, on the CPU: the latent sites in the guide's order, each flattened.

    Raises:
        InputError: naming the site, for a pair that does not match (see :func:`pyrovae.weights.find_plates`).
    """
    columns = as_data(data)
    device = home(columns, device)
    seeds = Seeds.parse(seed, len(columns))
    with torch.no_grad(), evaluating(model, guide), seeded(seeds.first, device):
        first = next(batches(columns, 1, device=device))
        plates = plates_of(model, guide, first)
        exact = _is_exact(_run(model, guide, first, 1, plates))
        draws, alone = 1 if exact else draws, seeds.alone and not exact
        means = []
        for index, batch in enumerate(batches(columns, 1 if alone else max(1, max_rows // draws), device=device)):
            if alone:
                set_seed(seeds.of(index), device)
            means.append(_means(_run(model, guide, batch, draws, plates), plates).cpu())
        return torch.cat(means)


def _run(model: Program, guide: Program, batch: Batch, draws: int, plates: Plates) -> list[Site]:
    """The random sites of the guide, each value of shape ``(draws, ..., B, *event_shape)``."""
    with parameter_store(model, guide) as (_, proposal):
        repeated = pyro.plate("draws", draws, dim=-1 - plates.nesting)(proposal)
        trace = prune_subsample_sites(poutine.trace(repeated).get_trace(batch.x, **batch.given))
    sites: list[Site] = list(trace.nodes.values())
    return [site for site in sites if site["type"] == "sample" and not site["is_observed"]]


def _is_exact(sites: list[Site]) -> bool:
    return len(sites) == 1 and mean(sites[0]["fn"]) is not None


def _means(sites: list[Site], plates: Plates) -> Tensor:
    latents = [site for site in sites if not site["infer"].get("is_auxiliary")]
    return torch.cat([_mean(site, plates) for site in latents], 1)


def _mean(site: Site, plates: Plates) -> Tensor:
    """The mean of one site, flattened, shape ``(B, D)``."""
    known = mean(site["fn"])
    values = site["value"] if known is None else known
    return mean_of_draws(values, site, plates).flatten(1)
