"""Where the time of a training step goes: what is left of it, and whose it is.

The recorded step is profiled kernel by kernel. Products are those of the BLAS that torch was built with (oneDNN's, which
torch's profiler does not see, are made by it too, but for the step that is not profiled); fused loops are inductor's; the
update is torch's fused Adam; the rest is everything between kernels, Python included.
"""

from collections.abc import Iterable
from unittest import mock

from torch._inductor import config
from torch.profiler import ProfilerActivity, profile

from benchmarks.measure import Settings, elapsed, milliseconds, table
from benchmarks.peers.ours import recorded
from benchmarks.step import sizes
from benchmarks.task import Task, mlp_task, pixels
from pyrovae.compiling import cpu_kernels as rewriting

kinds = {
    "products": ("mm_out", "aten::mm", "aten::addmm", "aten::bmm", "gemm"),
    "random numbers": ("cpu_rand", "cpu_normal", "normal_functional", "aten::uniform_", "distribution_"),
    "update": ("_fused_adam_", "_foreach_add_", "FusedAdam", "multi_tensor_apply"),
    "fused loops": ("graph_", "triton_"),
}
"""What the names of a kind's kernels have in them; the first kind that fits counts, and only the outermost call."""


def run(settings: Settings) -> None:
    """Every size of the step, or one of them."""
    data, _ = pixels(settings)
    asked = sizes[:1] if settings.quick else sizes
    tasks = [mlp_task(batch_size, particles, data) for batch_size, particles in asked]
    rows = [_row(task, 20 if settings.quick else 200) for task in tasks]
    header = ["", *kinds, "between them", "all", "all, not profiled"]
    table(settings, "ms a step, by what takes them", header, rows)


def _row(task: Task, steps: int) -> list[str]:
    times = [*_profiled(task, steps), _seconds(task, steps)]
    return [task.name, *map(milliseconds, times)]


def _seconds(task: Task, steps: int) -> float:
    """Of a step that nobody looks at."""
    run = recorded(task)
    run(steps)
    return elapsed(lambda: run(steps)) / steps


def _profiled(task: Task, steps: int) -> list[float]:
    """The seconds of each kind in a step, what is left, and their sum."""
    by_blas = mock.patch.object(rewriting, "onednn_is_faster", return_value=False)
    with by_blas, config.patch({"cpp.enable_kernel_profile": True}):
        run = recorded(task)
        run(steps)
    device = task.data.device.type
    with profile(activities=[ProfilerActivity.CUDA if device == "cuda" else ProfilerActivity.CPU]) as profiled:
        wall = elapsed(lambda: run(steps)) / steps
    events = profiled.key_averages()
    totals = [(event.key, event.self_device_time_total if device == "cuda" else event.cpu_time_total) for event in events]
    parts = [seconds / 1e6 / steps for seconds in _sums(totals)]
    return [*parts, wall - sum(parts), wall]


def _sums(totals: Iterable[tuple[str, float]]) -> list[float]:
    """The microseconds of each kind, each kernel's call within a call left out."""
    sums = dict.fromkeys(kinds, 0.0)
    entries = {key for key, _ in totals}
    wrapped = any("aoti_torch_cpu" in key for key in entries)  # a C++ wrapper's calls have torch's own within them
    for key, time in totals:
        if wrapped and key.startswith("aten::") and "_fused_adam_" not in key and "_foreach_add_" not in key:
            continue
        kind = next((kind for kind, names in kinds.items() if any(name in key for name in names)), None)
        if kind is not None:
            sums[kind] += time
    return list(sums.values())
