"""Many training steps in jax: a ``lax.scan`` over the steps, all of it jitted; with convolutions, each step jitted.

The state that steps hand on is donated, so that its memory is written in place. Random numbers are jax's own threefry,
faster on a processor than its alternatives; products are in float32 proper on a graphics card too, as torch has them.
"""

import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks.measure import AbsentError
from benchmarks.peers import Stepper
from benchmarks.task import Task

Update = Callable[[Any, Any], tuple[Any, Any]]
"""From a state and a binary batch, shape ``(B, *event_shape)``, to the state after a step and the mean loss of a datum."""

unroll = 2
"""Number of steps in one turn of the loop: of 1, 2 and 4 the fastest on a processor with AVX-512."""


def stepper(task: Task, start: Callable[[Any], Any], update: Update) -> Stepper:
    """Steps from the state that ``start`` makes of the first batch, on rows binarised anew."""
    import jax
    import jax.numpy as jnp

    device, order = device_of(task.data.device.type), task.order()
    with jax.default_device(device), jax.default_matmul_precision("highest"):
        data = jnp.asarray(task.data.cpu().numpy())
        state = start(data[: task.batch_size]), jax.random.key(1)
    looped = task.convolutional and device.platform == "cpu"
    walk = (_looped if looped else _scanned)(_step(update))

    def run(steps: int) -> float:
        nonlocal state
        rows = order.take(steps * task.batch_size).reshape(steps, task.batch_size).cpu().numpy().astype(np.int32)
        with jax.default_device(device), jax.default_matmul_precision("highest"):
            *state, total = walk((*state, jnp.zeros(())), rows, data)
            return total.item() / steps

    return run


def _step(update: Update) -> Callable[..., Any]:
    """From state, key and sum of losses to those after one more step."""
    import jax
    import jax.numpy as jnp

    def step(carry: Any, some: Any, data: Any) -> Any:
        state, key, total = carry
        key, use = jax.random.split(key)
        state, loss = update(state, jax.random.bernoulli(use, data[some]).astype(jnp.float32))
        return state, key, total + loss

    return step


def _scanned(step: Callable[..., Any]) -> Callable[..., Any]:
    """All steps in one call."""
    import jax

    def walk(carry: Any, rows: Any, data: Any) -> Any:
        return jax.lax.scan(lambda carry, some: (step(carry, some, data), None), carry, rows, unroll=unroll)[0]

    return jax.jit(walk, donate_argnums=0)


def _looped(step: Callable[..., Any]) -> Callable[..., Any]:
    """A call for each step, which nothing waits for: convolutions within a scan are slow on a processor."""
    import jax

    jitted = jax.jit(step, donate_argnums=0)

    def walk(carry: Any, rows: Any, data: Any) -> Any:
        for some in rows:
            carry = jitted(carry, some, data)
        return carry

    return walk


def require(package: str = "jax") -> None:
    """Raises AbsentError where the package is not installed; leaves torch its memory on a graphics card."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if find_spec(package) is None:
        raise AbsentError("not installed")


def device_of(kind: str) -> Any:
    """Jax's name for torch's device; raises AbsentError where it has none."""
    import jax

    try:
        return jax.devices("gpu" if kind == "cuda" else kind)[0]
    except RuntimeError as error:
        raise AbsentError(f"jax has no {kind} here") from error
