"""Processes that share the data each do a part, and have the result of one."""

import numpy as np
import pytest
import sharded
import torch
from checks import assert_says
from together import run_two


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def found(request, tmp_path_factory):
    """The device, and what each of two processes finds on it."""
    folder = tmp_path_factory.mktemp("sharded")
    for said, code in run_two(sharded.__file__, folder, request.param):
        assert code == 0, said
    arrays = []
    for rank in (0, 1):
        with np.load(folder / f"{rank}.npz") as file:
            arrays.append(dict(file))
    return torch.device(request.param), arrays


@pytest.mark.filterwarnings("ignore::pyrovae.evaluation.ImportanceSamplingWarning")
def test_two_processes_have_the_result_of_one(found, float64):
    device, arrays = found
    alone = sharded.estimates(device)
    for rank in (0, 1):
        whole = ([index for index in range(5) if index % 2 == rank], *alone)
        for number, expected in enumerate(whole):
            np.testing.assert_array_equal(arrays[rank][f"arr_{number}"], expected)


def test_what_fails_in_one_process_fails_in_all(found):
    for array in found[1]:
        assert_says(str(array["said"]), "InputError")
