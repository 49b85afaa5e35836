"""Steps whose loss or gradient is not finite: they end a run, or are left out of it."""

from functools import partial
from itertools import product

import pyro
import pytest
import torch
from checks import refused, slow_but
from programs import GaussianGuide, LinearGaussian
from torch import Tensor
from user_network import Normalised

from pyrovae import IWAE, VAE
from pyrovae.likelihoods import Normal
from pyrovae.networks import MLP
from pyrovae.runtime.batches import Columns
from pyrovae.training.failing_site import NonFiniteError
from pyrovae.training.steps import Steps

adam = partial(torch.optim.Adam, lr=1e-2)
MODES = ["eager", "recorded", "captured"]
pytestmark = pytest.mark.usefixtures("unfused", "running")


def in_mode(mode: str) -> dict[str, bool]:
    """Settings of steps; and the precision in which torch's fused Adam can leave out a step on a CPU."""
    torch.set_default_dtype(torch.float32 if mode == "captured" else torch.float64)
    return {"compile": mode != "eager"}


def pair(kind: str = "linear") -> tuple:
    pyro.set_rng_seed(0)
    if kind == "linear":
        model = LinearGaussian(data_dim=4)
        return model, GaussianGuide(model, shift=0.3)
    vae = VAE((4,), 2, encoder=Normalised, decoder=partial(MLP, hidden=(3,)), likelihood=Normal)
    return vae.model, vae.guide


def data(*bad: int, size: int = 23) -> Tensor:
    x = torch.randn(size, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    x[[*bad]] = torch.nan
    return x.to(torch.get_default_dtype())


def started(mode: str, kind: str = "linear", **settings) -> Steps:
    chosen = in_mode(mode)
    module = IWAE(2)(*pair(kind))
    module.start(data()[:4])
    steps = Steps(module, adam(module.parameters()), batch_size=4, **chosen, **settings)
    steps.update.capturable = mode == "captured"
    pyro.set_rng_seed(1)
    return steps


def by_hand(kind: str, x: Tensor, *, batches: int = 1, epochs: int = 2) -> tuple[dict[str, Tensor], Tensor, int]:
    """What a loop of steps makes of it that looks at each gradient: the state, the bound's sum and the number of data."""
    module = IWAE(2)(*pair(kind))
    module.start(data()[:4])
    optimizer = adam(module.parameters(), fused=False)
    pyro.set_rng_seed(1)
    module.train()
    total, count = torch.zeros(()), 0
    for _ in range(epochs):
        total, count = torch.zeros(()), 0
        for group in x.split(4 * batches):
            before = {name: value.clone() for name, value in module.named_buffers()}
            optimizer.zero_grad()
            losses = [module(batch) for batch in group.split(4)]
            for loss in losses:
                (loss / len(group)).backward()
            if all(value.grad.isfinite().all() for value in module.parameters()):
                optimizer.step()
                total, count = total - sum(losses).detach(), count + len(group)
                continue
            for name, value in module.named_buffers():
                value.copy_(before[name])
    return module.state_dict(), total, count


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor], mode: str) -> None:
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=0, atol=1e-5 if mode == "captured" else 1e-10)


def pairwise(mode: str, kind: str, streamed: bool) -> bool:
    """Whether it is one of six in which any two of the three are met."""
    return streamed == (kind == ("normalised" if mode == "eager" else "linear"))


@pytest.mark.parametrize(
    ("mode", "kind", "streamed"), slow_but(pairwise, product(MODES, ["linear", "normalised"], [False, True]))
)
def test_a_step_is_left_out(mode, kind, streamed):
    """Of 23 data two steps of four, and the short last one."""
    steps = started(mode, kind, nonfinite="skip")
    for _ in range(2):
        x = data(5, 14, 21)
        means = steps.stream(map(Columns, x.split(4))) if streamed else steps.walk(Columns(x))
        assert steps.progress.skipped == 3
        assert steps.state()["left_out"] == 11
    state, total, count = by_hand(kind, data(5, 14, 21))
    assert_same(steps.module.state_dict(), state, mode)
    assert means.count == count == 12
    torch.testing.assert_close(means.sums[0].to(total.dtype), total, rtol=1e-5 if mode == "captured" else 1e-10, atol=0)


