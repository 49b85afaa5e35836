"""The proposals that are flows: densities by another way, passes, and what importing zuko must not change."""

import subprocess
import sys
from functools import partial

import pytest
import scipy.stats
import torch
import zuko
from checks import refused
from torch.nn.functional import softplus

from pyrovae.engine.log_weights import log_weights
from pyrovae.engine.plates import Plates
from pyrovae.guides import Flow, InverseAutoregressive
from pyrovae.networks import MLP
from pyrovae.vae import VAE

pytestmark = pytest.mark.usefixtures("float64")
guides = [Flow, partial(Flow, kind="maf"), InverseAutoregressive, partial(Flow, kind="nsf", transforms=3, context_dim=2)]


def made(guide, latent_dim):
    """A guide of steps that are far from doing nothing."""
    built = guide((3,), latent_dim, MLP, hidden=(8,))
    for parameter in built.parameters():
        parameter.data.mul_(2.0)
    return built


@pytest.mark.parametrize("guide", guides)
@pytest.mark.parametrize("latent_dim", [1, 2, 3])
def test_the_density_is_that_of_the_noise_over_the_jacobian(guide, latent_dim):
    """A flow's own determinants are not used: z as a function of the noise is differentiated."""
    built = made(guide, latent_dim)
    params = torch.randn(4, *built.param_shape)
    z = 2.0 * torch.randn(4, latent_dim)
    for row in range(4):
        flow = built.proposal(params[row]).dist
        noise = flow.transform(z[row])
        jacobian = torch.autograd.functional.jacobian(flow.transform.inv, noise)
        base = [getattr(flow.base.base_dist, name).detach().numpy() for name in ("loc", "scale")]
        expected = scipy.stats.norm(*base).logpdf(noise.detach().numpy()).sum() - torch.linalg.slogdet(jacobian)[1].item()
        torch.testing.assert_close(flow.transform.inv(noise), z[row])
        assert built.proposal(params).log_prob(z)[row].item() == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("guide", guides)
def test_the_density_of_a_draw_is_that_of_its_value(guide):
    built = made(guide, 3)
    params = torch.randn(4, *built.param_shape)
    proposal = built.proposal(params).expand((7, 4))
    z = proposal()
    torch.testing.assert_close(proposal.log_prob(z), built.proposal(params).log_prob(z.clone()))


@pytest.mark.parametrize("guide", guides)
def test_a_draw_and_its_density_take_one_pass(guide):
    vae = VAE((3,), 5, guide=guide)
    x = vae.model(size=4)
    calls = []
    networks = [part for part in vae.guide.modules() if isinstance(part, zuko.nn.MLP | zuko.nn.MaskedMLP)]
    for network in networks:
        network.register_forward_hook(lambda module, *_: calls.append(module))
    log_weights(vae, x, num_samples=2, plates=Plates("data", 1))
    assert len(networks) >= 2
    assert len(calls) == len(networks)


def test_steps_that_do_nothing_leave_a_normal_distribution():
    guide = InverseAutoregressive((3,), 2, MLP)
    for name, parameter in guide.steps.named_parameters():
        assert "hyper" in name
        parameter.data.zero_()
    params, z = torch.randn(5, *guide.param_shape), torch.randn(5, 2)
    expected = scipy.stats.norm(params[:, :2].numpy(), softplus(params[:, 2:4]).numpy() + 1e-6).logpdf(z.numpy()).sum(1)
    torch.testing.assert_close(guide.proposal(params).log_prob(z).detach(), torch.from_numpy(expected))


def test_arguments_are_checked():
    with refused("kind", "'nfs'", "'maf'", "'nsf'"):
        Flow((3,), 2, MLP, kind="nfs")  # pyright: ignore
    for guide in (Flow, InverseAutoregressive):
        with refused("transforms", 0, 1, "DiagonalNormal"):
            guide((3,), 2, MLP, transforms=0)


def test_torch_goes_on_validating():
    """Zuko, as it is imported, turns it off for everyone."""
    program = "import torch, pyrovae.guides; print(torch.distributions.Distribution._validate_args)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "True"
