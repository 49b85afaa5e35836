"""Stock Pyro, as its VAE tutorial has it: functions with ``pyro.module`` statements, and ``SVI.step``.

Validation is off, which its example recommends for speed.
"""

import math
from itertools import count

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, RenyiELBO, Trace_ELBO
from pyro.infer.importance import vectorized_importance_weights
from torch import Tensor
from torch.nn.functional import softplus

from benchmarks.peers import Estimator, Stepper
from benchmarks.peers.by_hand import binarize
from benchmarks.task import Task, latent_dim

_number = count()


def svi(task: Task) -> Stepper:
    """``SVI`` with ``Trace_ELBO``, and with more than one particle ``RenyiELBO(alpha=0)``."""
    inference = SVI(*_programs(task), pyro.optim.Adam({"lr": task.learning_rate}), _elbo(task.particles))
    order = task.order()

    def run(steps: int) -> float:
        with pyro.validation_enabled(False):
            rows = order.take(steps * task.batch_size).split(task.batch_size)
            return sum(inference.step(binarize(task.data[some])) for some in rows) / (steps * task.batch_size)

    return run


def log_likelihood(task: Task) -> Estimator:
    """``vectorized_importance_weights``, of one datum at a time, as its weights are joint over a batch."""
    model, guide = _programs(task)

    def of_one(x: Tensor, draws: int) -> Tensor:
        weights, *_ = vectorized_importance_weights(model, guide, x[None], num_samples=draws, max_plate_nesting=1)
        return weights.logsumexp(0) - math.log(draws)

    @torch.no_grad()
    def estimate(x: Tensor, draws: int, seed: int) -> Tensor:
        pyro.set_rng_seed(seed)
        with pyro.validation_enabled(False):
            return torch.stack([of_one(one, draws) for one in x])

    return estimate


def _elbo(particles: int) -> Trace_ELBO | RenyiELBO:
    if particles == 1:
        return Trace_ELBO(max_plate_nesting=1)
    return RenyiELBO(alpha=0, num_particles=particles, vectorize_particles=True, max_plate_nesting=1)


def _programs(task: Task):
    """Model and guide; their names in Pyro's store are their own, so that two such pairs can be timed in turn."""
    encoder, decoder = task.networks()
    number, event_dims = next(_number), task.data.dim() - 1
    origin = torch.zeros(latent_dim, device=task.data.device)

    def model(x: Tensor) -> None:
        pyro.module(f"decoder {number}", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(origin, 1.0).to_event(1))
            logits = decoder(z.reshape(-1, latent_dim)).reshape(*z.shape[:-1], *x.shape[1:])
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(event_dims), obs=x)

    def guide(x: Tensor) -> None:
        pyro.module(f"encoder {number}", encoder)
        with pyro.plate("data", len(x)):
            loc, raw = encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, softplus(raw) + 1e-6).to_event(1))

    return model, guide
