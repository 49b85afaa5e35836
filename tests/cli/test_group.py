"""The command line under ``torchrun``: one run of several processes, which goes on when one of them is lost."""

import json
import os
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import cache
from pathlib import Path

import pytest
import torch
from checks import refused
from torch.distributed import HashStore

from pyrovae import VAE
from pyrovae.cli import main
from pyrovae.cli.evaluation import report
from pyrovae.cli.torchrun import meet
from pyrovae.data import Digits
from pyrovae.evaluation import LogLikelihood
from pyrovae.runs import verify
from pyrovae.runs.checkpoint import load_training, load_weights

script = """
import os, signal, sys
from pyrovae.cli import drawing, main
from pyrovae.training import checkpointing
from pyrovae.training.progress import Progress

drawing.draw = lambda path, figure: None
checkpointing.ASK_EVERY = 1
os.environ["NCCL_HOSTID"] = os.environ["RANK"]  # or NCCL refuses two processes on one device
if (os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"]) == (sys.argv[1], "0"):
    over, done = Progress.advance, []

    def lost(self, batches):
        over(self, batches)
        done.append(batches)
        if len(done) == 14:
            os.kill(os.getpid(), signal.SIGKILL)

    Progress.advance = lost
sys.exit(main(sys.argv[2:]))
"""
settings = [
    *("--data", "Digits", "--data.binarize", "dynamic", "--model.latent_dim", "2", "--training.batch_size", "150"),
    *("--training.epochs", "3", "--training.keep_minutes", "0", "--training.device", "cpu"),
    *("--training.compile", "false"),
    *("--evaluation.num_samples", "20", "--evaluation.limit", "10"),
]


@pytest.fixture(scope="module")
def torchrun(tmp_path_factory):
    """Run the command line in two processes, of one machine or of two, of which one is lost, once."""
    place = tmp_path_factory.mktemp("torchrun") / "script.py"
    place.write_text(script)

    def run(*argv: str, lost: str = "none", machines: int = 1) -> str:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "torch.distributed.run", "--max-restarts", "1", "--monitor-interval", "0.1"]
        command += ["--nnodes", str(machines), "--nproc-per-node", str(2 // machines)]
        command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{port}", "--rdzv-id", "a run"]
        command += ["--", str(place), lost, *argv]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        started = [
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(machines)
        ]
        said = [process.communicate(timeout=600) for process in started]
        printed, errors = ("".join(part) for part in zip(*said, strict=True))
        assert all(process.returncode == 0 for process in started), errors
        assert "Observed flight recorder dump signal from another rank" not in errors
        return printed

    return run


def metrics(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def whole(torchrun, tmp_path_factory):
    """The run on a device of two processes that were not lost, made once, with what it printed."""

    @cache
    def run(device: str) -> tuple[Path, str]:
        path = tmp_path_factory.mktemp("runs") / "whole"
        return path, torchrun("train", *settings, "--training.device", device, "--run", str(path))

    return run


@pytest.mark.parametrize(
    ("device", "machines"),
    [("cpu", 1), pytest.param("cpu", 2, marks=pytest.mark.slow), pytest.param("cuda:0", 1, marks=pytest.mark.cuda)],
)
def test_a_lost_process_ends_nothing(device, machines, torchrun, whole, tmp_path):
    """Two processes, the second of which is killed in the second of three epochs, have the run of two that were not."""
    (expected, said), lost = whole(device), tmp_path / "lost"
    assert said.count("log p(x) of 10 data by 20 draws each") == 1
    torchrun("train", *settings, "--training.device", device, "--run", str(lost), lost="1", machines=machines)
    assert verify(lost) == verify(expected)
    assert metrics(lost) == metrics(expected)
    for which in ("best", "last"):
        one, other = (load_weights(run / "checkpoints", which) for run in (expected, lost))
        assert all(torch.equal(value, other[name]) for name, value in one.items())
    found = [LogLikelihood.from_netcdf(run / "log_likelihood.nc").log_p for run in (expected, lost)]
    assert (found[0] == found[1]).all()


def test_one_process_goes_on_with_what_two_began(whole, tmp_path):
    run = Path(shutil.copytree(whole("cpu")[0], tmp_path / "run"))
    by_two = LogLikelihood.from_netcdf(run / "log_likelihood.nc").log_p
    assert main(["evaluate", str(run)]) == 0
    assert LogLikelihood.from_netcdf(run / "log_likelihood.nc").log_p == pytest.approx(by_two, abs=1e-4)
    assert len(load_training(run / "checkpoints")["random"]) == 2
    assert main(["train", "--resume", str(run), "--training.epochs", "4"]) == 0
    assert len(load_training(run / "checkpoints")["random"]) == 1
    assert [line["epoch"] for line in metrics(run)] == [1, 2, 3, 4]


@pytest.mark.slow
def test_goes_on_with_another_number_of_processes(torchrun, tmp_path, capsys):
    """Two begin, one goes on, with the same batches, and then two again; estimates are those of any number."""
    run = tmp_path / "run"
    torchrun("train", *settings, "--training.epochs", "1", "--run", str(run))
    assert len(load_training(run / "checkpoints")["random"]) == 2
    assert main(["train", "--resume", str(run), "--training.epochs", "2"]) == 0
    assert len(load_training(run / "checkpoints")["random"]) == 1
    torchrun("train", "--resume", str(run), "--training.epochs", "3")
    assert [line["epoch"] for line in metrics(run)] == [1, 2, 3]
    by_two = LogLikelihood.from_netcdf(run / "log_likelihood.nc").log_p
    assert main(["evaluate", str(run)]) == 0
    assert LogLikelihood.from_netcdf(run / "log_likelihood.nc").log_p == pytest.approx(by_two, abs=1e-4)


@pytest.mark.slow
def test_a_restart_does_not_go_on_with_another_run(torchrun, tmp_path):
    assert main(["train", *settings, "--training.epochs", "1", "--run", str(tmp_path / "run")]) == 0
    before = (tmp_path / "run" / "config.yaml").read_text()
    with refused(tmp_path / "run", "--resume (resume=True)", error=AssertionError):
        torchrun("train", *settings, "--training.seed", "1", "--run", str(tmp_path / "run"))
    assert (tmp_path / "run" / "config.yaml").read_text() == before


def test_processes_meet_where_others_left_their_names():
    """Three processes, after others that had the same store and are gone, have a part of it of their own."""
    store = HashStore()
    parts = []
    for _ in range(3):
        with ThreadPoolExecutor(3) as pool:
            met = list(pool.map(lambda rank: meet(store, rank, 3), range(3)))
        met[1].set("address", str(len(parts)))
        assert [part.get("address").decode() for part in met] == [str(len(parts))] * 3
        assert not any(former.get("address") == met[0].get("address") for former in parts)
        parts.append(met[2])


def test_a_process_that_does_not_come_is_waited_for_no_longer_than_the_timeout():
    store = HashStore()
    store.set_timeout(timedelta(seconds=1))
    with refused(1, 2, "processes"):
        meet(store, 0, 2)


def test_a_process_that_does_not_write_shows_nothing(tmp_path, capsys):
    data = Digits(binarize="dynamic")
    vae = VAE(data.event_shape, latent_dim=2)
    annealing = {"num_chains": 2, "temperatures": 2}
    report(vae, data, tmp_path, num_samples=20, limit=3, device="cpu", **annealing, refine=2, writes=False)
    assert capsys.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_error_of_the_input_is_said_by_all(torchrun, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    with refused(tmp_path / "run", "--resume (resume=True)", error=AssertionError):
        torchrun("train", *settings, "--run", str(tmp_path / "run"))
