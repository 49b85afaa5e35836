"""The update of the parameters, against torch's own optimisers at the same gradients."""

import io
from copy import deepcopy
from functools import partial
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from pyrovae.compiling import adam_kernel
from pyrovae.compiling.adam_kernel import AdamKernel
from pyrovae.training.batch_gradient import Gradients
from pyrovae.training.ema import Averages, by_name
from pyrovae.training.optimizer_step import Update

SHAPES = [(5, 3), (5,), (), (2, 33)]
OPTIMIZERS = [
    *(
        partial(family, lr=1e-2, **options)
        for family in (Adam, AdamW)
        for options in ({}, {"weight_decay": 0.1}, {"amsgrad": True}, {"maximize": True}, {"betas": (0.5, 0.7), "eps": 0.1})
    ),
    partial(SGD, lr=1e-2),
    partial(SGD, lr=1e-2, momentum=0.9, dampening=0.3, weight_decay=0.1),
    partial(SGD, lr=1e-2, momentum=0.9, nesterov=True, maximize=True),
]


def name(optimizer: partial) -> str:
    return f"{optimizer.func.__name__}-{optimizer.keywords}"


class Weights(nn.Module):
    """Parameters that start the same."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.values = nn.ParameterList(torch.randn(shape, generator=generator) for shape in SHAPES)


def gradients(step: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def updated(optimizer: partial) -> tuple[Optimizer, Update]:
    module = Weights()
    made = optimizer(module.parameters())
    return made, Update(module, made, None, compile=True)


def torchs(optimizer: partial) -> Optimizer:
    """Torch's own, without its fused kernels."""
    return optimizer(Weights().parameters(), foreach=False, fused=False)


def step(optimizer: Optimizer, gradients: Gradients) -> None:
    for parameter, gradient in zip(values(optimizer), gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()


def values(optimizer: Optimizer) -> list[Tensor]:
    return [value for group in optimizer.param_groups for value in group["params"]]


def assert_same(one: Optimizer, other: Optimizer) -> None:
    torch.testing.assert_close(values(one), values(other), rtol=0, atol=1e-12)
    states = [[*optimizer.state_dict()["state"].values()] for optimizer in (one, other)]
    torch.testing.assert_close(*states, rtol=1e-9, atol=1e-12, check_dtype=False)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=name)
def test_fifty_updates_are_torchs_of_which_the_first_two_at_most_run_its_python(optimizer, float64):
    own, update = updated(optimizer)
    theirs = torchs(optimizer)
    with mock.patch.object(own, "step", wraps=own.step) as python:
        for i in range(50):
            update(gradients(i))
            step(theirs, gradients(i))
    assert python.call_count <= 2
    assert_same(own, theirs)


@pytest.mark.parametrize("optimizer", [OPTIMIZERS[0], OPTIMIZERS[-1]], ids=name)
def test_parameters_in_groups_with_a_rate_each(optimizer, float64):
    def grouped(module: Weights, **options) -> Optimizer:
        first, *others = module.parameters()
        return optimizer([{"params": [first], "lr": 0.1}, {"params": others}], **options)

    module = Weights()
    own, theirs = grouped(module), grouped(Weights(), foreach=False, fused=False)
    update = Update(module, own, None, compile=True)
    for i in range(9):
        if i % 3 == 0:
            for group in (*own.param_groups, *theirs.param_groups):
                group["lr"] *= 0.5
            assert update.settings_changed()
        update(gradients(i))
        step(theirs, gradients(i))
    assert_same(own, theirs)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=name)
def test_a_state_goes_on_in_torchs_own_optimiser_and_torchs_here(optimizer, float64):
    (own, update), theirs = updated(optimizer), torchs(optimizer)
    for i in range(3):
        update(gradients(i))
        step(theirs, gradients(i))
    kernels = {"fused": False, "foreach": False}
    one, other = deepcopy(own.state_dict()), deepcopy(theirs.state_dict())
    theirs.load_state_dict({**one, "param_groups": [{**group, **kernels} for group in one["param_groups"]]})
    own.load_state_dict({**other, "param_groups": [{**group, "fused": True} for group in other["param_groups"]]})
    for i in range(3, 7):
        update(gradients(i))
        step(theirs, gradients(i))
    assert_same(own, theirs)


def test_each_parameter_keeps_its_own_count_of_updates(float64):
    own, update = updated(partial(Adam, lr=1e-2))
    theirs = torchs(partial(Adam, lr=1e-2))
    for i in range(12):
        given: list[Tensor | None] = [*gradients(i)]
        if i in (3, 6, 7):
            given[1] = None
        update(given)
        step(theirs, given)
    assert [float(own.state[value]["step"]) for value in values(own)] == [12, 9, 12, 12]
    assert_same(own, theirs)


def test_states_that_were_copied_or_written_before_stay_what_they_were(float64):
    own, update = updated(partial(Adam, lr=1e-2))
    for i in range(4):
        update(gradients(i))
    copied, file = deepcopy(own), io.BytesIO()
    torch.save(own.state_dict(), file)
    update(gradients(4))
    file.seek(0)
    read = torch.load(file, weights_only=True)
    for counts in (state["step"] for state in (*copied.state.values(), *read["state"].values())):
        assert float(counts) == 4
    assert all(float(state["step"]) == 5 for state in own.state.values())
    step(copied, gradients(4))
    assert_same(own, copied)


