"""A run of the first released format, which must load for ever. Nobody writes it anew."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from pyrovae import load
from pyrovae.cli import main
from pyrovae.cli.records import read_summary
from pyrovae.evaluation import LogLikelihood, posterior_means
from pyrovae.runs import verify
from pyrovae.runs.checkpoint import load_training

kept = Path(__file__).parents[1] / "fixtures" / "run_of_format_1"


@pytest.fixture
def run(tmp_path) -> Path:
    """A copy."""
    return shutil.copytree(kept, tmp_path / "run")


def test_it_is_whole_and_loads():
    assert verify(kept) == 1 + 2
    vae = load(kept)
    means = posterior_means(vae, torch.ones(1, 8, 8))
    torch.testing.assert_close(means, torch.tensor([[0.22638, 0.19496]]), rtol=0, atol=1e-4)
    assert len(LogLikelihood.from_netcdf(kept / "log_likelihood.nc").log_p) == 10
    assert read_summary(kept)["log p(x), bias-corrected"] == pytest.approx(-27.2352, abs=1e-4)
    assert load_training(kept / "checkpoints")["settings"]["batch_size"] == 100


def test_it_goes_on(run):
    """And is evaluated again."""
    assert main(["train", "--resume", str(run), "--training.epochs", "4"]) == 0
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert verify(run) > 3
