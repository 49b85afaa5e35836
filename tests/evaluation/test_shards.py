"""Processes that share the data each do a part, and have the result of one."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from programs import GaussianGuide, LinearGaussian

import pyrovae

program = """
import sys
import numpy as np, torch
from torch import distributed
from programs import GaussianGuide, LinearGaussian
import pyrovae
from pyrovae.evaluation.shards import in_shards

folder, rank, broken = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "broken"
distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
model = LinearGaussian()
guide, x = GaussianGuide(model, shift=0.1), model.data(21)
if broken and rank == 1:
    x[6:8] = torch.nan
sizes = {"max_rows": 200}
found = pyrovae.log_likelihood(model, guide, x, 50, max_weights=250, **sizes)
chains = pyrovae.annealed_importance_sampling(model, guide, x, 4, 5, steps=2, max_rows=20)
bounds = pyrovae.bidirectional(model, guide, x, 4, 5, steps=2, max_rows=20)
mine = []
assert in_shards("abcde", lambda index, item: mine.append(index) or item) == list("abcde")
np.savez(f"{folder}/{rank}.npz", mine, found.log_p, found.k_hat, chains.log_weights, bounds.reverse)
distributed.destroy_process_group()
"""


def run_two(folder, word):
    command = [sys.executable, "-W", "ignore", "-c", program, str(folder)]
    paths = {"PYTHONPATH": ":".join(sys.path)}
    both = [
        subprocess.Popen([*command, rank, word], env=os.environ | paths, stderr=subprocess.PIPE, text=True)
        for rank in ("0", "1")
    ]
    return [(process.communicate(timeout=300)[1], process.returncode) for process in both]


@pytest.mark.filterwarnings("ignore::pyrovae.evaluation.ImportanceSamplingWarning")
def test_two_processes_have_the_result_of_one(tmp_path, float64):
    assert [code for _, code in run_two(tmp_path, "whole")] == [0, 0]
    torch.manual_seed(0)
    model = LinearGaussian()
    guide, x = GaussianGuide(model, shift=0.1), model.data(21)
    found = pyrovae.log_likelihood(model, guide, x, 50, max_weights=250, max_rows=200)
    chains = pyrovae.annealed_importance_sampling(model, guide, x, 4, 5, steps=2, max_rows=20)
    bounds = pyrovae.bidirectional(model, guide, x, 4, 5, steps=2, max_rows=20)
    for rank in (0, 1):
        with np.load(tmp_path / f"{rank}.npz") as file:
            own = [index for index in range(5) if index % 2 == rank]
            whole = (own, found.log_p, found.k_hat, chains.log_weights, bounds.reverse)
            for name, expected in zip(file, whole, strict=True):
                np.testing.assert_array_equal(file[name], expected)


def test_what_fails_in_one_process_fails_in_all(tmp_path):
    for said, code in run_two(tmp_path, "broken"):
        assert code == 1
        assert "InputError" in said, said
