"""Memory of log p(x) at the peak: many draws of the guide, and two tolerances.

The trained pair on MNIST. Each peak is that of a fresh process, beyond what it held when the estimate began, and as a whole;
its programs run eagerly, for a compiler needs more memory than all that. The smaller tolerance is of fewer images, as it
takes long; memory knows the number of images only by what is kept of each.
"""

import json
import subprocess
import sys
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

import pyrovae
from benchmarks.measure import Settings, table
from benchmarks.pairs import case, from_run
from benchmarks.scaling import status
from pyrovae.evaluation import ImportanceSamplingWarning


def run(settings: Settings) -> None:
    """One table."""
    if not Path("/proc/self/clear_refs").exists():
        print("memory: not available on this system", flush=True)
        return
    with TemporaryDirectory() as folder:
        settings = replace(settings, keep=settings.keep or folder)
        case(settings, from_run)  # trained here, once, where it is not a run's
        rows = [row(settings, number, asked) for number, asked in asked_for(quick=settings.quick)]
    header = ["", "images", "MiB, peak beyond the beginning", "MiB, peak of all", "draws a datum, most", "evaluations, most"]
    table(settings, "memory of log p(x)", header, rows)


def asked_for(*, quick: bool) -> list[tuple[int, dict[str, Any]]]:
    """Return numbers of images, and what of them is asked for."""
    if quick:
        return [(8, {"num_samples": 200}), (8, {"tolerance": 0.5})]
    return [(200, {"num_samples": 5000}), (200, {"tolerance": 0.1}), (20, {"tolerance": 0.02})]


def row(settings: Settings, number: int, asked: dict[str, Any]) -> list[str]:
    """Measure one estimate in a process of its own."""
    given = asdict(settings) | {"device": "cpu"}
    command = [sys.executable, "-m", "benchmarks.memory", json.dumps([given, number, asked, torch.get_num_threads()])]
    output = subprocess.run(command, cwd=Path(__file__).parents[1], check=True, text=True, stdout=subprocess.PIPE).stdout
    name = ", ".join(f"{key} = {value:,}" for key, value in asked.items())
    return [name, f"{number:,}", *output.splitlines()[-1].split()]


def measured(settings: Settings, number: int, asked: dict[str, Any]) -> str:
    """Estimate in this process, and write its peaks, the most draws and the most evaluations of a datum."""
    measured_case = case(settings, from_run)
    pair, x = measured_case.pair, measured_case.x[:number]
    with warnings.catch_warnings(category=ImportanceSamplingWarning, action="ignore"):
        estimate(pair, x[:2], {"tolerance": 0.5})  # imports what is imported where it is used
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is resident now
        before = status("VmRSS")
        found = estimate(pair, x, asked)
    most = (found.num_samples,) * 2 if found.effort is None else (found.effort.draws.max(), found.effort.evaluations.max())
    peak = status("VmHWM")
    return f"{(peak - before) / 2**20:.0f} {peak / 2**20:.0f} {most[0]:,} {most[1]:,}"


def estimate(pair: Any, x: torch.Tensor, asked: dict[str, Any]) -> pyrovae.LogLikelihood:
    """Make the call whose memory is measured."""
    return pyrovae.log_likelihood(pair, x, compile=False, progress=False, **asked)


if __name__ == "__main__":
    given, number, asked, threads = json.loads(sys.argv[1])
    torch.set_num_threads(threads)
    print(measured(Settings(**given | {"device": torch.device("cpu")}), number, asked))
