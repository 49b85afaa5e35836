"""Processes that share the data each do a part, and have the result of one."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sharded
import torch


def run_two(folder: Path, device: str, *words: str) -> list[tuple[str, int]]:
    """What each of two processes said, and its exit status."""
    command = [sys.executable, "-W", "ignore", str(Path(sharded.__file__)), str(folder)]
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path), "TOGETHER_ON": device}
    both = [
        subprocess.Popen([*command, rank, *words], env=environment, stderr=subprocess.PIPE, text=True) for rank in ("0", "1")
    ]
    return [(process.communicate(timeout=300)[1], process.returncode) for process in both]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
@pytest.mark.filterwarnings("ignore::pyrovae.evaluation.ImportanceSamplingWarning")
def test_two_processes_have_the_result_of_one(device, tmp_path, float64):
    for said, code in run_two(tmp_path, device):
        assert code == 0, said
    alone = sharded.estimates(torch.device(device))
    for rank in (0, 1):
        with np.load(tmp_path / f"{rank}.npz") as file:
            whole = ([index for index in range(5) if index % 2 == rank], *alone)
            for name, expected in zip(file, whole, strict=True):
                np.testing.assert_array_equal(file[name], expected)


def test_what_fails_in_one_process_fails_in_all(tmp_path):
    for said, code in run_two(tmp_path, "cpu", "broken"):
        assert code == 1
        assert "InputError" in said, said
