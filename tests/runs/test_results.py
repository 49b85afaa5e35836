"""Every bit of a run is looked at."""

import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from checks import refused

import pyrovae
from pyrovae import VAE
from pyrovae.runs import Run, verify
from pyrovae.runs.results import add_results, check_results, writing_results


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run with results."""
    path = tmp_path_factory.mktemp("runs") / "run"
    torch.manual_seed(0)
    pair, x = VAE((4,), latent_dim=2), torch.ones(8, 4)
    run = Run(path, config="model: {}\n", split={"train": np.arange(8)})
    pyrovae.fit(pair, x, x, epochs=3, run=run, keep_every=1, progress=False)
    with writing_results(path):
        (path / "summary.json").write_text('{"log p(x)": -3.0}')
        (path / "figures").mkdir()
        (path / "figures" / "samples.png").write_bytes(bytes(100))
    (path / "report.html").write_text("<html>")
    add_results(path, path / "report.html")
    return path


def files(run: Path) -> list[Path]:
    """All that a run holds, but for the empty file that is locked."""
    return sorted(path for path in run.rglob("*") if path.is_file() and path.name != ".lock")


def test_a_whole_run_is_accepted(run):
    assert verify(run) == 3 + 3


def test_every_flipped_bit_and_every_truncation_is_refused_by_the_name_of_the_file(run, tmp_path):
    """Seeded: 15 bits and 3 lengths a file."""
    generator = np.random.default_rng(0)
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    assert len(files(copy)) == 18
    for path in files(copy):
        content = path.read_bytes()
        damaged = [content[: int(length)] for length in generator.integers(0, len(content), 3)]
        for place in generator.integers(0, 8 * len(content), 15) if content else ():
            flipped = bytearray(content)
            flipped[place // 8] ^= 1 << (place % 8)
            damaged.append(bytes(flipped))
        for wrong in damaged:
            path.write_bytes(wrong)
            with refused(path.name):
                verify(copy)
        path.write_bytes(content)
    verify(copy)


@pytest.mark.parametrize(
    "name",
    ["config.yaml", "manifest.json", "results.json", "metrics.jsonl", "checkpoints/index.json", "figures/samples.png"],
)
def test_every_missing_file_is_named(name, run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / name).unlink()
    with refused(Path(name).name):
        verify(copy)


def test_an_evaluation_that_was_cut_off_is_told(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    with suppress(RuntimeError), writing_results(copy):
        (copy / "summary.json").write_text("{}")
        raise RuntimeError
    with refused("results.json", "missing", f"pyrovae evaluate {copy}"):
        check_results(copy)
    (copy / "samples.npz").write_bytes(b"")
    add_results(copy, copy / "samples.npz")
    check_results(copy, "samples.npz")
    with refused("summary.json", "results.json", f"pyrovae evaluate {copy}"):
        check_results(copy, "summary.json")


def test_files_of_other_names_are_none_of_a_run_s(run, tmp_path, monkeypatch):
    """Nor does it matter by which path a result is named."""
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "faces.npz").write_bytes(b"mine")
    add_results(copy, copy / "faces.npz")
    verify(copy)
    monkeypatch.chdir(tmp_path)
    (copy / "report.html").write_text("another")
    add_results(Path("copy"), copy / "report.html")
    verify(copy)
