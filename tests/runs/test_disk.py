"""A disk that is full, a folder that must not be written, a folder that is gone: one message, and nothing lost."""

import errno
import os
import shutil

import pytest
import torch
from checks import refused

import pyrovae
from pyrovae import VAE
from pyrovae.runs import Run
from pyrovae.runs.checkpoint import load_weights
from pyrovae.training.progress import Progress


def train(folder, **options):
    torch.manual_seed(0)
    pair, x = VAE((4,), latent_dim=2), torch.ones(8, 4)
    pyrovae.fit(pair, x, x, run=Run(folder, resume=True), batch_size=4, progress=False, **options)


@pytest.fixture
def run(tmp_path):
    """Two epochs of three."""
    train(tmp_path / "run", epochs=2)
    return tmp_path / "run"


class Disk:
    """A disk that takes so many bytes more, through whatever file they are written."""

    def __init__(self, room):
        self.left = room

    def fsync(self, descriptor):
        size = os.fstat(descriptor).st_size
        self.left -= size
        if self.left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("room", [0, 200, 1000, 5000, 20_000])
def test_a_full_disk(room, run, monkeypatch):
    """Filled at the metrics, the weights, the state, the manifest, the index: what was there is there, and goes on."""
    before = load_weights(run / "checkpoints", "last")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", Disk(room).fsync)
        with refused(os.strerror(errno.ENOSPC), "--resume (resume=True)"):
            train(run, epochs=60)
    assert load_weights(run / "checkpoints", "last").keys() == before.keys()
    assert not [*run.rglob("*.partial")]
    train(run, epochs=3)
    train(run.parent / "whole", epochs=3)
    for name, value in load_weights(run.parent / "whole" / "checkpoints", "last").items():
        assert torch.equal(value, load_weights(run / "checkpoints", "last")[name])


def mounted(folder) -> bool:
    return os.system(f"mount -t tmpfs -o size=20m tmpfs {folder} 2>/dev/null") == 0


def test_a_small_file_system(tmp_path):
    """A real one that fills up, where one may be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if not mounted(disk):
        pytest.skip("mounting is refused")
    try:
        with refused(os.strerror(errno.ENOSPC), "--resume (resume=True)"):
            train(disk / "run", epochs=500, keep_every=1)
        weights = load_weights(disk / "run" / "checkpoints", "last")
        assert all(value.isfinite().all() for value in weights.values())
    finally:
        os.system(f"umount -l {disk}")


def test_a_folder_that_must_not_be_written(run, monkeypatch):
    def denied(path, *_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    before = load_weights(run / "checkpoints", "last")
    monkeypatch.setattr(os, "open", denied)
    with refused(os.strerror(errno.EACCES)):
        train(run, epochs=3)
    monkeypatch.undo()
    after = load_weights(run / "checkpoints", "last")
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_folder_that_is_gone(tmp_path, monkeypatch):
    over = Progress.advance

    def vanish(self, steps):
        over(self, steps)
        shutil.rmtree(tmp_path / "run", ignore_errors=True)

    monkeypatch.setattr(Progress, "advance", vanish)
    with refused(".lock", "gone"):
        train(tmp_path / "run", epochs=2)