@pytest.mark.parametrize("mode", MODES[:2])
def test_a_step_of_several_batches_is_left_out_as_a_whole(mode):
    steps = started(mode, "normalised", nonfinite="skip", accumulate=2)
    for _ in range(2):
        means = steps.walk(Columns(data(5)))
    state, total, count = by_hand("normalised", data(5), batches=2)
    assert_same(steps.module.state_dict(), state, mode)
    assert (steps.progress.skipped, means.count) == (1, count) == (1, 15)
    torch.testing.assert_close(means.sums[0], total, rtol=1e-10, atol=0)


@pytest.mark.parametrize("mode", MODES)
def test_averages_stay_where_a_step_is_left_out(mode):
    steps = started(mode, nonfinite="skip", ema=0.5)
    steps.walk(Columns(data(size=8)))
    with steps.averaged():
        before = {name: value.clone() for name, value in steps.module.state_dict().items()}
    x = data(*range(16), size=16)
    with pytest.raises(NonFiniteError):
        steps.walk(Columns(x))
    with steps.averaged():
        assert_same(before, steps.module.state_dict(), "eager")


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("mode", MODES)
def test_an_epoch_without_a_finite_step_is_refused(mode, accumulate):
    steps = started(mode, nonfinite="skip", accumulate=accumulate)
    if accumulate > 1:
        steps.update.capturable = False
    before = {name: value.clone() for name, value in steps.module.state_dict().items()}
    with refused("'z'", "guide", "nan", "datum 1", error=NonFiniteError):
        steps.walk(Columns(data(1, 5, 9, 13, size=16)))
    assert_same(before, steps.module.state_dict(), "eager")


@pytest.mark.parametrize("mode", MODES[:2])
def test_a_part_ends_a_run_and_names_what_is_not_finite(mode):
    """The error is one of what was handed in; parameters and averages are as before."""
    steps = started(mode, accumulate=2, ema=0.5)
    steps.walk(Columns(data(size=8)))
    before = {name: value.clone() for name, value in steps.module.state_dict().items()}
    with refused("'z'", "guide", "nan", "datum 2"):
        steps.walk(Columns(data(6, 13)))
    assert_same(before, steps.module.state_dict(), mode)


class Interrupted(Exception):
    """The end of a run within an epoch."""


ALL = {"accumulate": 2, "ema": 0.9, "nonfinite": "skip"}


def met(mode: str, settings: dict) -> bool:
    """Whether the two are met in each run; steps of several batches are not captured."""
    return settings == ({} if mode == "captured" else ALL)


@pytest.mark.parametrize(
    ("mode", "settings"), slow_but(met, product(MODES, [{}, {"ema": 0.9}, {"nonfinite": "skip"}, ALL])), ids=str
)
def test_a_run_goes_on_within_an_epoch_bit_for_bit(mode, settings, tmp_path, monkeypatch):
    monkeypatch.setattr("pyrovae.training.captured_steps.REPLAYS", 1)

    def begun() -> Steps:
        steps = started(mode, **settings)
        steps.update.capturable &= "accumulate" not in settings
        return steps

    def ended(steps: Steps) -> dict[str, Tensor]:
        means = steps.walk(Columns(x))
        with steps.averaged():
            averages = {f"average {name}": value.clone() for name, value in steps.module.state_dict().items()}
        counts = {"count": torch.tensor(means.count), "skipped": torch.tensor(steps.progress.skipped)}
        return {**steps.module.state_dict(), "sums": means.sums, **averages, **counts}

    def interrupt() -> None:
        if steps.progress.done == 4:
            kept = [steps.state(), steps.module.state_dict(), steps.optimizer.state_dict(), torch.get_rng_state()]
            torch.save(kept, tmp_path / "kept")
            raise Interrupted

    begun()
    x = data(5) if "nonfinite" in settings else data()
    whole = ended(begun())
    steps = begun()
    steps.progress.between = interrupt
    with pytest.raises(Interrupted):
        steps.walk(Columns(x))
    again = begun()
    state, weights, optimizer, noise = torch.load(tmp_path / "kept", weights_only=True)
    again.module.load_state_dict(weights)
    again.optimizer.load_state_dict(optimizer)
    again.progress.restore(state)
    torch.set_rng_state(noise)
    for name, value in ended(again).items():
        assert torch.equal(value, whole[name]), name
