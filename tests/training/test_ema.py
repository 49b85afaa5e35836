import io
import math
from functools import partial

import pyro
import pytest
import torch
from checks import refused
from programs import GaussianGuide, LinearGaussian
from torch import Tensor, nn
from user_network import Normalised

from pyrovae import IWAE, VAE
from pyrovae.networks import MLP
from pyrovae.runtime.batches import Columns
from pyrovae.training.ema import Averages
from pyrovae.training.steps import Steps

adam = partial(torch.optim.Adam, lr=1e-2)


def started(**settings) -> tuple[Steps, Tensor]:
    pyro.set_rng_seed(0)
    model = LinearGaussian()
    module, x = IWAE(2)(model, GaussianGuide(model, shift=0.3)), model.data(22)
    module.start(x[:4])
    pyro.set_rng_seed(1)
    return Steps(module, adam(module.parameters()), batch_size=4, **settings), x


def copies(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.named_parameters()}


def averages(steps: Steps) -> dict[str, Tensor]:
    with steps.averaged():
        return copies(steps.module)


@pytest.mark.parametrize("mode", ["eager", "recorded", "captured"])
def test_they_are_the_exponential_moving_average(mode, unfused, running, monkeypatch):
    dtype = torch.float32 if mode == "captured" else torch.float64  # torch's fused Adam on a CPU skips in float32 only
    torch.set_default_dtype(dtype)
    monkeypatch.setattr("pyrovae.training.captured_steps.REPLAYS", 1)
    steps, x = started(ema=0.7, compile=mode != "eager")
    steps.update.capturable = mode == "captured"
    expected = copies(steps.module)

    def follow() -> None:
        for name, value in steps.module.named_parameters():
            expected[name] = 0.7 * expected[name] + 0.3 * value.detach()

    steps.progress.between = follow
    for _ in range(2):
        steps.walk(Columns(x))
    steps.stream(map(Columns, x.split(4)))
    assert mode != "recorded" or steps.update._tape.complete  # they are played from it, too
    found, now = averages(steps), copies(steps.module)
    assert "model.noise_unconstrained" in found
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-12 if dtype == torch.float64 else 1e-6)
        assert not torch.equal(value, now[name])


@pytest.mark.parametrize("failed", [0.0, 1.0])
def test_a_flag_on_the_device_lets_them_follow_or_not(failed, float64):
    """The flag has the type that fused optimisers take it in, and the averages that of the parameters."""
    parameters = {"weight": nn.Parameter(torch.linspace(1.0, 2.0, 7))}
    plain, flagged = (Averages(0.7, parameters) for _ in "ab")
    with torch.no_grad():
        parameters["weight"].mul_(3.0)
    before = flagged.state()["weight"]
    plain.update()
    flagged.update(torch.tensor(failed, dtype=torch.float32))
    expected = before if failed else plain.state()["weight"]
    torch.testing.assert_close(flagged.state()["weight"], expected, rtol=0, atol=1e-15)


def test_parameters_hold_them_in_their_own_memory_and_are_put_back(float64):
    steps, x = started(ema=0.9, compile=False)
    steps.walk(Columns(x))
    before, places = copies(steps.module), [value.data_ptr() for value in steps.module.parameters()]
    with steps.averaged():
        assert [value.data_ptr() for value in steps.module.parameters()] == places
    with pytest.raises(KeyError), steps.averaged():
        raise KeyError
    assert [value.data_ptr() for value in steps.module.parameters()] == places
    after = copies(steps.module)
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_without_a_decay_there_are_none(float64):
    steps, x = started(compile=False)
    steps.walk(Columns(x))
    found, now = averages(steps), copies(steps.module)
    assert all(torch.equal(found[name], value) for name, value in now.items())
    assert steps.state()["averages"] == {}


def test_buffers_stay_those_of_the_last_step(float64):
    pyro.set_rng_seed(0)
    pair = VAE((4,), latent_dim=2, encoder=Normalised, decoder=partial(MLP, hidden=(3,)))
    module, x = IWAE(2)(pair.model, pair.guide), torch.rand(12, 4).round()
    module.start(x)
    steps = Steps(module, adam(module.parameters()), batch_size=4, ema=0.9, compile=False)
    steps.walk(Columns(x))
    mean = pair.guide.encoder.norm.running_mean.clone()
    with steps.averaged():
        assert torch.equal(pair.guide.encoder.norm.running_mean, mean)


def test_they_go_on_from_a_state(float64):
    once, x = started(ema=0.9, compile=False)
    once.walk(Columns(x))
    kept = io.BytesIO()
    torch.save([once.state(), once.module.state_dict(), once.optimizer.state_dict(), torch.get_rng_state()], kept)
    once.walk(Columns(x))

    again, _ = started(ema=0.9, compile=False)
    kept.seek(0)
    state, weights, optimizer, noise = torch.load(kept, weights_only=True)
    again.module.load_state_dict(weights)
    again.optimizer.load_state_dict(optimizer)
    again.progress.restore_averages(state)
    torch.set_rng_state(noise)
    again.walk(Columns(x))
    found, expected = averages(again), averages(once)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_state_of_another_run_is_refused(float64):
    steps, _ = started(ema=0.9, compile=False)
    state = steps.state()
    with refused("averages", "ema=None"):
        steps.progress.restore({**state, "averages": {}})
    with refused("'model.bias'", (7,), (3,)):
        steps.progress.restore({**state, "averages": {**state["averages"], "model.bias": torch.zeros(7)}})


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.1, math.nan])
def test_a_decay_is_between_0_and_1(decay):
    with refused("ema", decay, 0, 1):
        started(ema=decay)
