"""The means of a guide's proposals, a point in latent space for each datum."""

import torch
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from pyrovae.engine.call import Call
from pyrovae.engine.pair import Pair
from pyrovae.engine.plates import Plates
from pyrovae.engine.programs import PairLike, programs, takes_pair
from pyrovae.engine.sites import Site, density_sites
from pyrovae.evaluation.latent.means import mean, mean_of_draws
from pyrovae.runtime.batches import Batch, DataLike, as_data, batches
from pyrovae.runtime.device import home
from pyrovae.runtime.eval_mode import evaluating
from pyrovae.runtime.memory import data_at_once
from pyrovae.runtime.seeds import Seed, Seeds, seeded, set_seed


@takes_pair
def posterior_means(
    pair: PairLike,
    data: DataLike,
    *,
    num_samples: int = 1000,
    seed: Seed = 0,
    device: torch.device | str | None = None,
    max_rows: int | None = None,
) -> Tensor:
    r"""Compute the mean :math:`E_{q(z \mid x)}[z]` of each datum's proposal.

    It is exact where the guide has one random site, whose distribution knows its mean. Otherwise the mean of each site
    is averaged over draws of the sites before it; a distribution that does not know its mean (a flow) is drawn itself.

    Args:
        pair: a ``VAE``, or the tuple ``(model, guide)`` of two Pyro programs; the model tells where the data
            plate is.
        data: a tensor or array of shape ``(N, *event_shape)``, a ``Dataset``, or a mapping as :func:`pyrovae.fit` takes.
        num_samples: the number of draws to average where the mean is not exact; they leave a variance of at most
            :math:`\mathrm{Var}_q(z) / \mathrm{draws}`.
        seed: where the noise starts; the caller's random generators stay as they were. A seed a datum, of shape ``(N,)``,
            alone decides the noise of that datum: data are then taken one at a time, where the mean is not exact.
        device: where to put each batch; by default it stays where it is.
        max_rows: at most so many rows, draws times data, in one pass of the programs; if null, 4,096.

    Returns:
        A tensor of shape ``(N, D)``, on the CPU: the latent sites in the guide's order, each flattened.

    Raises:
        InputError: naming the site, for a pair that does not match (see :func:`pyrovae.engine.validation.find_plates`).
    """
    model, guide = programs(pair)
    columns = as_data(data)
    device = home(columns, device)
    seeds = Seeds.parse(seed, len(columns))
    with torch.no_grad(), evaluating(model, guide), seeded(seeds.first, device):
        module = Pair(model, guide)
        exact = _is_exact(_run(module, next(batches(columns, 1, device=device)), 1)[0])
        num_samples, alone = 1 if exact else num_samples, seeds.alone and not exact
        means = []
        at_once = 1 if alone else data_at_once(max_rows, num_samples)
        for index, batch in enumerate(batches(columns, at_once, device=device)):
            if alone:
                set_seed(seeds.batch_seed(index), device)
            means.append(_means(*_run(module, batch, num_samples)).cpu())
        return torch.cat(means)


def _run(pair: Pair, batch: Batch, draws: int) -> tuple[list[Site], Plates]:
    """Run the guide; returns its random sites, each value of shape ``(draws, ..., B, *event_shape)``, and the plates."""
    pair.meet(batch)
    assert pair.plates is not None
    with pair.opened() as programs:
        trace = prune_subsample_sites(Call(*programs, (batch.x,), batch.given, draws, pair.plates).draw())
    return [site for site in density_sites(trace) if not site["is_observed"]], pair.plates


def _is_exact(sites: list[Site]) -> bool:
    return len(sites) == 1 and mean(sites[0]["fn"]) is not None


def _means(sites: list[Site], plates: Plates) -> Tensor:
    latents = [site for site in sites if not site["infer"].get("is_auxiliary")]
    return torch.cat([_mean(site, plates) for site in latents], 1)


def _mean(site: Site, plates: Plates) -> Tensor:
    """Compute the mean of one site, flattened, shape ``(B, D)``."""
    known = mean(site["fn"])
    values = site["value"] if known is None else known
    return mean_of_draws(values, site, plates).flatten(1)
