"""Pilot chains, which find what chains that count are told: step sizes, scales and the temperatures themselves.

So the kernels of those that count are fixed before they begin, and their weights stay unbiased.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from pyrovae.evaluation.annealing.hmc import Chains, Kernel
from pyrovae.evaluation.annealing.path import Path

Schedule = Literal["sigmoid", "linear", "adaptive"]

ACCEPTANCE = 0.7
"""The share of accepted proposals that pilot chains aim at."""
STEEPNESS = 4.0
"""Of the sigmoid schedule."""


class Plan(NamedTuple):
    """What pilot chains found, at ``m`` temperatures on the way.

    Attributes:
        betas: the temperatures to take, shape ``(T + 1, B)``, from 0 to 1.
        places: the temperatures of the pilot chains, shape ``(m,)``.
        log_step_sizes: what step sizes they took there, shape ``(m, B)``.
        log_scales: how wide they lay there, shape ``(m, B, D)``.
    """

    betas: Tensor
    places: Tensor
    log_step_sizes: Tensor
    log_scales: Tensor

    def kernel(self, t: int) -> Kernel:
        """Of the transitions at a temperature."""
        beta = self.betas[t : t + 1]
        tables = self.log_step_sizes, self.log_scales
        return Kernel(*(_interpolated(beta, self.places, table)[0].exp() for table in tables))


def plan(path: Path, temperatures: int, schedule: Schedule, steps: int) -> Plan:
    r"""Follow the path with pilot chains, and find how those that count are to follow it.

    At each of some temperatures step sizes move towards the acceptance that is aimed at, and scales towards the spread of
    the chains. The adaptive schedule has temperatures that cut
    :math:`\int \mathrm{sd}(\log f_1 - \log f_0)\, d\beta` into equal parts, so that each costs as much of the effective
    sample size: the conditional one of a small step is :math:`1 - (\Delta\beta)^2 \mathrm{Var}(\log f_1 - \log f_0)`.
    """
    places = sigmoid_schedule(min(max(temperatures // 5, 50), 500), path.batch.x.device)
    chains = Chains(path, path.start(), steps)
    state = chains.state
    step_size, scale = torch.full_like(state.log_f0[0], 0.5), _spread(state.u, None)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for t, beta in enumerate(places):
        betas = beta.to(state.u.dtype).expand_as(step_size)
        for _ in range(20 if t == 0 else 1):
            chains.move(betas, Kernel(step_size, scale))
            step_size = step_size * (0.5 * (chains.accepted.to(step_size.dtype).mean(0) - ACCEPTANCE)).exp()
        scale = _spread(state.u, scale)
        found.append((step_size.log(), scale.log(), (state.log_f1 - state.log_f0).double().var(0, correction=0)))
    log_step_sizes, log_scales, variances = map(torch.stack, zip(*found, strict=True))
    return Plan(_betas(temperatures, schedule, places, variances), places, log_step_sizes, log_scales)


def sigmoid_schedule(temperatures: int, device: torch.device) -> Tensor:
    """Temperatures from 0 to 1 that lie close at both ends, shape ``(temperatures + 1,)``, float64."""
    line = torch.linspace(-STEEPNESS, STEEPNESS, temperatures + 1, dtype=torch.float64, device=device).sigmoid()
    return (line - line[0]) / (line[-1] - line[0])


def _betas(temperatures: int, schedule: Schedule, coarse: Tensor, variances: Tensor) -> Tensor:
    """The schedule of each datum, shape ``(T + 1, B)``, float64."""
    if schedule == "sigmoid":
        return sigmoid_schedule(temperatures, coarse.device)[:, None].expand(-1, variances.shape[1])
    line = torch.linspace(0.0, 1.0, temperatures + 1, dtype=torch.float64, device=coarse.device)[:, None]
    if schedule == "linear":
        return line.expand(-1, variances.shape[1])
    deviation = variances.nan_to_num(posinf=0.0).sqrt()
    pieces = (deviation[1:] + deviation[:-1]) / 2.0 * coarse.diff()[:, None] + 1e-12
    length = torch.cat([torch.zeros_like(pieces[:1]), pieces.cumsum(0)])
    return _interpolated(line * length[-1], length, coarse[:, None].expand_as(length))


def _interpolated(at: Tensor, places: Tensor, values: Tensor) -> Tensor:
    """Values ``(n, B, ...)``, known at ascending places ``(n,)`` or ``(n, B)``, at others ``(m, B)``: on straight lines."""
    places = (places if places.dim() == 2 else places[:, None].expand(-1, at.shape[1])).contiguous()
    upper = torch.searchsorted(places.T.contiguous(), at.T.contiguous()).T.clamp(1, len(places) - 1)
    low, high = places.gather(0, upper - 1), places.gather(0, upper)
    share = ((at - low) / (high - low)).clamp(0.0, 1.0)
    more = [None] * (values.dim() - 2)
    index = upper[(..., *more)].expand(-1, *values.shape[1:])
    below, above = values.gather(0, index - 1), values.gather(0, index)
    return below + share[(..., *more)].to(values.dtype) * (above - below)


def _spread(u: Tensor, before: Tensor | None) -> Tensor:
    """The standard deviation of chains ``(K, B, D)``, following slowly what it was before; 1 where there is one chain."""
    if len(u) == 1:
        return torch.ones_like(u[0]) if before is None else before
    deviation = u.std(0).clamp(min=1e-6)
    return deviation if before is None else before * (deviation / before).pow(0.2)
