"""Data of bools, integers and bytes: the density of the numbers that they are, or an error that names type and remedy."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from checks import refused
from torch import nn

import pyrovae
from pyrovae import ELBO, VAE, likelihoods
from pyrovae.engine.log_weights import log_weights

pytestmark = pytest.mark.usefixtures("float64")
bits = torch.tensor([0, 1, 1, 0])
types = (torch.bool, torch.uint8, torch.int32, torch.int64)


def two(z):
    return torch.stack([z, torch.zeros_like(z)], -1)


families = {
    "Bernoulli": lambda z: dist.Bernoulli(logits=z),
    "Bernoulli, masked": lambda z: dist.Bernoulli(logits=z).mask(torch.tensor(True)),
    "Bernoulli, a vector": lambda z: dist.Bernoulli(logits=two(z)).to_event(1),
    "Categorical": lambda z: dist.Categorical(logits=two(z)),
    "OneHotCategorical": lambda z: dist.OneHotCategorical(logits=two(z)),
    "Poisson": lambda z: dist.Poisson(z.exp()),
    "Binomial": lambda z: dist.Binomial(3, logits=z),
    "NegativeBinomial": lambda z: dist.NegativeBinomial(3.0, logits=z),
    "Geometric": lambda z: dist.Geometric(logits=z),
    "Normal": lambda z: dist.Normal(z, 1.0),
}
refusals = {(name, kind) for name in families if "Bernoulli" in name for kind in types} | {
    ("Binomial", torch.bool),
    ("Geometric", torch.bool),
    ("Geometric", torch.uint8),
    ("Normal", torch.bool),
}


def programs(name):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", families[name](z), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.1)), 1.0))

    return model, guide


def data(name):
    return {"Bernoulli, a vector": two(bits), "OneHotCategorical": torch.stack([bits, 1 - bits], -1)}.get(name, bits)


@pytest.mark.parametrize("kind", types, ids=str)
@pytest.mark.parametrize("name", families)
def test_the_weights_of_the_numbers_or_a_refusal(name, kind):
    (model, guide), x = programs(name), data(name)
    if (name, kind) in refusals:
        family = name.partition(",")[0]
        with refused("'x'", kind, family, "obs=x.to(torch.float64)"):
            log_weights((model, guide), x.to(kind))
        return
    pyro.set_rng_seed(1)
    ours = log_weights((model, guide), x.to(kind), num_samples=3).total
    pyro.set_rng_seed(1)
    torch.testing.assert_close(ours, log_weights((model, guide), x.double(), num_samples=3).total, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "use",
    [
        lambda model, guide, x: pyrovae.fit((model, guide), x, epochs=1),
        lambda model, guide, x: pyrovae.log_likelihood((model, guide), x, 10),
        lambda model, guide, x: pyrovae.compile(ELBO()(model, guide), x),
        lambda model, guide, x: ELBO()(model, guide)(x),
        lambda model, guide, x: ELBO().differentiable_loss(model, guide, x),
    ],
    ids=["fit", "log_likelihood", "compile", "module", "SVI"],
)
def test_the_same_words_on_every_route(use, unfused):
    with refused("'x'", "torch.int64", "Bernoulli", "obs=x.to(torch.float64)"):
        use(*programs("Bernoulli"), bits)


def test_draws_of_another_type_than_the_models():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(z * 1.0, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Categorical(torch.ones(2)))

    with refused("'z'", "torch.int64", "Bernoulli", "guide"):
        log_weights((model, guide), torch.ones(4))


def test_an_index_that_is_none():
    with refused("'x'", 1, 4, "Categorical", 0.5):
        log_weights(programs("Categorical"), torch.tensor([0.0, 1.0, 0.5, 1.0]))


class AnyNumbers(nn.Module):
    """An encoder that takes numbers of any type."""

    def __init__(self, in_shape, out_shape):
        super().__init__()
        self.linear = nn.Linear(in_shape[0], out_shape[0] * out_shape[1])
        self.out_shape = out_shape

    def forward(self, x):
        return self.linear(x.double()).unflatten(-1, self.out_shape)


@pytest.mark.parametrize("kind", types, ids=str)
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize(
    "name", ["Bernoulli", "Categorical", "Poisson", "Binomial", "NegativeBinomial", "ZeroInflatedNegativeBinomial", "Normal"]
)
def test_our_likelihoods_take_all_of_them(name, kind, masked):
    torch.manual_seed(0)
    vae = VAE((2,), latent_dim=2, likelihood=getattr(likelihoods, name), encoder=AnyNumbers)
    x = two(bits)
    given = {"mask": x < 1} if masked else {}
    found = []
    for numbers in (x.to(kind), x.double()):
        pyro.set_rng_seed(1)
        found.append(log_weights(vae, numbers, num_samples=3, **given).total)
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-10)


def test_our_networks_say_what_to_do():
    vae = VAE((2,), latent_dim=2, encoder=partial(pyrovae.networks.MLP, hidden=(3,)))
    with refused("torch.bool", "x.to(torch.float64)"):
        pyrovae.fit(vae, two(bits).bool(), epochs=1)
