import numpy as np
import pytest
import torch
from checks import refused
from torch import nn
from torch.nn import functional

from pyrovae import VAE, fit, log_likelihood, log_weights
from pyrovae.runtime.precision import computing_in

pytestmark = pytest.mark.filterwarnings("ignore::pyrovae.evaluation.ImportanceSamplingWarning")


def pair() -> VAE:
    torch.manual_seed(0)
    return VAE((6, 6), latent_dim=4)


@pytest.mark.parametrize("layer", [nn.Linear(32, 8), nn.Conv2d(2, 3, 3), nn.ConvTranspose2d(2, 3, 3)])
def test_a_layer_computes_in_bfloat16_and_answers_in_float32(layer):
    x = torch.randn(5, 32) if isinstance(layer, nn.Linear) else torch.randn(5, 2, 6, 6)
    exact = layer(x)
    with computing_in("bfloat16"):
        rounded = layer(x)
    assert rounded.dtype == torch.float32
    error = (rounded - exact).norm() / exact.norm()
    assert 2**-11 < error < 2**-7
    with computing_in("bfloat16"):
        assert functional.linear(x.double(), torch.eye(x.shape[-1]).double()).dtype == torch.float64


def test_log_weights_are_float32_and_off_by_little():
    vae, x = pair(), torch.rand(20, 6, 6).round()
    torch.manual_seed(1)
    exact = log_weights(vae, x, num_samples=5)
    torch.manual_seed(1)
    with computing_in("bfloat16"):
        rounded = log_weights(vae, x, num_samples=5)
    assert all(term.dtype == torch.float32 for _, _, term in rounded.terms())
    error = (rounded.total - exact.total).abs()
    assert 0 < error.max() < 0.2  # of about 36 pixels' worth of log 2


@pytest.mark.parametrize("compile", [False, True])
def test_log_likelihood_in_bfloat16(compile, unfused):
    vae, x = pair(), torch.rand(20, 6, 6).round()
    exact = log_likelihood(vae, x, 200)
    rounded = log_likelihood(vae, x, 200, precision="bfloat16", compile=compile)
    assert 0 < np.abs(exact.log_p - rounded.log_p).max() < 0.2


@pytest.mark.parametrize("compile", [False, True])
def test_training_in_bfloat16_keeps_parameters_in_float32(compile, unfused):
    assert_parameters_stay_in_float32(compile)


@pytest.mark.slow
def test_fused_training_in_bfloat16_keeps_parameters_in_float32():
    assert_parameters_stay_in_float32(compile=True)


def assert_parameters_stay_in_float32(compile):
    x = torch.rand(64, 6, 6).round()
    exact, rounded = pair(), pair()
    settings = {"epochs": 2, "batch_size": 16, "progress": False}
    fit(exact, x, **settings)
    history = fit(rounded, x, precision="bfloat16", compile=compile, **settings)
    assert all(value.dtype == torch.float32 for value in rounded.parameters())
    assert np.isfinite(history.metrics[-1]["train_bound"])
    differences = [(a - b).abs().max() for a, b in zip(exact.parameters(), rounded.parameters(), strict=True)]
    assert 0 < max(differences) < 0.02  # eight steps of Adam at 1e-3 are 0.008 at the most


def test_torchs_setting_is_put_back():
    before = torch.get_float32_matmul_precision()
    with computing_in("medium"):
        assert torch.get_float32_matmul_precision() == "medium"
    assert torch.get_float32_matmul_precision() == before
    with refused("precision", "'half'", "'highest'", "'high'", "'medium'", "'bfloat16'"):
        fit((lambda: None,) * 2, torch.zeros(3), precision="half")
