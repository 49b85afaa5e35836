import errno
import os
import shutil

import pytest
import torch
from checks import refused
from safetensors import safe_open
from torch import nn

from pyrovae.runs import checkpoint
from pyrovae.runs.atomic_files import read_sealed, write_sealed
from pyrovae.runs.checkpoint import Place


def save(folder, epoch: int, best: bool, value: float = 1.0) -> None:
    checkpoint.save_checkpoint(folder, Place(epoch), {"a": torch.full((3,), value)}, {"epoch": epoch}, best=best)


@pytest.fixture
def folder(tmp_path):
    save(tmp_path / "checkpoints", 1, best=True, value=1.0)
    save(tmp_path / "checkpoints", 2, best=False, value=2.0)
    return tmp_path / "checkpoints"


def test_best_and_last(folder):
    assert checkpoint.load_weights(folder)["a"][0] == 1.0
    assert checkpoint.load_weights(folder, "last")["a"][0] == 2.0
    assert checkpoint.load_training(folder)["epoch"] == 2


def test_keeps_only_what_the_index_names(folder):
    save(folder, 3, best=True)
    save(folder, 4, best=False)
    assert sorted(path.name for path in folder.iterdir()) == ["epoch-00003", "epoch-00004", "index.json"]


def test_a_write_that_was_cut_off_leaves_the_former_ones(folder, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with refused("epoch-00003", os.strerror(errno.ENOSPC), "--resume (resume=True)"):
        save(folder, 3, best=True)
    assert sorted(path.name for path in folder.iterdir()) == ["epoch-00001", "epoch-00002", "index.json"]
    monkeypatch.undo()
    assert checkpoint.load_weights(folder)["a"][0] == 1.0
    save(folder, 3, best=True, value=3.0)
    assert checkpoint.load_weights(folder)["a"][0] == 3.0


@pytest.mark.parametrize("name", ["weights.safetensors", "training.pt"])
def test_any_flipped_bit_is_found(folder, name):
    path = folder / "epoch-00001" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with refused(name, "SHA-256"):
        checkpoint.load_weights(folder)


def test_missing_and_unreadable_files_are_named(folder):
    (folder / "epoch-00001" / "weights.safetensors").unlink()
    with refused("weights.safetensors", "missing"):
        checkpoint.load_weights(folder)
    (folder / "epoch-00002" / "manifest.json").write_text("{")
    with refused("manifest.json", "JSON"):
        checkpoint.load_weights(folder, "last")
    shutil.rmtree(folder / "epoch-00002")
    with refused("index.json", "missing"):
        checkpoint.load_weights(folder)


def test_another_format_is_said(folder):
    path = folder / "epoch-00001" / "manifest.json"
    write_sealed(path, {**read_sealed(path), "format": 99})
    with refused("manifest.json", 99, 1):
        checkpoint.load_weights(folder)
    write_sealed(path, {"format": 1})
    with refused("manifest.json", "manifest"):
        checkpoint.load_weights(folder)
    path.write_text("{}")
    with refused("manifest.json", "sealed"):
        checkpoint.load_weights(folder)


def test_no_checkpoint_yet(tmp_path):
    with refused(tmp_path, "index.json"):
        checkpoint.load_weights(tmp_path)


def test_tied_layers_are_kept_once_and_come_back_under_both_names(tmp_path):
    def tied() -> nn.Module:
        module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
        module[2].weight = module[0].weight
        return module

    module, restored = tied(), tied()
    checkpoint.save_checkpoint(tmp_path / "checkpoints", Place(1), module.state_dict(), {"epoch": 1}, best=True)
    weights = checkpoint.load_weights(tmp_path / "checkpoints")
    checkpoint.load_into(restored, weights, tmp_path)
    torch.testing.assert_close(weights, dict(module.state_dict()), rtol=0, atol=0)
    torch.testing.assert_close(restored.state_dict(), module.state_dict(), rtol=0, atol=0)
    with safe_open(tmp_path / "checkpoints" / "epoch-00001" / "weights.safetensors", "pt") as file:
        assert "2.weight" not in file.keys()  # noqa: SIM118 (the file is no dict)
        assert file.metadata() == {"2.weight": "0.weight"}


def test_views_of_one_storage_are_kept_apart(tmp_path):
    whole = torch.arange(6.0).reshape(2, 3)
    views = {"whole": whole, "row": whole[0], "turned": whole.T, "wide": whole[:1].expand(4, 3)}
    checkpoint.save_checkpoint(tmp_path / "checkpoints", Place(1), views, {"epoch": 1}, best=True)
    torch.testing.assert_close(checkpoint.load_weights(tmp_path / "checkpoints"), views, rtol=0, atol=0)


@pytest.mark.parametrize(("weights", "name"), [({"weight": (2, 3)}, "bias"), ({"weight": (2, 4), "bias": (2,)}, "weight")])
def test_weights_must_fit_the_module(weights, name, tmp_path):
    module = nn.Linear(3, 2)
    before = module.weight.clone()
    with refused(tmp_path, f"'{name}'"):
        checkpoint.load_into(module, {key: torch.zeros(shape) for key, shape in weights.items()}, tmp_path)
    assert torch.equal(module.weight, before)
