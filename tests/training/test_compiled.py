import pyro
import pyro.distributions as dist
import pytest
import torch
from programs import LinearGaussian
from torch import Tensor, nn
from user_network import Normalised

from pyrovae import ELBO, IWAE, VAE, InputError
from pyrovae.training import compiled
from pyrovae.training.compiled import NotCompiledWarning

compile = compiled.compile


@pytest.fixture
def x(float64) -> Tensor:
    return torch.rand(6, 4).round()


def pair(**parts) -> VAE:
    torch.manual_seed(0)
    return VAE((4,), latent_dim=2, **parts)


def gradients(module: nn.Module, parameters: list[Tensor], x: Tensor) -> list[Tensor]:
    """Of the loss, with the noise of seed 1."""
    torch.manual_seed(1)
    return [*torch.autograd.grad(module(x), parameters)]


@pytest.mark.parametrize("objective", [ELBO(3), IWAE(3, "dreg")], ids=["ELBO", "IWAE by dreg"])
def test_the_same_loss_and_gradients_at_the_same_noise(objective, x):
    vae = pair()
    eager = objective(vae.model, vae.guide)
    fused = compile(eager, x)
    parameters = [*eager.parameters()]
    assert {id(value) for value in fused.parameters()} == {id(value) for value in parameters}
    for ours, theirs in zip(gradients(fused, parameters, x), gradients(eager, parameters, x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    torch.manual_seed(2)
    measured = fused.measure(x)
    torch.manual_seed(2)
    for ours, theirs in zip(measured, eager.measure(x), strict=True):
        torch.testing.assert_close(ours, torch.as_tensor(theirs), rtol=0, atol=1e-10)


def test_draws_follow_torchs_generator_and_are_fresh_each_time(x):
    vae = pair()
    fused = compile(IWAE(2)(vae.model, vae.guide), x)
    torch.manual_seed(3)
    first, state = fused(x).item(), torch.get_rng_state()
    second = fused(x).item()
    torch.set_rng_state(state)
    assert fused(x).item() == second != first
    torch.manual_seed(3)
    assert fused(x).item() == first


def test_parameters_of_plain_functions_are_trained(float64):
    decoder = nn.Linear(2, 3)

    def model(x):
        pyro.module("decoder", decoder)
        scale = pyro.param("scale", torch.tensor(2.0), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), scale).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("loc", torch.zeros(2)), 1.0).to_event(1))

    x, eager = LinearGaussian().data(5), IWAE(3)(model, guide)
    fused = compile(eager, x)
    parameters = [*fused.parameters()]
    assert len(parameters) == 4
    before = gradients(fused, parameters, x)
    for ours, theirs in zip(before, gradients(eager, parameters, x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    with torch.no_grad():
        for value in parameters:
            value.add_(0.3)
    after = gradients(fused, parameters, x)
    assert all(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_buffers_change_in_training_and_rest_in_evaluation(x):
    vae = pair(encoder=Normalised)
    fused = compile(IWAE(2)(vae.model, vae.guide))
    mean = vae.guide.encoder.norm.running_mean
    fused(x)
    trained = mean.clone()
    fused(x)
    assert not torch.equal(mean, trained)
    trained = mean.clone()
    fused.eval()
    fused(x)
    assert torch.equal(mean, trained)


class Branching(nn.Module):
    """A decoder that cannot be recorded: its Python looks at a number."""

    def __init__(self, in_shape, out_shape) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 4)

    def forward(self, z):
        if z.sum() > 0:
            return self.linear(z)
        return -self.linear(z)


def test_a_program_that_cannot_be_recorded_runs_eagerly_and_says_so_once(x):
    vae = pair(decoder=Branching)
    eager = IWAE(2)(vae.model, vae.guide)
    fused = compile(eager)
    with pytest.warns(NotCompiledWarning, match=r"cannot be recorded: .* at .*test_compiled.py:\d+ \(if z.sum\(\) > 0:\)"):
        fused(x)
    torch.manual_seed(1)
    loss = fused(x)
    torch.manual_seed(1)
    assert loss == eager(x)


def test_a_graph_a_shape_and_no_more_than_so_many(x, monkeypatch):
    recorded = []
    monkeypatch.setattr(compiled, "most_graphs", 2)
    monkeypatch.setattr(compiled, "fuse", lambda function, _: recorded.append(1) or function)
    vae = pair()
    fused = compile(IWAE(2)(vae.model, vae.guide))
    for batch in (x, x[:3], x, x[:3]):
        fused(batch)
    assert len(recorded) == 2
    with pytest.warns(NotCompiledWarning, match="recorded for 2 other shapes already; keep the batch size fixed"):
        fused(x[:2])
    fused(x[:2])
    assert len(recorded) == 2


def test_a_network_is_no_objective():
    with pytest.raises(InputError, match=r"module is a Linear; expected an objective on a pair"):
        compile(nn.Linear(1, 1))
