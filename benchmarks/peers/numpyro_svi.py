"""NumPyro: ``SVI.update`` in a ``lax.scan`` over the steps, all of it jitted; with convolutions, each step jitted.

Random numbers are jax's own threefry, faster on a processor than its alternatives; products are in float32 proper on a
graphics card too, as torch has them.
"""

import os
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import AbsentError
from benchmarks.peers import Estimator, Stepper
from benchmarks.task import Task, latent_dim


def svi(task: Task) -> Stepper:
    """``Trace_ELBO``, and with more than one particle ``RenyiELBO(alpha=0)``."""
    require()
    import jax
    import jax.numpy as jnp

    device, order, inference = device_of(task.data.device.type), task.order(), _inference(task)
    with jax.default_device(device), jax.default_matmul_precision("highest"):
        data = jnp.asarray(task.data.cpu().numpy())
        state = inference.init(jax.random.key(0), data[: task.batch_size]), jax.random.key(1)
    looped = task.convolutional and device.platform == "cpu"
    walk = (_looped if looped else _scanned)(_step(inference))

    def run(steps: int) -> float:
        nonlocal state
        rows = order.take(steps * task.batch_size).reshape(steps, task.batch_size).cpu().numpy().astype(np.int32)
        with jax.default_device(device), jax.default_matmul_precision("highest"):
            *state, total = walk((*state, jnp.zeros(())), rows, data)
            return total.item() / (steps * task.batch_size)

    return run


def log_likelihood(task: Task) -> Estimator:
    """Minus the loss of ``RenyiELBO(alpha=0)`` of one datum at a time, as it sums over a batch: its particles are draws."""
    require()
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


def _step(inference: Any) -> Callable[..., Any]:
    """From state, key and sum of losses to those after one more step."""
    import jax
    import jax.numpy as jnp

    def step(carry: Any, some: Any, data: Any) -> Any:
        state, key, total = carry
        key, use = jax.random.split(key)
        x = jax.random.bernoulli(use, data[some]).astype(jnp.float32)
        state, loss = inference.update(state, x)
        return state, key, total + loss

    return step


def _scanned(step: Callable[..., Any]) -> Callable[..., Any]:
    """All steps in one call."""
    import jax

    @jax.jit
    def walk(carry: Any, rows: Any, data: Any) -> Any:
        return jax.lax.scan(lambda carry, some: (step(carry, some, data), None), carry, rows)[0]

    return walk


def _looped(step: Callable[..., Any]) -> Callable[..., Any]:
    """A call for each step, which nothing waits for: convolutions within a scan are slow on a processor."""
    import jax

    jitted = jax.jit(step)

    def walk(carry: Any, rows: Any, data: Any) -> Any:
        for some in rows:
            carry = jitted(carry, some, data)
        return carry

    return walk


def require() -> None:
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leave torch its memory
    if find_spec("numpyro") is None:
        raise AbsentError("not installed")


def device_of(kind: str) -> Any:
    import jax

    try:
        return jax.devices("gpu" if kind == "cuda" else kind)[0]
    except RuntimeError as error:
        raise AbsentError(f"jax has no {kind} here") from error


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
