"""What counts as a difference between a recorded computation and the programs."""

import math

import pytest
import torch

from pyrovae.runtime.equivalence import GRADIENT, difference

one = torch.ones(3)


@pytest.mark.parametrize(
    ("program", "recording", "same"),
    [
        (one, one.clone(), True),
        (one, 1.2 * one, False),
        (one, one[:2], False),
        (None, None, True),
        (None, 0.0 * one, True),  # what reaches nothing may come as zeros
        (None, one, False),
        (None, math.nan * one, False),
        (one, None, False),
        (math.nan * one, math.nan * one, True),
        (one, math.nan * one, False),
        (math.inf * one, math.inf * one, True),
        (math.inf * one, -math.inf * one, False),
        (torch.tensor([1, 2]), torch.tensor([1, 2]), True),  # a counter among buffers
        (torch.tensor([1, 2]), torch.tensor([1, 3]), False),
        (one + 1j, one + 1j, True),
        (one + 1j, one - 1j, False),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_differences(program, recording, same, dtype):
    values = [
        value.to(dtype) if value is not None and value.is_floating_point() else value for value in (program, recording)
    ]
    found = difference(*({GRADIENT: {"w": value, "other": None}} for value in values))
    assert (found is None) == same
    if not same:
        assert found.startswith("the gradient of w differs by ")


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
def test_rounding_is_no_difference(dtype, rounding):
    found = [{GRADIENT: {"w": one.to(dtype) * factor}} for factor in (1.0, 1.0 + rounding, 1.1)]
    assert difference(found[0], found[1]) is None
    assert difference(found[0], found[2]) is not None
