"""Steps that are made of several batches are those of batches that are so many times as large."""

from functools import partial
from itertools import product

import pyro
import pytest
import torch
from checks import RowNoise, refused, slow_but
from programs import GaussianGuide, LinearGaussian
from torch import Tensor

from pyrovae import ELBO, IWAE
from pyrovae.objectives import TCVAE, BetaELBO, InfoVAE, Objective
from pyrovae.runtime.batches import Columns
from pyrovae.training.steps import Steps

adam = partial(torch.optim.Adam, lr=1e-2)


def started(objective: Objective, optimizer=adam, **settings) -> tuple[Steps, Tensor]:
    """Steps on a pair whose guide is not exact, and 22 data."""
    pyro.set_rng_seed(0)
    model = LinearGaussian()
    module, x = objective(model, GaussianGuide(model, shift=0.3)), model.data(22)
    module.start(x[:4])
    pyro.set_rng_seed(1)
    return Steps(module, optimizer(module.parameters()), **settings), x


def found(steps: Steps, sums: Tensor) -> dict[str, Tensor]:
    return {**steps.module.state_dict(), "sums": sums}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor], atol: float = 1e-10) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=0, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


sgd = partial(torch.optim.SGD, lr=1e-2, momentum=0.9)


def pairwise(objective, clip_norm, optimizer):
    """Whether it is one of four in which any two of the three are met."""
    return (optimizer is adam) == (isinstance(objective, ELBO) == (clip_norm is None))


@pytest.mark.parametrize(
    ("objective", "clip_norm", "optimizer"),
    slow_but(pairwise, product([ELBO(3, analytic_kl=False), IWAE(5)], [None, 0.05], [adam, sgd])),
)
def test_several_batches_are_a_large_one(objective, clip_norm, optimizer, float64):
    def run(size: int, **settings) -> dict[str, Tensor]:
        steps, x = started(objective, optimizer, clip_norm=clip_norm, compile=False, **settings)
        with RowNoise(size).drawn():
            return found(steps, steps.walk(Columns(x[:size])).sums)

    for size in (8, 19, 20, 22):  # two batches; then one short; two and one; two and one and a half
        assert_same(run(size, batch_size=4, accumulate=2), run(size, batch_size=8))


def test_a_clipped_gradient_is_clipped_as_a_whole(float64):
    def moved(clip_norm: float | None) -> Tensor:
        sgd = partial(torch.optim.SGD, lr=1.0)
        steps, x = started(ELBO(), sgd, clip_norm=clip_norm, compile=False, batch_size=11, accumulate=2)
        before = [value.detach().clone() for value in steps.module.parameters()]
        steps.walk(Columns(x))
        return torch.cat([(a - b).flatten() for a, b in zip(steps.module.parameters(), before, strict=True)]).detach()

    plain = moved(None)
    assert plain.norm() > 0.05
    torch.testing.assert_close(moved(0.05), plain * 0.05 / plain.norm(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("objective", [ELBO(), IWAE(2, "dreg")], ids=["ELBO", "DReG"])
def test_recorded_parts_are_eager_parts(objective, unfused, float64):
    def run(compile: bool, stream: bool = False) -> dict[str, Tensor]:
        steps, x = started(objective, clip_norm=0.1, batch_size=4, accumulate=3, ema=0.9, compile=compile)
        means = steps.stream(map(Columns, x.split(4))) if stream else steps.walk(Columns(x))
        assert means.count == 22
        with steps.averaged():
            averages = {f"average {name}": value.clone() for name, value in steps.module.state_dict().items()}
        return found(steps, means.sums) | averages

    assert_same(run(False), run(True))
    assert_same(run(False), run(True, stream=True))


def test_fused_parts_are_eager_parts(float64):
    def run(compile: bool) -> dict[str, Tensor]:
        steps, x = started(IWAE(2), batch_size=4, accumulate=2, compile=compile)
        return found(steps, steps.walk(Columns(x)).sums)

    assert_same(run(False), run(True))


def test_between_is_called_when_a_step_is_over(float64):
    steps, x = started(ELBO(), batch_size=4, accumulate=2, compile=False)
    called = []
    steps.progress.between = lambda: called.append((steps.progress.done, int(steps.state()["steps"])))
    steps.walk(Columns(x))
    assert called == [(2, 1), (4, 2), (6, 3)]


def test_a_warm_up_counts_steps_and_not_their_batches(float64):
    def run(**settings) -> dict[str, Tensor]:
        objective = BetaELBO(warmup=4, num_particles=2, analytic_kl=False)
        steps, x = started(objective, compile=False, **settings)
        with RowNoise(20).drawn():
            sums = steps.walk(Columns(x[:20])).sums
        assert dict(steps.module.named_buffers())["state.count"] == 3
        return found(steps, sums)

    assert_same(run(batch_size=4, accumulate=2), run(batch_size=8))


@pytest.mark.parametrize("objective", [TCVAE(), InfoVAE(), BetaELBO(free_bits=0.5)], ids=lambda one: type(one).__name__)
def test_objectives_that_couple_the_data_of_a_batch_are_refused(objective):
    pyro.set_rng_seed(0)
    model = LinearGaussian()
    module, x = objective(model, GaussianGuide(model, diagonal=True)), model.data(8)
    module.start(x)
    Steps(module, adam(module.parameters()), batch_size=4)
    with refused(type(objective).__name__, "accumulate", 2, "batch_size"):
        Steps(module, adam(module.parameters()), batch_size=4, accumulate=2)


def test_settings_out_of_range_are_refused():
    with refused("accumulate", 0, 1):
        started(ELBO(), batch_size=4, accumulate=0)
    with refused("nonfinite", "'ignore'", "'stop'", "'skip'"):
        started(ELBO(), batch_size=4, nonfinite="ignore")
