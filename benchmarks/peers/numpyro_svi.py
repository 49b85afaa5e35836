"""NumPyro: ``SVI.update``, as :mod:`benchmarks.peers.jax_steps` runs it."""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.peers import Estimator, Stepper
from benchmarks.peers.jax_steps import require, stepper
from benchmarks.task import Task, latent_dim


def svi(task: Task) -> Stepper:
    """``Trace_ELBO``, and with more than one particle ``RenyiELBO(alpha=0)``; both sum over the batch."""
    require("numpyro")
    import jax

    inference = _inference(task)

    def update(state: Any, x: Any) -> tuple[Any, Any]:
        state, loss = inference.update(state, x)
        return state, loss / task.batch_size

    return stepper(task, lambda x: inference.init(jax.random.key(0), x), update)


def log_likelihood(task: Task) -> Estimator:
    """Minus the loss of ``RenyiELBO(alpha=0)`` of one datum at a time, as it sums over a batch: its particles are draws."""
    require("numpyro")
    import jax
    import jax.numpy as jnp
    from numpyro.infer import RenyiELBO

    model, guide = programs(task)

    @partial(jax.jit, static_argnums=2)
    def log_p(x: Any, keys: Any, draws: int) -> Any:
        loss = RenyiELBO(alpha=0, num_particles=draws).loss
        return jax.lax.map(lambda each: -loss(each[1], {}, model, guide, each[0][None]), (x, keys))

    def estimate(x: Tensor, draws: int, seed: int) -> Tensor:
        keys = jax.random.split(jax.random.key(seed), len(x))
        return torch.tensor(np.asarray(log_p(jnp.asarray(x.numpy()), keys, draws)))

    return estimate


def _inference(task: Task) -> Any:
    import numpyro
    from numpyro.infer import SVI, RenyiELBO, Trace_ELBO

    elbo = Trace_ELBO() if task.particles == 1 else RenyiELBO(alpha=0, num_particles=task.particles)
    return SVI(*programs(task), numpyro.optim.Adam(task.learning_rate), elbo)


def programs(task: Task) -> Any:
    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    from benchmarks.peers.jax_networks import networks

    (encode, encoder), (decode, decoder) = networks(task)
    event_dims = task.data.dim() - 1

    def model(x: Any) -> None:
        layers = numpyro.param("decoder", decoder)
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(latent_dim), 1.0).to_event(1))
            numpyro.sample("x", dist.Bernoulli(logits=decode(layers, z)).to_event(event_dims), obs=x)

    def guide(x: Any) -> None:
        loc, raw = jnp.split(encode(numpyro.param("encoder", encoder), x), 2, -1)
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", dist.Normal(loc, jax.nn.softplus(raw) + 1e-6).to_event(1))

    return model, guide
