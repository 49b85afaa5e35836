"""``pyrovae train`` stopped by a signal, and gone on with."""

import json
import signal

import pytest
import yaml
from checks import assert_says

from pyrovae.cli import main
from pyrovae.runs import verify
from pyrovae.training.progress import Progress

small = [
    *("--data", "Digits", "--data.binarize", "dynamic", "--model.latent_dim", "2", "--training.batch_size", "200"),
    *("--training.epochs", "3", "--evaluation.num_samples", "20", "--evaluation.limit", "10", "--training.compile", "false"),
]


signals = [pytest.param(signal.SIGTERM, id="SIGTERM"), pytest.param(signal.SIGINT, marks=pytest.mark.slow, id="SIGINT")]


@pytest.fixture(params=signals)
def stopped(request, tmp_path, capsys, monkeypatch, undrawn):
    """A run that a signal ended in its second epoch, of three of seven batches each."""
    over, done = Progress.advance, []

    def told(self, batches):
        done.append(batches)
        if len(done) == 9:
            signal.raise_signal(request.param)
        over(self, batches)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "advance", told)
        assert main(["train", *small, "--run", str(tmp_path / "run")]) == 128 + request.param
    said = capsys.readouterr().err
    assert_says(said, 1, "epochs", 2, "batches", f"pyrovae train --resume {tmp_path / 'run'}")
    assert "Traceback" not in said
    return tmp_path / "run"


def test_goes_on_to_the_same_end(stopped, tmp_path):
    assert main(["train", "--resume", str(stopped)]) == 0
    assert main(["train", *small, "--run", str(tmp_path / "whole")]) == 0
    one, other = (json.loads((run / "summary.json").read_text()) for run in (stopped, tmp_path / "whole"))
    assert one == other
    config, expected = (yaml.safe_load((run / "config.yaml").read_text()) for run in (stopped, tmp_path / "whole"))
    assert all(config[part] == expected[part] for part in ("data", "objective", "training", "evaluation"))
    assert not config["overwrite"]
    assert verify(stopped) == verify(tmp_path / "whole")


def test_what_may_be_said_anew_and_what_not(stopped, capsys):
    def refusal(*argv: str) -> str:
        assert main(["train", "--resume", str(stopped), *argv]) == 2
        return capsys.readouterr().err

    assert_says(refusal("--training.batch_size", "10"), "training.batch_size", 10, 200, stopped)
    assert_says(refusal("--model.latent_dim", "3"), "model.latent_dim", 3, 2, stopped)
    assert_says(refusal("--training.epoch", "3"), "'training.epochs'")
    assert_says(refusal("--data.split_seed", "1"), "split.npz", "--data.X")
    assert main(["train", "--resume", str(stopped), "--training.epochs", "2", "--evaluation.limit", "5"]) == 0
    assert yaml.safe_load((stopped / "config.yaml").read_text())["training"]["epochs"] == 2
    assert len((stopped / "metrics.jsonl").read_text().splitlines()) == 2


def test_nothing_to_go_on_with(tmp_path, capsys):
    assert main(["train", "--resume", str(tmp_path / "absent")]) == 2
    assert_says(capsys.readouterr().err, "config.yaml", "missing", "pyrovae train")
