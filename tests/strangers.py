"""A small run, as everyone's would be, and what a stranger may put in the place of its files."""

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np

from pyrovae.cli import main


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


def seal(run: Path) -> None:
    """Write the digests of a checkpoint's files anew, as whoever changes them would."""
    folder = checkpoint(run)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in manifest["sha256"]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
