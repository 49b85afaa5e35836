"""Single tries of annealed chains at some number of temperatures: from fitted proposals, and from the prior."""

import torch

from pyrovae.evaluation.annealing.annealed_importance_sampling import anneal_forward
from pyrovae.evaluation.annealing.chains import Chains
from pyrovae.evaluation.annealing.kernels.hamiltonian import Hamiltonian
from pyrovae.evaluation.annealing.kernels.kernel import Kernel, Tuning
from pyrovae.evaluation.annealing.path.path import Path
from pyrovae.evaluation.annealing.pilot_chains import ACCEPTANCE, Plan, run_pilot_chains
from pyrovae.evaluation.estimates.estimate import LogLikelihood
from pyrovae.evaluation.fitting.fitted_path import FittedPath
from pyrovae.evaluation.fitting.normal_mixtures import NormalMixtures

CHAINS, STEPS = 64, 4
"""Chains from a fitted proposal, and the leapfrog steps of their transitions."""
PRIOR_CHAINS, PRIOR_STEPS = 16, 10
"""Chains from the prior, and the leapfrog steps of their transitions."""
GRADIENT = 3
"""Evaluations of the model that a gradient counts as: one, and its derivative at twice the cost."""
WIDER = 1.1
"""Factor of the fitted standard deviations, with which chains begin."""
TUNING_MOVES = 15
"""Transitions that find the step size."""


def from_fitted(path: Path, fitted: NormalMixtures, temperatures: int) -> LogLikelihood:
    """Anneal from fitted proposals, with one step size for all temperatures."""
    start = FittedPath(path, fitted.widened(WIDER), CHAINS)
    plan = _plan(start, temperatures, Hamiltonian(STEPS))
    return LogLikelihood.from_log_weights(anneal_forward(start, plan, _nothing).log_weights)


def cost_from_fitted(temperatures: int) -> int:
    """Count the evaluations of :func:`from_fitted` for a datum."""
    return GRADIENT * CHAINS * (STEPS * (temperatures + TUNING_MOVES) + 2)


def from_prior(path: Path, temperatures: int) -> LogLikelihood:
    """Anneal from the prior, where ``path`` begins."""
    plan = run_pilot_chains(path, temperatures, "sigmoid", Hamiltonian(PRIOR_STEPS))
    return LogLikelihood.from_log_weights(anneal_forward(path, plan, _nothing).log_weights)


def cost_from_prior(temperatures: int) -> int:
    """Count the evaluations of :func:`from_prior` for a datum; pilot chains take a fifth as many temperatures, or 50."""
    return int(GRADIENT * PRIOR_CHAINS * PRIOR_STEPS * (temperatures + 20 + max(temperatures / 5, 50)))


def temperatures_from_prior(evaluations: int) -> int:
    """Compute how many temperatures so many evaluations of a datum allow :func:`from_prior`, up to 2,500."""
    moves = evaluations / (GRADIENT * PRIOR_CHAINS * PRIOR_STEPS) - 20
    return int(min(moves - 50, max(moves / 1.2, 0)))


def _plan(path: FittedPath, temperatures: int, kernel: Kernel) -> Plan:
    """Find the step size at the posterior, and lay the temperatures out evenly."""
    u = path.sample_initial()
    chains = Chains(path, u, kernel)
    step_size, scale = u.new_full(u.shape[1:2], u.shape[-1] ** -0.25), torch.ones_like(u[0])
    for _ in range(TUNING_MOVES):
        chains.move(torch.ones_like(step_size), Tuning(step_size, scale))
        step_size = step_size * (0.5 * (chains.accepted.to(u.dtype).mean(0) - ACCEPTANCE)).exp()
    places = torch.tensor([0.0, 1.0], dtype=torch.float64, device=u.device)
    betas = torch.linspace(0.0, 1.0, temperatures + 1, dtype=torch.float64, device=u.device)
    log_step_sizes, log_scales = (value.log().expand(2, *value.shape) for value in (step_size, scale))
    return Plan(kernel, betas[:, None].expand(-1, u.shape[1]), places, log_step_sizes, log_scales)


def _nothing() -> None:
    """Do nothing after a temperature."""
