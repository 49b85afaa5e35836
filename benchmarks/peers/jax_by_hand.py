"""The importance-weighted autoencoder by hand, in plain jax: loss, ``value_and_grad``, Adam."""

import math
from collections.abc import Callable
from typing import Any

from benchmarks.peers import Stepper
from benchmarks.peers.jax_steps import Update, require, stepper
from benchmarks.task import Task, latent_dim


def jitted(task: Task) -> Stepper:
    """Steps of Adam on :func:`loss_of` at noise drawn in the step."""
    require()
    import jax
    import jax.numpy as jnp

    from benchmarks.peers.jax_networks import networks

    def start(_: Any) -> Any:
        weights = [jax.tree.map(jnp.asarray, layers) for _, layers in networks(task)]
        first, second = (jax.tree.map(jnp.zeros_like, weights) for _ in range(2))
        return weights, (first, second, jnp.ones(()), jnp.ones(())), jax.random.key(0)

    return stepper(task, start, _update(task))


def loss_of(task: Task) -> Callable[[Any, Any, Any], Any]:
    """Minus the mean bound of x, shape ``(B, *event_shape)``, at noise of shape ``(K, B, latent_dim)``.

    Its first argument is the weights of the encoder and of the decoder.
    """
    import jax
    import jax.numpy as jnp

    from benchmarks.peers.jax_networks import networks

    (encode, _), (decode, _) = networks(task)

    def loss(weights: Any, x: Any, noise: Any) -> Any:
        loc, raw = jnp.split(encode(weights[0], x), 2, -1)
        scale = jax.nn.softplus(raw) + 1e-6
        z = loc + scale * noise
        log_p_z = -0.5 * (z**2).sum(-1)
        log_q_z = (-0.5 * noise**2 - jnp.log(scale)).sum(-1)
        logits = decode(weights[1], z.reshape(-1, latent_dim)).reshape(*noise.shape[:2], *x.shape[1:])
        log_p_x = (x * logits - jax.nn.softplus(logits)).reshape(*noise.shape[:2], -1).sum(-1)
        return -(jax.nn.logsumexp(log_p_x + log_p_z - log_q_z, 0) - math.log(len(noise))).mean()

    return loss


def _update(task: Task) -> Update:
    import jax

    value_and_grad = jax.value_and_grad(loss_of(task))

    def update(state: Any, x: Any) -> tuple[Any, Any]:
        weights, moments, key = state
        key, use = jax.random.split(key)
        noise = jax.random.normal(use, (task.particles, len(x), latent_dim))
        loss, gradient = value_and_grad(weights, x, noise)
        return (*_adam(weights, gradient, moments, task.learning_rate), key), loss

    return update


def _adam(weights: Any, gradient: Any, moments: Any, learning_rate: float) -> tuple[Any, Any]:
    """Adam (arXiv:1412.6980, algorithm 1) with its constants; the moments end with the powers of its two rates."""
    import jax
    import jax.numpy as jnp

    first, second, power1, power2 = moments
    power1, power2 = 0.9 * power1, 0.999 * power2
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradient)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradient)
    size, scale = learning_rate / (1 - power1), 1 / jnp.sqrt(1 - power2)
    moved = jax.tree.map(lambda w, m, v: w - size * m / (scale * jnp.sqrt(v) + 1e-8), weights, first, second)
    return moved, (first, second, power1, power2)
