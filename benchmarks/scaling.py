"""How cost and memory grow with the number of particles: log p(x) from K draws a datum, and training steps.

Weights are drawn in pieces of as many rows as the least K makes of the data, so that time should be linear in K times B, and
memory flat in K: beside a piece there are the weights themselves, 8 bytes each and a few copies, up to a limit. The peak is
that of CUDA's allocator, or on a CPU that of a fresh process for each K, beyond what it held when the estimate began; there
the programs run eagerly, for a compiler needs more memory than all that.
"""

import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

import pyrovae
from benchmarks.likelihood import drawn, estimator, mean_weight
from benchmarks.measure import Settings, elapsed, interleaved, milliseconds, ours, table
from benchmarks.peers.ours import pair, recorded
from benchmarks.task import made_up, mlp_task, pixels

batch_size = 20


def run(settings: Settings) -> None:
    """Two tables."""
    evaluation(settings)
    training(settings)


def evaluation(settings: Settings) -> None:
    """Seconds and memory of log p(x), by the number of draws."""
    counts, number = sizes(settings)
    rows = counts[0] * number
    cells, least = [], 0.0
    for count in counts:
        alone, whole = timed(settings, number, count, rows)
        a_row = alone / count / number
        least = least or a_row
        taken = peak(settings, number, count, rows)
        cells.append([str(count), f"{whole:.3g}", f"{alone:.3g}", f"{1e6 * a_row:.3g}", f"{a_row / least:.2f}", taken])
    header = ["K", "s", "s, log p(x) alone", "µs a row of it", "relative", "MiB, peak beyond the beginning"]
    table(settings, f"scaling, log p(x) of {number} data from K draws each, {rows} rows at once", header, cells)


def sizes(settings: Settings) -> tuple[tuple[int, ...], int]:
    """The numbers of draws a datum, over two decades where it need not be quick, and of data."""
    if settings.quick:
        return (5, 50), 200
    return (50, 500, 5000), 2000 if settings.device.type == "cuda" else 80


def timed(settings: Settings, number: int, count: int, rows: int) -> tuple[float, float]:
    """The median seconds of log p(x) alone, and with errors, bounds and k-hats, once the programs have been recorded."""
    data = made_up(number)[0].to(settings.device)
    vae = pair(mlp_task(batch_size, 1, data))
    draws = drawn(vae, data.flatten(1).round(), count, compile=not settings.quick, max_rows=rows)
    alone, whole = mean_weight(vae, draws), estimator(vae, draws)
    alone()
    return median_seconds(alone), median_seconds(whole)


def median_seconds(work: Callable[[], object], times: int = 3) -> float:
    """Of so many runs."""
    return statistics.median(elapsed(work) for _ in range(times))


def peak(settings: Settings, number: int, count: int, rows: int) -> str:
    """Mebibytes that an estimate of log p(x) takes at most."""
    if settings.device.type == "cuda":
        return f"{allocated(settings.device, number, count, rows) / 2**20:.0f}"
    if not Path("/proc/self/clear_refs").exists():
        return "not available on this system"
    command = [sys.executable, "-m", "benchmarks.scaling", *map(str, (number, count, rows, torch.get_num_threads()))]
    return subprocess.run(
        command, cwd=Path(__file__).parents[1], check=True, text=True, stdout=subprocess.PIPE
    ).stdout.strip()


def allocated(device: torch.device, number: int, count: int, rows: int) -> int:
    """Bytes of CUDA's allocator at the peak, beyond those at the beginning."""
    data = made_up(number)[0].to(device)
    vae = pair(mlp_task(batch_size, 1, data))
    x = data.flatten(1).round()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    evaluated(vae, x, count, rows)
    return torch.cuda.max_memory_allocated(device) - before


def evaluated(vae: pyrovae.VAE, x: torch.Tensor, count: int, rows: int) -> None:
    """The call whose memory is measured; the networks are untrained, which is no news."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pyrovae.log_likelihood(vae, x, count, compile=False, max_rows=rows)


def resident(number: int, count: int, rows: int) -> int:
    """Bytes resident at the peak of this process, beyond those at the beginning.

    ``ru_maxrss`` would not do: a process inherits it from the one that started it.
    """
    data = made_up(number)[0]
    vae = pair(mlp_task(batch_size, 1, data))
    x = data.flatten(1).round()
    evaluated(vae, x[:2], 100, rows)  # imports what is imported where it is used
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is resident now
    before = status("VmRSS")
    evaluated(vae, x, count, rows)
    return status("VmHWM") - before


def status(field: str) -> int:
    """A number of bytes that Linux keeps of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def training(settings: Settings) -> None:
    """Milliseconds of a training step, by the number of particles."""
    data, _ = pixels(settings)
    counts = (1, 10) if settings.quick else (1, 10, 100)
    steppers = {str(count): recorded(mlp_task(batch_size, count, data)) for count in counts}
    times = interleaved(steppers, rounds=settings.rounds, seconds=settings.seconds)
    rows = [
        [count, milliseconds(timed.median), milliseconds(timed.iqr), f"{1e6 * timed.median / int(count) / batch_size:.2f}"]
        for count, timed in times.items()
    ]
    table(settings, f"scaling, a training step of {ours}, B = {batch_size}", ["K", "ms a step", "IQR", "µs a row"], rows)


if __name__ == "__main__":
    *asked, threads = map(int, sys.argv[1:])
    torch.set_num_threads(threads)
    print(f"{resident(*asked) / 2**20:.0f}")