def test_averages_follow(float64):
    module = Weights()
    own = Adam(module.parameters(), lr=1e-2)
    averages = Averages(0.9, by_name(module, [*module.parameters()]))
    update = Update(module, own, averages, compile=True)
    expected = [value.detach().clone() for value in module.parameters()]
    for i in range(6):
        update(gradients(i))
        expected = [0.9 * average + 0.1 * value.detach() for average, value in zip(expected, values(own), strict=True)]
    torch.testing.assert_close([*averages.state().values()], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("hooked", [False, True])
def test_eager_runs_and_those_with_hooks_run_the_python_of_every_step(hooked, float64):
    module, calls = Weights(), []
    own = Adam(module.parameters(), lr=1e-2)
    if hooked:
        own.register_step_pre_hook(lambda *_: calls.append(1))
    update = Update(module, own, None, compile=hooked)
    with mock.patch.object(own, "step", wraps=own.step) as python:
        for i in range(4):
            update(gradients(i))
    assert python.call_count == 4
    assert len(calls) == (4 if hooked else 0)


class Wide(nn.Module):
    """So many numbers that two threads share them, the border being within the second parameter."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.values = nn.ParameterList(torch.randn(size, generator=generator) for size in (101, 50_021, 13))

    def gradients(self, step: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(step)
        return [torch.randn(value.shape, generator=generator) for value in self.values]


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_threads_share_the_kernels_work(threads, dtype):
    one, other = Wide().to(dtype), Wide().to(dtype)
    own, theirs = Adam(one.parameters(), lr=1e-2), Adam(other.parameters(), lr=1e-2, foreach=False, fused=False)
    update = Update(one, own, None, compile=True)
    with mock.patch.object(AdamKernel, "count_and_update", autospec=True, side_effect=AdamKernel.count_and_update) as kernel:
        for i in range(5):
            given = [value.to(dtype) for value in one.gradients(i)]
            update(given)
            step(theirs, [value.clone() for value in given])
    assert kernel.call_count == 3
    torch.testing.assert_close(values(own), values(theirs), rtol=0, atol=1e-12 if dtype == torch.float64 else 1e-6)
    assert all(float(state["step"]) == 5 for state in own.state.values())


def test_no_moment_stays_denormal_in_any_thread(threads):
    module = Wide()
    own = Adam(module.parameters(), lr=1e-2)
    update = Update(module, own, None, compile=True)
    update(module.gradients(0))
    for state in own.state.values():
        state["exp_avg"].fill_(1e-37)
        state["exp_avg_sq"].fill_(1e-37)
    for _ in range(40):
        update([torch.zeros_like(value) for value in module.values])
    assert not any(state["exp_avg"].any() for state in own.state.values())


def test_without_a_compiler_the_update_is_torchs_fused_one(monkeypatch):
    monkeypatch.setattr(adam_kernel, "load_cpp", mock.Mock(side_effect=RuntimeError))
    adam_kernel.library.cache_clear()
    one, other = Wide(), Wide()
    own, theirs = Adam(one.parameters(), lr=1e-2), Adam(other.parameters(), lr=1e-2, fused=True)
    update = Update(one, own, None, compile=True)
    try:
        for i in range(5):
            update(one.gradients(i))
            step(theirs, one.gradients(i))
    finally:
        adam_kernel.library.cache_clear()
    assert all(torch.equal(value, same) for value, same in zip(values(own), values(theirs), strict=True))


@pytest.mark.parametrize(
    "optimizer", [partial(Adam, lr=1e-2), partial(AdamW, lr=1e-2), partial(Adam, amsgrad=True)], ids=name
)
def test_a_run_that_goes_on_from_a_state_is_the_same_to_the_last_bit(optimizer):
    def run(interrupted: bool) -> list[Tensor]:
        own, update = updated(optimizer)
        for i in range(9):
            if interrupted and i == 4:
                before, weights = own, [value.detach().clone() for value in values(own)]
                own, update = updated(optimizer)
                own.load_state_dict(deepcopy(before.state_dict()))
                for value, weight in zip(values(own), weights, strict=True):
                    value.detach().copy_(weight)
            update(gradients(i))
        return values(own)

    assert all(torch.equal(one, other) for one, other in zip(run(False), run(True), strict=True))


@pytest.mark.parametrize("view", [lambda base: base[:, ::2], lambda base: base[:, :1], lambda base: base.T])
@pytest.mark.parametrize("optimizer", [partial(Adam, lr=0.1), partial(SGD, lr=0.1, momentum=0.9)], ids=name)
def test_parameters_that_are_views_of_other_memory(optimizer, view, float64):
    """Torch's fused kernels take the numbers of a parameter to lie side by side, and move others where they do not."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(6, 4, generator=generator)
    found, expected = (nn.ParameterList([nn.Parameter(view(base.clone()))]) for _ in range(2))
    made, own = optimizer(found.parameters()), optimizer(expected.parameters(), foreach=False, fused=False)
    update = Update(found, made, None, compile=True)
    for _ in range(5):
        gradient = torch.empty_like(found[0]).copy_(torch.randn(found[0].shape, generator=generator))
        expected[0].grad = gradient.clone()
        own.step()
        update([gradient])
    torch.testing.assert_close(found[0], expected[0])
