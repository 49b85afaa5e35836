"""What of a pair becomes a part of fitted proposals."""

from functools import partial

import pytest
import torch

from pyrovae import VAE
from pyrovae.evaluation.likelihood.tolerance.ladder import Ladder
from pyrovae.guides import DiagonalNormal, Flow, FullRankNormal, InverseAutoregressive
from pyrovae.networks import MLP
from pyrovae.runtime.batches import as_data

CHEAP = (DiagonalNormal, FullRankNormal)
DEAR = (partial(Flow, kind="maf"), Flow, InverseAutoregressive)


@pytest.mark.parametrize("guide", [*CHEAP, *DEAR])
def test_a_guide_is_left_out_where_its_density_takes_a_pass_for_each_dimension(guide):
    network = partial(MLP, hidden=(8,))
    vae = VAE((6,), 30, guide=guide, encoder=network, decoder=network)
    ladder = Ladder(vae.model, vae.guide, as_data(torch.rand(4, 6).round()), torch.device("cpu"), None)
    assert ladder.parts == (("guide", "prior") if guide in CHEAP else ("prior",))
    assert ladder.guide_error is None
