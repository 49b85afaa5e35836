"""A network that mixes the data of a batch gives no density of a datum, and estimates say so."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from checks import refused
from torch import nn

import pyrovae

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore::pyrovae.engine.particles.ParticlesInTurnWarning"),
]
D = 4


def pair(decoder=lambda z: z, encoder=lambda x: x):
    torch.manual_seed(0)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(D), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(encoder(x), 1.0).to_event(1))

    return model, guide, torch.randn(5, D)


def attending(**settings):
    attention = nn.MultiheadAttention(D, 2, **settings)
    return lambda x: attention(x, x, x)[0]


class Within(nn.Module):
    """Attention over the numbers of a datum."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(1, 1, batch_first=True)

    def forward(self, x):
        rows = x.reshape(-1, D, 1)
        return self.attention(rows, rows, rows)[0].reshape(x.shape)


mixing = {
    "a decoder whose layer takes a sequence first": (pair(decoder=nn.TransformerEncoderLayer(D, 2, 8)), "x"),
    "an encoder that attends across the batch": (pair(encoder=attending()), "z"),
    "an encoder that takes the mean of the batch away": (pair(encoder=lambda x: x - x.mean(0)), "z"),
}


@pytest.mark.parametrize(("programs", "site"), mixing.values(), ids=mixing)
@pytest.mark.parametrize("use", [partial(pyrovae.log_likelihood, num_samples=20), pyrovae.evaluation.posterior_means])
def test_it_is_refused(use, programs, site):
    with refused(f"'{site}'", "batch", "batch_first=True"):
        use(programs[:2], programs[2])


@pytest.mark.filterwarnings("ignore::pyrovae.evaluation.ImportanceSamplingWarning")
def test_within_a_datum_it_may():
    model, guide, x = pair(decoder=Within())
    assert pyrovae.log_likelihood((model, guide), x, 20).log_p.shape == (5,)
