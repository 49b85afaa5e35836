"""Processes that share the data each do a part, and have the result of one."""

import numpy as np
import pytest
import sharded
import torch
from together import run_two


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
@pytest.mark.filterwarnings("ignore::pyrovae.evaluation.ImportanceSamplingWarning")
def test_two_processes_have_the_result_of_one(device, tmp_path, float64):
    for said, code in run_two(sharded.__file__, tmp_path, device):
        assert code == 0, said
    alone = sharded.estimates(torch.device(device))
    for rank in (0, 1):
        with np.load(tmp_path / f"{rank}.npz") as file:
            whole = ([index for index in range(5) if index % 2 == rank], *alone)
            for name, expected in zip(file, whole, strict=True):
                np.testing.assert_array_equal(file[name], expected)


def test_what_fails_in_one_process_fails_in_all(tmp_path):
    for said, code in run_two(sharded.__file__, tmp_path, "cpu", "broken"):
        assert code == 1, said
        assert "InputError" in said, said
