"""Reconstructions: the mean of the observed site, given draws of the guide."""

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from pyrovae.engine.log_weights import log_weights
from pyrovae.engine.plates import Plates
from pyrovae.engine.programs import PairLike, programs, takes_pair
from pyrovae.engine.sites import Site
from pyrovae.errors import InputError
from pyrovae.evaluation.latent.means import mean, mean_of_draws
from pyrovae.internals.pyro_internals import is_deterministic
from pyrovae.runtime.batches import DataLike, as_batch
from pyrovae.runtime.eval_mode import evaluating
from pyrovae.runtime.seeds import seeded


@takes_pair
def reconstructions(pair: PairLike, x: DataLike, *, num_samples: int = 1, seed: int = 0) -> Tensor:
    r"""Compute the mean of :math:`p(x \mid z)` for :math:`z \sim q(z \mid x)`, averaged over draws of z.

    Args:
        pair: a ``VAE``, or the tuple ``(model, guide)`` of two Pyro programs; the model has one observed site,
            the data.
        x: one batch, shape ``(B, *event_shape)``, where the programs are, or a mapping that has it under ``x`` and beside it
            what the programs are given by name. Where the model puts these dimensions into
            plates, they are taken in the order of the plates' dimensions, the leftmost first.
        num_samples: the number of latents to average over: one shows what the decoder draws, many are blurred as far as the
            posterior is uncertain.
        seed: where the noise starts; the caller's random generators stay as they were.

    Returns:
        A tensor of shape ``(B, *event_shape)``.

    Raises:
        InputError: for a model without exactly one observed site, or whose site's distribution does not know its mean.
    """
    model, guide = programs(pair)
    batch = as_batch(x)
    with torch.no_grad(), evaluating(model, guide), seeded(seed, batch.x.device):
        weights = log_weights((model, guide), batch.x, num_samples=num_samples, **batch.given)  # pyright: ignore
        return observed_mean(weights.model, weights.plates).reshape(batch.x.shape)


def observed_mean(model: Trace, plates: Plates) -> Tensor:
    """Average the mean of the observed site of a model's trace over draws, and put the data's dimension first.

    Raises:
        InputError: for a model without exactly one observed site, or whose site's distribution does not know its mean.
    """
    site = observed_site(model)
    means = mean(site["fn"])
    if means is None:
        raise InputError(
            f"the distribution of observed site {site['name']!r}, {type(site['fn']).__name__}, does not know its mean; "
            "expected one with a finite mean: draw from it with pyro.infer.Predictive instead"
        )
    return mean_of_draws(means, site, plates)


def observed_site(model: Trace) -> Site:
    """Find the one site of a model that observes data.

    Raises:
        InputError: where there are more, or none.
    """
    sites: list[Site] = list(model.nodes.values())
    observed = [site for site in sites if site["type"] == "sample" and site["is_observed"] and _is_data(site)]
    if len(observed) != 1:
        names = ", ".join(repr(site["name"]) for site in observed) or "none"
        raise InputError(
            f"the model has {len(observed)} observed sites ({names}); expected one, the data: "
            "read the distributions of several from log_weights((model, guide), x).model"
        )
    return observed[0]


def _is_data(site: Site) -> bool:
    """Return whether a site observes a value; ``pyro.deterministic`` and ``pyro.factor`` do not."""
    return not is_deterministic(site) and site["value"].numel() > 0
