r"""The log likelihood :math:`\log p(x)` of any pair by annealed importance sampling."""

from typing import NamedTuple

import torch
from torch import Tensor

from pyrovae.engine.programs import PairLike, takes_pair
from pyrovae.evaluation.annealing.annealed_likelihood import AnnealedLikelihood
from pyrovae.evaluation.annealing.batched_paths import Advance, over_batches
from pyrovae.evaluation.annealing.chains import Chains
from pyrovae.evaluation.annealing.path.densities import Densities
from pyrovae.evaluation.annealing.path.initial_density import Start
from pyrovae.evaluation.annealing.path.path import Path
from pyrovae.evaluation.annealing.pilot_chains import Plan, run_pilot_chains
from pyrovae.evaluation.annealing.schedule import Schedule
from pyrovae.evaluation.annealing.settings import AnnealingSettings
from pyrovae.runtime.batches import DataLike


@takes_pair
def annealed_importance_sampling(
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
) -> AnnealedLikelihood:
    r"""Estimate :math:`\log p(x)` of each datum by chains that go from a known density to the posterior.

    .. math::
        \log w = \sum_{t=1}^{T} (\beta_t - \beta_{t-1}) \big(\log p(x, z_{t-1}) - \log f_0(z_{t-1})\big), \qquad
        z_0 \sim f_0, \quad z_t \sim K_{\beta_t}(\cdot \mid z_{t-1}), \qquad E[w] = p(x)

    with inverse temperatures :math:`0 = \beta_0 < \dots < \beta_T = 1` and Hamiltonian transitions :math:`K_\beta` that
    leave :math:`f_0^{1 - \beta}\, p(x, \cdot)^\beta` invariant. Their step sizes, for each datum and temperature, their
    scales, for each latent dimension too, and an adaptive schedule come from pilot chains
    (:mod:`pyrovae.evaluation.annealing.pilot_chains`), which follow a fifth as many temperatures, 50 to 500. From the prior
    the estimate does not depend on the encoder, and is a second opinion on :func:`pyrovae.log_likelihood`; from the guide it
    needs fewer temperatures where the guide is good. Latents with a constraint move in unconstrained space. Where the
    programs fail on the way (a matrix has no Cholesky factor, a density is NaN), a move is rejected and counted, for that
    chain alone. Where there is a process group of ``torch.distributed``, its processes share the batches of data, and each
    has the whole result.

    Args:
        pair: a ``VAE``, or the tuple ``(model, guide)`` of two Pyro programs. Chains move the continuous latents; the
            densities are summed over the outcomes of discrete ones, 128 a datum at most. Latents that are masked in both
            programs count without their masks. From the prior, only the names and shapes of the guide's sites matter.
        data: the data, as :func:`pyrovae.log_likelihood` takes them.
        num_chains: the number K of chains a datum.
        temperatures: the number T of temperatures after the first.
        start: the density :math:`f_0`, ``prior`` or ``guide``.
        schedule: ``sigmoid``, ``linear``, or ``adaptive``: each temperature costs as much of the effective sample size, for
            each datum by itself.
        steps: the leapfrog steps of a transition, each a gradient of the model.
        seed: the seed of the random numbers; the caller's random generators stay as they were.
        device: the device that each batch is moved to; by default it stays where it is.
        compile: whether to record the programs and fuse their operations; if None, where that saves time.
        progress: whether to show a progress bar over temperatures on stderr, once the call has taken two seconds.
        max_rows: at most so many rows (chains times data, and outcomes) in one pass of the programs; if None, 4,096.

    Returns:
        :class:`AnnealedLikelihood`: NumPy arrays, in nats; print it for a table.

    Raises:
        InputError: for numbers below one; where all latents are discrete, or discrete ones have more outcomes; for latents
            that lie on a sphere, or whose support depends on other latents; from the prior, where that is improper; from the
            guide, where that has a ``Delta`` for a latent, or sites beside the latents; where the programs fail at draws
            that chains begin with; and for a pair or data that cannot be weighed.

    References:
        | Annealed Importance Sampling (Neal, 2001); https://arxiv.org/abs/physics/9803008
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

    def anneal(path: Path, kept: int, advance: Advance) -> AnnealedChains:
        plan = run_pilot_chains(path, temperatures, schedule, settings.kernel)
        return anneal_forward(path, plan, advance).first(kept)

    parts = over_batches(pair, data, settings, anneal)
    log_weights, acceptance, failed = (torch.cat(values, 1) for values in zip(*parts, strict=True))
    shares, number = acceptance.mean(1).numpy(), int(failed.sum())
    return AnnealedLikelihood(log_weights.numpy(), shares, temperatures, start, schedule, steps, number)


class AnnealedChains(NamedTuple):
    """The outcome of chains that went along a path.

    Attributes:
        log_weights: shape ``(K, B)``, float64, in nats.
        acceptance: the share of chains that moved, shape ``(T - 1, B)``, float64.
        failed: the number of failed moves of each chain, shape ``(K, B)``.
    """

    log_weights: Tensor
    acceptance: Tensor
    failed: Tensor

    def first(self, data: int) -> "AnnealedChains":
        """The outcome for the first of the data, on the CPU."""
        return AnnealedChains(*(values[:, :data].cpu() for values in self))


def anneal_forward(path: Densities, plan: Plan, advance: Advance) -> AnnealedChains:
    r"""Anneal chains from draws of :math:`f_0` to the posterior."""
    return _anneal(path, path.sample_initial(), plan, range(1, len(plan.betas)), advance)


def anneal_backward(path: Densities, u: Tensor, plan: Plan, advance: Advance) -> AnnealedChains:
    r"""Anneal chains from draws ``u`` of the posterior to :math:`f_0`, through the same kernels, last to first."""
    return _anneal(path, u, plan, range(len(plan.betas) - 1, 0, -1), advance)


def _anneal(path: Densities, u: Tensor, plan: Plan, times: range, advance: Advance) -> AnnealedChains:
    chains = Chains(path, u, plan.kernel)
    state = chains.state
    log_weights, accepted = torch.zeros_like(state.log_f0, dtype=torch.float64), []
    for t in times:
        step = plan.betas[t] - plan.betas[t - 1]
        log_weights = log_weights + step * (state.log_f1.double() - state.log_f0.double())
        advance()
        if t != times[-1]:
            between = t if times.step > 0 else t - 1
            chains.move(plan.betas[between], plan.tuning(between))
            accepted.append(chains.accepted.double().mean(0))
    shares = torch.stack(accepted) if accepted else log_weights.new_zeros(0, log_weights.shape[1])
    return AnnealedChains(log_weights, shares, chains.failed)
