"""Training on data that are read as they go, beside the same data in memory: the time of a step.

An MLP 784-200-200-50, K = 1. A ``Dataset`` is read item by item and put together by a ``DataLoader``; with a graphics card
there are also data that stay in the host's memory and are sent batch by batch. On the card the share of the time in which
no kernel runs is shown too: what a step's kernels take, by CUPTI, against what a step takes when nobody looks.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.benchmark import Measurement
from torch.utils.data import Dataset

from benchmarks.measure import Contender, Settings, compare, interleaved
from benchmarks.peers.ours import objective, pair, recorded
from benchmarks.task import Task, mlp_task, pixels
from pyrovae.data import Binarize
from pyrovae.runtime.batches import Batch, Columns, batches, prefetched
from pyrovae.training.steps import Steps

in_memory = "in memory"
profiled_steps = 200


class Items(Dataset[Tensor]):
    """Images as they would come from a disk: bytes, of which an item makes floats.

    Args:
        data: in [0, 1], of which the first axis counts the images.
    """

    def __init__(self, data: Tensor) -> None:
        self._bytes = (255 * data.cpu()).round().byte()

    def __len__(self) -> int:
        return len(self._bytes)

    def __getitem__(self, index: int) -> Tensor:
        return self._bytes[index].float() / 255


def run(settings: Settings) -> None:
    """A table for each batch size."""
    data, _ = pixels(settings)
    for batch_size in (128,) if settings.quick else (20, 128, 512):
        measure(settings, mlp_task(batch_size, 1, data))


def measure(settings: Settings, task: Task) -> None:
    """One table."""
    contenders = built(task)
    times = interleaved(contenders, rounds=settings.rounds, seconds=settings.seconds)
    notes = {"GPU idle": idle(contenders, times)} if settings.device.type == "cuda" else {}
    compare(settings, f"stream, a step of {task.name}", times, base=in_memory, notes=notes)


def built(task: Task) -> dict[str, Contender]:
    """The same steps on the same data, wherever these lie."""
    contenders: dict[str, Contender] = {in_memory: recorded(task)}
    if task.data.device.type == "cuda":
        contenders["host memory, batch by batch"] = streamed(task, task.data.cpu())
    return contenders | {"Dataset": streamed(task, Items(task.data))}


def streamed(task: Task, source: Tensor | Dataset) -> Contender:
    """What ``pyrovae.fit`` runs for data that are not in the device's memory."""
    steps = prepared(task)
    order = task.order()

    def run(number: int) -> float:
        rows = order.take(number * task.batch_size).cpu()
        means = steps.stream(read(source, rows, task))
        return -means.read("train")["train_bound"]

    return run


def prepared(task: Task) -> Steps:
    """The steps on the task's pair."""
    vae = pair(task)
    module = objective(task)(vae.model, vae.guide)
    draw = Binarize.parse("dynamic").draw
    module.start(draw(task.data[: task.batch_size]))
    optimizer = torch.optim.Adam(module.parameters(), lr=task.learning_rate)
    return Steps(module, optimizer, batch_size=task.batch_size, draw=draw)


def read(source: Tensor | Dataset, rows: Tensor, task: Task) -> Iterator[Batch]:
    """Batches of these rows on the device."""
    return prefetched(batches(Columns(source), task.batch_size, order=rows), task.data.device)


def idle(contenders: Mapping[str, Contender], times: Mapping[str, Measurement]) -> dict[str, str]:
    """The share of a step in which no kernel runs."""
    busy = {name: busy_seconds(contender) for name, contender in contenders.items()}
    return {name: f"{1 - seconds / times[name].median:.0%}" for name, seconds in busy.items()}


def busy_seconds(contender: Callable[[int], object]) -> float:
    """The seconds of a step's kernels, without copies from and to the host."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        contender(profiled_steps)
    on_device = [event for event in profiled.events() if event.device_type == DeviceType.CUDA]
    kernels = [event.time_range.elapsed_us() for event in on_device if not event.name.startswith("Mem")]
    return sum(kernels) / 1e6 / profiled_steps
