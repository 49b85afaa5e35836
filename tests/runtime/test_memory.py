"""How much is held in memory at a time."""

import pytest
import torch

import pyrovae
from pyrovae.evaluation.likelihood.draws import Draws
from pyrovae.runtime.batches import Columns
from pyrovae.runtime.memory import MAX_WEIGHTS, rows_in_cache, together

cpu, cuda = torch.device("cpu"), torch.device("cuda")


def test_rows_of_many_numbers_are_few():
    assert [rows_in_cache(cpu, numbers) for numbers in (0, 1, 64, 384)] == [4096] * 4
    assert rows_in_cache(cpu, 784) == 2006
    assert rows_in_cache(cpu, 10**9) == 1
    assert rows_in_cache(cuda, 784) == 4096


def test_a_datum_has_some_draws_together_where_there_are_as_many():
    assert [together(cpu, number) for number in (1, 7, 5000)] == [1, 7, 100]
    assert together(cuda, 5000) == 1


@pytest.mark.parametrize(
    ("number", "data", "expected"), [(5000, 1000, (100, 20)), (50_000, 100, (100, 20)), (7, 300, (7, 150))]
)
def test_pieces_of_mnist(number, data, expected, monkeypatch):
    """Draws of a datum, and data, in one run of the programs."""
    vae = pyrovae.VAE((784,), latent_dim=2)
    draws = Draws(vae.model, vae.guide, Columns(torch.zeros(data, 784)), number, cpu, False, None, MAX_WEIGHTS)
    first = next(draws.batches())
    shapes = []
    monkeypatch.setattr(draws, "_weigh", lambda batch: shapes.append(len(batch)) or torch.zeros(draws._at_once, len(batch)))
    draws.log_weights(first)
    assert (draws._at_once, shapes[0]) == expected
