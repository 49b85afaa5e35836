"""The training step: rows in random order, binarised anew, loss, gradient, Adam.

784-200-200-50 and back with tanh, Bernoulli, at several batch sizes B and particles K; and a convolutional model. All
contenders start from the same weights and take the same rows, and their mean loss over the first steps must be the same.
Builds (``--build PATH``) have each a process of their own and are best compared with each other, this one's path among them.
"""

import statistics
from collections.abc import Mapping
from functools import partial

from benchmarks.measure import AbsentError, Settings, compare, interleaved, ours
from benchmarks.peers import Peer, Stepper, by_hand, jax_by_hand, numpyro_svi, pyro_svi
from benchmarks.peers.build import Build
from benchmarks.peers.ours import recorded
from benchmarks.roofline import floor
from benchmarks.task import Task, conv_task, mlp_task, pixels

peers: dict[str, Peer] = {
    ours: recorded,
    "by hand, compiled": by_hand.compiled,
    "by hand, CUDA graph": by_hand.cuda_graph,
    "by hand, eager": by_hand.eager,
    "jax by hand": jax_by_hand.jitted,
    "NumPyro": numpyro_svi.svi,
    "Pyro SVI": pyro_svi.svi,
}

sizes = [(20, 1), (20, 5), (20, 50), (128, 1), (512, 1)]


def run(settings: Settings) -> None:
    """Every size, and the convolutional model."""
    for task in tasks(settings):
        measure(settings, task)


def tasks(settings: Settings) -> list[Task]:
    """What is trained; one of them where it must be quick."""
    data, _ = pixels(settings)
    if settings.quick:
        return [mlp_task(20, 5, data)]
    return [*(mlp_task(batch_size, particles, data) for batch_size, particles in sizes), conv_task(128, 1, data)]


def measure(settings: Settings, task: Task) -> None:
    """One table: what each contender takes, beside the floor."""
    contenders, absent = built(task, settings)
    losses = agreed(contenders, 20 if settings.quick else 200)
    times = interleaved(contenders, rounds=settings.rounds, seconds=settings.seconds)
    notes = {"loss, first steps": {name: f"{loss:.1f}" for name, loss in losses.items()}}
    compare(settings, f"step, {task.name} (floor: {floor(task)})", times, notes=notes, absent=absent)


def built(task: Task, settings: Settings) -> tuple[dict[str, Stepper], dict[str, str]]:
    """The contenders, and why the others are absent."""
    contenders: dict[str, Stepper] = {}
    absent: dict[str, str] = {}
    builds = {f"{ours}, {path}": partial(Build, path) for path in settings.builds}
    for name, build in (peers | builds).items():
        if build is by_hand.cuda_graph and settings.device.type != "cuda":
            continue
        try:
            contenders[name] = build(task)
        except AbsentError as reason:
            absent[name] = str(reason)
    return contenders, absent


def agreed(contenders: Mapping[str, Stepper], steps: int, tolerance: float = 0.05) -> dict[str, float]:
    """The mean loss of each contender over its first steps, in nats a datum.

    Raises:
        ValueError: where one is not like the others, so that its time is of another computation.
    """
    losses = {name: run(steps) for name, run in contenders.items()}
    middle = statistics.median(losses.values())
    if any(not abs(loss - middle) <= tolerance * abs(middle) for loss in losses.values()):
        raise ValueError(f"after {steps} steps the contenders' mean losses differ: {losses}; they do not compute the same")
    return losses
