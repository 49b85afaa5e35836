"""Survival: training that is killed at random moments goes on, and ends as if it had not been.

A child process trains into a run folder, with a checkpoint after every step, and is killed by SIGKILL after a random time;
then its folder is looked at, and another child goes on with it, until one comes to the end. Then all is compared, bit for
bit, with the run that was left alone. SIGTERM must end with 143 after a checkpoint.
"""

import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

import pyrovae
from benchmarks.measure import Settings, table
from pyrovae.errors import InputError
from pyrovae.runs import verify
from pyrovae.runs.checkpoint import load_training, load_weights, read_manifest
from pyrovae.runs.checkpoint_index import has_checkpoint

epochs, batch_size = 6, 16


def run(settings: Settings) -> None:
    """One table."""
    kills, stops = (1, 1) if settings.quick else (200, 20)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        rows.append(["SIGKILL, eager", *killed(Path(folder), kills, compiled=False)])
        if not settings.quick:
            rows.append(["SIGKILL, compiled", *killed(Path(folder), kills // 10, compiled=True)])
        rows.append(["SIGTERM, eager", *stopped(Path(folder), stops)])
    header = ["", "signals", "within a checkpoint", "within an epoch", "unreadable", "steps lost", "runs", "bit-equal"]
    table(settings, f"{epochs} epochs of 5 steps, a checkpoint after each step", header, rows)


def killed(folder: Path, kills: int, compiled: bool) -> list[str]:
    """Of so many kills, what is counted."""
    whole, seconds = folder / f"whole-{compiled}", time.perf_counter()
    assert wait(started(whole, compiled)) == 0
    seconds, chance, seen = time.perf_counter() - seconds, random.Random(0), Counter()
    while seen["signals"] < kills:
        run = folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        while not ended(run, compiled, chance.uniform(0.0, 1.2 * seconds), signal.SIGKILL, seen):
            pass
        seen["runs"] += 1
        seen["equal"] += same(outcome(whole), outcome(run))
    return cells(seen)


def stopped(folder: Path, stops: int) -> list[str]:
    """Of so many SIGTERMs, the same; exits with another status than 143 are counted as unreadable."""
    whole, chance, seen = folder / "whole-False", random.Random(1), Counter()
    while seen["signals"] < stops:
        run = folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        while not ended(run, False, chance.uniform(0.0, 0.4), signal.SIGTERM, seen):
            pass
        seen["runs"] += 1
        seen["equal"] += same(outcome(whole), outcome(run))
    return cells(seen)


def ended(run: Path, compiled: bool, after: float, number: int, seen: Counter) -> bool:
    """Whether the training came to its end before a signal after so many seconds; what the signal left is counted."""
    before = batches(run)
    process = started(run, compiled)
    while number == signal.SIGTERM and not has_begun(run, process):
        time.sleep(0.01)
    time.sleep(after)
    send(number, process)
    status = wait(process)
    if status == 0:
        return True
    seen["signals"] += 1
    seen["within a checkpoint"] += any(run.rglob("*.partial"))
    seen["unreadable"] += number == signal.SIGTERM and status != 128 + number
    try:
        if has_checkpoint(run / "checkpoints"):
            verify(run)
            load_training(run / "checkpoints")
        seen["steps lost"] += max(0, before - batches(run))
        seen["within an epoch"] += batches(run) % 5 > 0
    except InputError as error:
        seen["unreadable"] += 1
        print(error, file=sys.stderr)
    return False


def has_begun(run: Path, process: BaseProcess) -> bool:
    """Whether this process trains; before that a signal ends it as any program."""
    try:
        return json.loads((run / "lock.json").read_text())["process"] == process.pid
    except (OSError, ValueError):
        return process.exitcode is not None


def batches(run: Path) -> int:
    """The number of steps in the last checkpoint."""
    if not (run.exists() and has_checkpoint(run / "checkpoints")):
        return 0
    manifest = read_manifest(run / "checkpoints", "last")
    return 5 * manifest["epoch"] + manifest["batches"]


def started(run: Path, compiled: bool) -> BaseProcess:
    """A process that trains, or goes on training; it is forked from one that has imported all and computed nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=child, args=(run, compiled))
    process.start()
    return process


def send(number: int, process: BaseProcess) -> None:
    """Send a signal to a process that may have ended."""
    if process.exitcode is None and process.pid is not None:
        os.kill(process.pid, number)


def child(run: Path, compiled: bool) -> None:
    """Train, and end as the command line does."""
    sys.stderr = sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    try:
        train(run, compiled)
        os._exit(0)
    except KeyboardInterrupt as stop:
        os._exit(128 + getattr(stop, "signal", signal.SIGINT))
    except BaseException:
        os._exit(1)


def train(run: Path, compiled: bool) -> None:
    """Five steps an epoch, on one thread, as a process that was forked must."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    pair, x = pyrovae.VAE((4,), latent_dim=2), torch.bernoulli(torch.full((90, 4), 0.5))
    options = {"epochs": epochs, "batch_size": batch_size, "compile": compiled, "keep_minutes": 0.0, "progress": False}
    pyrovae.fit(pair, x[:70], x[70:], run=str(run), resume=True, **options)


def wait(process: BaseProcess) -> int | None:
    """The exit status; minus the signal that killed it."""
    process.join()
    return process.exitcode


def outcome(run: Path) -> Any:
    """All that a run ends with, but the seconds that it took."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    weights = [load_weights(run / "checkpoints", which) for which in ("best", "last")]
    training = load_training(run / "checkpoints")
    return [{**line, "seconds": None} for line in lines], weights, training["optimizer"], training["random"][0]["cpu"]


def same(one: Any, other: Any) -> bool:
    """Whether all is equal to the bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def cells(seen: Counter) -> list[str]:
    """What was counted."""
    names = ("signals", "within a checkpoint", "within an epoch", "unreadable", "steps lost", "runs")
    return [*(str(seen[name]) for name in names), f"{seen['equal']} of {seen['runs']}"]
