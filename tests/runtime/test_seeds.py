"""Random numbers that are drawn again."""

import pytest
import torch

from pyrovae.runtime.seeds import GeneratorState


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_a_generator_goes_back_to_where_it_was(device):
    torch.rand(3, device=device)
    state = GeneratorState(torch.device(device))
    first = torch.rand(5, device=device)
    assert not torch.equal(torch.rand(5, device=device), first)
    state.restore()
    assert torch.equal(torch.rand(5, device=device), first)
