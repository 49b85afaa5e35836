r"""The error of annealed importance sampling, between a lower and an upper bound."""

from typing import NamedTuple

import torch
from torch import Tensor

from pyrovae.engine.programs import PairLike, takes_pair
from pyrovae.evaluation.annealing.annealed_importance_sampling import anneal_backward, anneal_forward
from pyrovae.evaluation.annealing.batched_paths import Advance, over_batches
from pyrovae.evaluation.annealing.bidirectional_bounds import Bidirectional
from pyrovae.evaluation.annealing.path.initial_density import Start
from pyrovae.evaluation.annealing.path.path import Path
from pyrovae.evaluation.annealing.pilot_chains import run_pilot_chains
from pyrovae.evaluation.annealing.schedule import Schedule
from pyrovae.evaluation.annealing.settings import AnnealingSettings
from pyrovae.runtime.batches import DataLike


@takes_pair
def bidirectional(
    pair: PairLike,
    data: DataLike,
    num_chains: int = 16,
    temperatures: int = 1000,
    *,
    start: Start = "prior",
    schedule: Schedule = "sigmoid",
    steps: int = 10,
    seed: int = 0,
    device: torch.device | str | None = None,
    compile: bool | None = None,
    progress: bool = True,
    max_rows: int | None = None,
) -> Bidirectional:
    r"""Bracket :math:`\log p(x)` of simulated data: how far to trust annealed importance sampling with these settings.

    .. math::
        E[\log w] \le \log p(x) \le E[-\log w^{-1}], \qquad
        w \text{ of chains from } f_0, \quad w^{-1} \text{ of chains back from } z \sim p(z \mid x)

    A datum that the model draws comes with the latents that it was drawn from: an exact draw of its posterior. From there
    the reverse chains go through the same transitions, last to first. In place of each datum given the model draws one (for
    its context, if there is any); the gap between the two bounds bounds the error of
    :func:`annealed_importance_sampling` on them, and says as much of real data as the model is right about these.

    The arguments that are not listed are those of :func:`annealed_importance_sampling`.

    Args:
        pair: a ``VAE``, or the tuple ``(model, guide)`` of two Pyro programs; the model observes what it is called with.
        data: as many data as are to be drawn, and their contexts; their values do not matter.
        num_chains: the number K of chains a datum, each way.

    Returns:
        :class:`Bidirectional`: NumPy arrays, in nats; print it for a table.

    Raises:
        InputError: as :func:`annealed_importance_sampling` does, and where the model observes something else than what it is
            called with.

    References:
        | Sandwiching the marginal likelihood using bidirectional Monte Carlo (Grosse, Ghahramani & Adams, 2015)
        | https://arxiv.org/abs/1511.02543
        | On the Quantitative Analysis of Decoder-Based Generative Models (Wu, Burda, Salakhutdinov & Grosse, 2017)
        | https://arxiv.org/abs/1611.04273
    """
    settings = AnnealingSettings(
        num_chains=num_chains,
        temperatures=temperatures,
        start=start,
        schedule=schedule,
        steps=steps,
        seed=seed,
        device=device,
        compile=compile,
        progress=progress,
        max_rows=max_rows,
    )

    def bracket(template: Path, kept: int, advance: Advance) -> _Bracket:
        path, u = template.simulate()
        plan = run_pilot_chains(path, temperatures, schedule, settings.kernel)
        forward = anneal_forward(path, plan, advance).first(kept)
        reverse = anneal_backward(path, u, plan, advance).first(kept)
        failed = forward.failed + reverse.failed
        return _Bracket(forward.log_weights.T, reverse.log_weights.T, path.batch.x[:kept].cpu(), failed.T)

    parts = over_batches(pair, data, settings, bracket, directions=2)
    forward, reverse, drawn, failed = (torch.cat(values).numpy() for values in zip(*parts, strict=True))
    return Bidirectional(forward.T, reverse.T, temperatures, drawn, int(failed.sum()))


class _Bracket(NamedTuple):
    """What one batch gives, data first: log weights of both directions, the data drawn, and the failed moves."""

    forward: Tensor
    reverse: Tensor
    x: Tensor
    failed: Tensor
