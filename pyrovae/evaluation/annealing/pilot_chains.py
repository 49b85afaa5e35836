"""Pilot chains, which find the tuning of the kernels and the adaptive schedule.

The kernels of the chains that count are thus fixed before these begin, and their weights stay unbiased.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from pyrovae.evaluation.annealing.chains import Chains
from pyrovae.evaluation.annealing.interpolation import interpolated
from pyrovae.evaluation.annealing.kernels.kernel import Kernel, Tuning
from pyrovae.evaluation.annealing.path.path import Path
from pyrovae.evaluation.annealing.schedule import Schedule, schedule_of_each_datum, sigmoid_schedule

ACCEPTANCE = 0.7
"""The share of accepted proposals at which the step sizes of pilot chains aim."""


class Plan(NamedTuple):
    """The schedule, and the tuning of the kernels along it, from pilot chains at ``m`` temperatures on the way.

    Attributes:
        kernel: the transition kernel.
        betas: the inverse temperatures of the schedule, shape ``(T + 1, B)``, from 0 to 1.
        places: the inverse temperatures of the pilot chains, shape ``(m,)``.
        log_step_sizes: their step sizes there, shape ``(m, B)``.
        log_scales: their standard deviations there, shape ``(m, B, D)``.
    """

    kernel: Kernel
    betas: Tensor
    places: Tensor
    log_step_sizes: Tensor
    log_scales: Tensor

    def tuning(self, t: int) -> Tuning:
        """Interpolate the tuning at the t-th temperature."""
        beta = self.betas[t : t + 1]
        tables = self.log_step_sizes, self.log_scales
        return Tuning(*(interpolated(beta, self.places, table)[0].exp() for table in tables))


def run_pilot_chains(path: Path, temperatures: int, schedule: Schedule, kernel: Kernel) -> Plan:
    """Follow the path with pilot chains, at a fifth as many temperatures, 50 to 500, and plan the chains that count.

    At each temperature step sizes move towards the acceptance that is aimed at, and scales towards the standard deviations
    of the chains.
    """
    places = sigmoid_schedule(min(max(temperatures // 5, 50), 500), path.batch.x.device)
    chains = Chains(path, path.sample_initial(), kernel)
    state = chains.state
    step_size, scale = torch.full_like(state.log_f0[0], 0.5), _scale(state.u, None)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for t, beta in enumerate(places):
        betas = beta.to(state.u.dtype).expand_as(step_size)
        for _ in range(20 if t == 0 else 1):
            chains.move(betas, Tuning(step_size, scale))
            step_size = step_size * (0.5 * (chains.accepted.to(step_size.dtype).mean(0) - ACCEPTANCE)).exp()
        scale = _scale(state.u, scale)
        found.append((step_size.log(), scale.log(), (state.log_f1 - state.log_f0).double().var(0, correction=0)))
    log_step_sizes, log_scales, variances = map(torch.stack, zip(*found, strict=True))
    betas = schedule_of_each_datum(temperatures, schedule, places, variances)
    return Plan(kernel, betas, places, log_step_sizes, log_scales)


def _scale(u: Tensor, before: Tensor | None) -> Tensor:
    """The standard deviation of chains ``(K, B, D)``, smoothed with what it was before; 1 where there is one chain."""
    if len(u) == 1:
        return torch.ones_like(u[0]) if before is None else before
    deviation = u.std(0).clamp(min=1e-6)
    return deviation if before is None else before * (deviation / before).pow(0.2)
