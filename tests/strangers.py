"""A small run, as everyone's would be, and what a stranger may put in the place of its files."""

import json
import pickle
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import numpy as np

from pyrovae.cli import main
from pyrovae.runs import atomic_files, checkpoint_index, metrics_file, results, settings_files
from pyrovae.runs import checkpoint as checkpoints
from pyrovae.untrusted.bounded_files import read_json


class Bomb:
    """What leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return Path.touch, (self.mark,)


def payload(mark: Path, protocol: int = 2) -> bytes:
    """A pickle that leaves a mark; that it would is asserted by the test that uses it."""
    return pickle.dumps(Bomb(mark), protocol)


def make_run(folder: Path, *argv: str) -> Path:
    """Train a pair on 40 data of shape (2, 2), kept in ``x.npy``, and evaluate it."""
    np.save(folder / "x.npy", np.random.default_rng(0).random((40, 2, 2)).astype(np.float32))
    data = ["--data", "Array", "--data.path", str(folder / "x.npy"), "--run", str(folder / "run")]
    sizes = ["--model.latent_dim", "2", "--model.encoder", "MLP", "--model.decoder", "MLP"]
    sizes += ["--model.encoder.hidden", "[4]", "--model.decoder.hidden", "[4]"]
    few = ["--training.epochs", "2", "--evaluation.num_samples", "60", "--model.likelihood", "Normal"]
    assert main(["train", *data, *sizes, *few, *argv]) == 0
    return folder / "run"


def checkpoint(run: Path) -> Path:
    """The folder of a run's best checkpoint."""
    return run / "checkpoints" / json.loads((run / "checkpoints" / "index.json").read_text())["best"]


@contextmanager
def soon(seconds: int = 60) -> Iterator[None]:
    """Fail where something hangs."""

    def late(*_: object) -> None:
        raise TimeoutError

    former = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)


@contextmanager
def little_memory(megabytes: int) -> Iterator[None]:
    """Fail where more is held at a time than before, where the system can tell."""
    peak, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    if not peak.exists():
        yield
        return
    peak.write_text("5")  # what is held now
    before = _kibibytes(status, "VmRSS")
    yield
    assert _kibibytes(status, "VmHWM") - before < megabytes * 1024


def _kibibytes(status: Path, field: str) -> int:
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(f"{field}:"))


@contextmanager
def taken_as_sealed() -> Iterator[None]:
    """Within it every file is taken for what was written, as whoever changes one would see to: seals are no secret."""
    with ExitStack() as stack:
        for module in (checkpoints, checkpoint_index, metrics_file, settings_files, results):
            for name, stand_in in (("digest", _digest), ("digest_of_file", _digest_of_file), ("read_sealed", _read_sealed)):
                if hasattr(module, name):
                    stack.enter_context(mock.patch.object(module, name, stand_in))
        yield


class Anything(str):
    """A digest that is equal to every other."""

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False


def _digest(content: bytes) -> str:
    return Anything(atomic_files.digest(content))


def _digest_of_file(path: Path) -> str:
    return Anything(atomic_files.digest_of_file(path))


def _read_sealed(path: Path) -> dict:
    content = read_json(path)
    content.pop(atomic_files.SEAL, None)
    return content
