"""What settings that ask for too much may allocate."""

from functools import partial

import pyro
import pytest
import torch
import yaml
from checks import guide_for, lacking, members, prior_for, refused, slow_but
from strangers import little_memory

import pyrovae.guides
import pyrovae.likelihoods
import pyrovae.priors
from pyrovae import VAE, InputError, load
from pyrovae.guides import Guide
from pyrovae.likelihoods import Likelihood
from pyrovae.networks import ConvDecoder, ConvEncoder, ResNetDecoder, ResNetEncoder
from pyrovae.priors import Prior
from pyrovae.untrusted.allocation_limit import FREE, Budget

parts = [
    *({"prior": cls, "guide": guide_for(cls)} for cls in members(pyrovae.priors, Prior)),
    *({"guide": cls, "prior": prior_for(cls)} for cls in members(pyrovae.guides, Guide)),
    *({"likelihood": cls} for cls in members(pyrovae.likelihoods, Likelihood)),
    {"encoder": ConvEncoder, "decoder": ConvDecoder},
    {"encoder": ResNetEncoder, "decoder": ResNetDecoder},
]


@pytest.mark.parametrize("asked", parts, ids=lambda asked: "-".join(cls.__name__ for cls in asked.values()))
def test_every_part_is_built_within_it_as_without(asked):
    build = partial(VAE, (8, 8), latent_dim=3, **asked)
    pyro.set_rng_seed(1)
    expected = build().state_dict()
    pyro.set_rng_seed(1)
    with Budget(expected, "here"):
        made = build().state_dict()
    torch.testing.assert_close(made, expected, rtol=0, atol=0, equal_nan=True)


large = {
    "a wide network": {"encoder": {"class_path": "pyrovae.networks.MLP", "init_args": {"hidden": [10**6, 10**6]}}},
    "an endless network": {"encoder": {"class_path": "pyrovae.networks.MLP", "init_args": {"hidden": [10**4] * 200}}},
    "a latent space": {"latent_dim": 10**9},
    "a latent space of more than memory": {"latent_dim": 2**62},
    "components": {"prior": {"class_path": "pyrovae.priors.Vamp", "init_args": {"components": 10**9}}},
    "a mixture": {"prior": {"class_path": "pyrovae.priors.Mixture", "init_args": {"components": 10**10}}},
    "a flow": {"prior": {"class_path": "pyrovae.priors.Flow", "init_args": {"transforms": 10**8}}},
    "levels": {"likelihood": {"class_path": "pyrovae.likelihoods.Categorical", "init_args": {"levels": 10**10}}},
    "a residual network": {"encoder": {"class_path": "pyrovae.networks.ResNetEncoder", "init_args": {"blocks": 10**8}}},
    "a layer of torch": {"encoder": {"class_path": "torch.nn.Bilinear", "init_args": {"out_features": 10**9}}},
    "a context": {"context_shape": [10**9]},
}


few = ("a wide network", "an endless network", "a latent space", "a flow", "a layer of torch")


@pytest.mark.parametrize("name", slow_but(lambda name: name in few, large))
@pytest.mark.usefixtures("sealed_by_a_stranger")
def test_settings_that_ask_for_more_than_the_weights_are_refused(name, strangers_run):
    settings = yaml.safe_load((strangers_run / "config.yaml").read_text())
    settings["model"] |= large[name]
    (strangers_run / "config.yaml").write_text(yaml.safe_dump(settings))
    with little_memory(3 * FREE // 2**20), refused() as caught:
        load(strangers_run)
    assert any(not lacking(str(caught.value), word) for word in ("bytes", "config.yaml", "--print_config"))


def test_an_array_is_counted_before_it_is_made():
    with refused("here", 0, "bytes"), Budget({}, "here"):
        torch.empty(2**62 // 4, dtype=torch.uint8)
    with Budget({"held": torch.zeros(2**24)}, "here"):
        torch.zeros(2**28, dtype=torch.uint8)
        torch.zeros(4).expand(10**12, 4)
        torch.arange(10).nonzero()
    with pytest.raises(InputError), Budget({}, "here"):
        torch.zeros(2**14).repeat(2**15)
