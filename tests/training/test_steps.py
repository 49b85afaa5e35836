import math
import sys
from contextlib import nullcontext
from functools import partial
from itertools import product
from typing import get_args
from unittest.mock import MagicMock

import pyro
import pyro.distributions as dist
import pytest
import torch
from checks import guide_for, made, members, prior_for, refused, slow_but, warned
from programs import GaussianGuide as Proposal
from programs import LinearGaussian, functions
from torch import Tensor, nn
from user_network import Normalised

import pyrovae.guides
import pyrovae.likelihoods
import pyrovae.networks
import pyrovae.objectives
import pyrovae.priors
from pyrovae import IWAE, VAE, InputError
from pyrovae.compiling.cuda_graph import Captured
from pyrovae.compiling.fallback import NotCompiledWarning
from pyrovae.data import Binarize
from pyrovae.guides import FullRankNormal, Guide
from pyrovae.likelihoods import Likelihood, Normal
from pyrovae.networks import MLP, Network
from pyrovae.objectives import Estimator, Objective, WakeSleep
from pyrovae.priors import Mixture, Prior, Vamp
from pyrovae.runtime.batches import Columns
from pyrovae.training import failing_site, nonfinite
from pyrovae.training.batch_gradient import unchanged
from pyrovae.training.steps import Steps

SHAPE = (4, 4)
small = partial(MLP, hidden=(3,))
adam = partial(torch.optim.Adam, lr=1e-2)
dynamic = Binarize.parse("dynamic").draw


def swapped(**parts) -> VAE:
    torch.manual_seed(0)
    return VAE(SHAPE, latent_dim=2, **{"encoder": small, "decoder": small, **parts})


def image_network(cls: type) -> dict[str, type]:
    """The network in the place where its shapes are: a decoder if it makes pictures of vectors, else an encoder."""
    try:
        cls((2,), SHAPE)
    except InputError:
        return {"encoder": cls}
    return {"decoder": cls}


parts = [
    *({"prior": cls, "guide": guide_for(cls)} for cls in members(pyrovae.priors, Prior)),
    *({"likelihood": cls} for cls in members(pyrovae.likelihoods, Likelihood)),
    *({"guide": cls, "prior": prior_for(cls)} for cls in members(pyrovae.guides, Guide)),
    *(image_network(cls) for cls in members(pyrovae.networks, Network)),
]
objectives = [made(cls, 2) for cls in members(pyrovae.objectives, Objective)]
estimators = [IWAE(2, estimator) for estimator in get_args(Estimator) if estimator != "reparameterized"]


def name(objective: Objective) -> str:
    return f"{type(objective).__name__}-{getattr(objective, 'estimator', '')}"


def grey(number: int = 11) -> Tensor:
    return torch.rand(number, *SHAPE, generator=torch.Generator().manual_seed(1))


def trained(
    pair: VAE, data: Tensor, objective: Objective, *, compile: bool, optimizer=adam, draw=dynamic, **settings
) -> dict[str, Tensor]:
    """What two batches of four and a short one make of the pair's state, with the means that they report."""
    module = objective(pair.model, pair.guide)
    module.start(draw(data[:4]))
    pyro.set_rng_seed(2)
    steps = Steps(module, optimizer(module.parameters()), batch_size=4, compile=compile, draw=draw, **settings)
    means = steps.walk(Columns(data), torch.randperm(len(data)))
    return {**module.state_dict(), "sums": means.sums, "state": torch.get_rng_state()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor], atol: float = 1e-10, rtol: float = 0) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


def assert_recorded(objective: Objective) -> None:
    eager, fused = (trained(swapped(), grey(), objective, compile=compile) for compile in (False, True))
    assert_same(eager, fused)
    assert not torch.equal(fused["guide.encoder.layers.0.weight"], swapped().guide.encoder.layers[0].weight)


def of_its_own(objective: Objective) -> bool:
    """Whether its step is of another kind than those of most; ELBO's is, and other tests of steps take it."""
    kinds = {"BetaELBO", "TCVAE", "SELBO", "WakeSleep"}
    return type(objective).__name__ in kinds or (objective in estimators and getattr(objective, "estimator", "") != "stl")


@pytest.mark.filterwarnings("ignore::pyrovae.training.UnmovedParameterWarning")  # an upper bound's model rests
@pytest.mark.parametrize("objective", slow_but(of_its_own, [*objectives, *estimators]), ids=name)
def test_recorded_steps_are_eager_steps_for_every_objective(objective, unfused, float64):
    assert_recorded(objective)


@pytest.mark.parametrize(
    "objective", [IWAE(2), pytest.param(IWAE(2, "dreg"), marks=pytest.mark.slow), WakeSleep(2)], ids=name
)
def test_fused_steps_are_eager_steps(objective, float64):
    assert_recorded(objective)


def quick(part: dict[str, type]) -> bool:
    """Whether it is a part whose programs are of another kind than those of most; test_parts has a gradient of each."""
    kinds = {
        "prior": ("Vamp",),
        "guide": ("Hierarchical", "VonMisesFisher"),
        "likelihood": ("StudentT", "ZeroInflatedNegativeBinomial"),
        "decoder": ("ConvDecoder",),
    }
    place, cls = next(iter(part.items()))
    return cls.__name__ in kinds.get(place, ())


@pytest.mark.parametrize(
    "part", slow_but(quick, parts), ids=lambda part: "-".join(f"{key}-{cls.__name__}" for key, cls in part.items())
)
def test_recorded_steps_are_eager_steps_for_every_part(part, unfused, float64):
    binary = part.get("likelihood", Likelihood).filler == 0  # which every other likelihood can have
    draw = dynamic if binary else unchanged
    plain = {"optimizer": partial(torch.optim.SGD, lr=0.1), "draw": draw}  # Adam makes much of a gradient that is nearly 0
    both = [trained(swapped(**part), grey(), IWAE(2), compile=compile, **plain) for compile in (False, True)]
    assert_same(*both, atol=1e-12, rtol=2**-52)  # the Binomial's sums are so large that their last bit is more than 1e-12


@pytest.mark.parametrize(
    "part",
    [
        {"prior": Mixture, "guide": FullRankNormal},
        pytest.param({"prior": Vamp, "likelihood": Normal}, marks=pytest.mark.slow),
    ],
)
def test_fused_steps_are_eager_steps_for_parts_of_most_kinds(part, float64):
    assert_same(*(trained(swapped(**part), grey(), IWAE(2), compile=compile) for compile in (False, True)))


@pytest.mark.parametrize(
    "optimizer", [partial(torch.optim.SGD, lr=0.1, momentum=0.9), partial(torch.optim.RMSprop, lr=1e-3)]
)
def test_clipping_and_other_optimisers(optimizer, unfused, float64):
    settings = {"optimizer": optimizer, "clip_norm": 0.5}
    assert_same(*(trained(swapped(), grey(), IWAE(2), compile=compile, **settings) for compile in (False, True)))


def test_a_clipped_step_is_torchs(float64):
    pair, copy, x = swapped(), swapped(), grey(4).round()
    sgd = partial(torch.optim.SGD, lr=0.1)
    trained(pair, x, IWAE(2), compile=False, optimizer=sgd, clip_norm=0.5, draw=unchanged)
    module = IWAE(2)(copy.model, copy.guide)
    module.start(x)
    pyro.set_rng_seed(2)
    (module(x[torch.randperm(4)]) / 4).backward()
    assert nn.utils.clip_grad_norm_(copy.parameters(), 0.5) > 0.5
    sgd(copy.parameters()).step()
    torch.testing.assert_close([*pair.parameters()], [*copy.parameters()], rtol=0, atol=1e-12)


def test_the_same_seed_and_a_restored_generator_give_the_same_run(unfused, float64):
    def run(interrupted: bool) -> tuple[Tensor, Tensor]:
        pair = swapped()
        module = IWAE(2)(pair.model, pair.guide)
        module.start(dynamic(grey()))
        steps = Steps(module, adam(module.parameters()), batch_size=4, draw=dynamic)
        pyro.set_rng_seed(3)
        first = steps.walk(Columns(grey(8))).sums
        if interrupted:
            state = torch.get_rng_state()
            torch.rand(100)
            torch.set_rng_state(state)
        return first, steps.walk(Columns(grey(8))).sums

    (first, second), again, interrupted = run(False), run(False), run(True)
    assert not torch.equal(first, second)
    assert torch.equal(again[1], second)
    assert torch.equal(interrupted[1], second)


def test_statistics_of_the_batches_change_as_they_do_eagerly(unfused, float64):
    def pair() -> VAE:
        torch.manual_seed(0)
        return VAE((4,), latent_dim=2, encoder=Normalised, decoder=small)

    data = torch.rand(11, 4)
    eager, fused = (trained(pair(), data, IWAE(2), compile=compile) for compile in (False, True))
    assert_same(eager, fused)
    assert not torch.equal(fused["guide.encoder.norm.running_mean"], torch.zeros(4))


def test_parameters_that_are_frozen_or_unused_stay(unfused, float64):
    class Idle(nn.Module):
        def __init__(self, *_) -> None:
            super().__init__()
            self.frozen, self.used, self.idle = (nn.Linear(2, n) for n in (2, 16, 16))
            self.frozen.requires_grad_(False)

        def forward(self, z):
            return self.used(self.frozen(z)).unflatten(-1, SHAPE)

    pair, before = swapped(decoder=Idle), swapped(decoder=Idle)
    with warned("idle.weight", "requires_grad=False"):
        trained(pair, grey(), IWAE(2), compile=True)
    decoder, old = pair.model.decoder, before.model.decoder
    assert torch.equal(decoder.frozen.weight, old.frozen.weight)
    assert torch.equal(decoder.idle.weight, old.idle.weight)
    assert not torch.equal(decoder.used.weight, old.used.weight)


def test_parameters_of_plain_functions_are_trained_compiled_as_eagerly(unfused, float64):
    def run(compile: bool) -> dict[str, Tensor]:
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        linear = LinearGaussian()
        module, x = IWAE(2)(*functions(linear, Proposal(linear, shift=0.3))), torch.randn(8, 3)
        module.start(x)
        Steps(module, adam(module.parameters()), batch_size=4, compile=compile).walk(Columns(x))
        return {name: value.detach().clone() for name, value in pyro.get_param_store().items()} | module.state_dict()

    eager, fused = run(False), run(True)
    assert {"noise", "slope", "offset", "factor"} <= eager.keys()
    assert_same(eager, fused)


class Root(nn.Module):
    """A decoder whose gradient is infinite for data in which a pixel is 9: the root of 0 then stands in its way."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 4)
        self.register_buffer("zero", torch.zeros(()))  # a number would be folded away

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        far = (x > 5).any(-1, keepdim=True)
        return self.linear(z) + torch.where(far, self.linear(z) * self.zero, 1.0).sqrt()


def rooted(root: Root, bad: float = 0.0) -> tuple:
    """A pair whose loss is ``bad`` too, where that is not 0, for those data."""

    def model(x):
        pyro.module("root", root)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            loc = root(x, z) + torch.where(x > 5, bad, 0.0)
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("loc", torch.ones(2)), 0.1).to_event(1))

    return model, guide


@pytest.mark.parametrize(
    ("bad", "captured"), slow_but(lambda bad, captured: captured == (bad == 0.0), product([0.0, math.nan], [False, True]))
)
def test_a_step_that_is_not_finite_moves_nothing_and_names_what_is(bad, captured, monkeypatch, running, unfused):
    def run(data: Tensor) -> list[Tensor]:
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        module = IWAE(2)(*rooted(Root(), bad))
        module.start(data[:4])
        steps = Steps(module, adam(module.parameters()), batch_size=4)
        steps.update.capturable = captured
        parameters = [*module.parameters()]
        steps.walk(Columns(data))
        return parameters

    kept: list[Tensor] = []
    monkeypatch.setattr(
        nonfinite, "blame", lambda module, x: kept.extend(module.parameters()) or failing_site.blame(module, x)
    )
    data = torch.zeros(12, 4)
    good = run(data[:4])
    data[5] = 9.0
    words = ["'x'", "model", "nan", "datum 1"] if bad else ["gradient", "linear.weight"]
    with refused(*words):
        run(data)
    assert len(kept) == len(good) == 3
    for after, expected in zip(kept, good, strict=True):
        torch.testing.assert_close(after, expected, rtol=0, atol=0)


@pytest.mark.parametrize("rate", [pytest.param(None, marks=pytest.mark.slow), 0.5])
def test_replayed_steps_are_steps(rate, running, unfused):
    """The bookkeeping around replays, on a CPU; ``rate`` changes the learning rate between two epochs."""

    def run(captured: bool) -> dict[str, Tensor]:
        pair = swapped()
        module = IWAE(2)(pair.model, pair.guide)
        module.start(dynamic(grey()))
        steps = Steps(module, adam(module.parameters()), batch_size=4, draw=dynamic)
        steps.update.capturable = captured
        pyro.set_rng_seed(3)
        steps.walk(Columns(grey()), torch.randperm(11))
        if rate is not None:
            steps.optimizer.param_groups[0]["lr"] *= rate
        sums = steps.walk(Columns(grey()), torch.randperm(11)).sums
        sums += steps.stream(map(Columns, grey().split(4))).sums
        return {**module.state_dict(), "sums": sums}

    assert_same(run(False), run(True))


def test_a_captured_step_is_made_anew_for_another_state_of_the_optimiser(running, unfused):
    pair = swapped()
    module = IWAE(2)(pair.model, pair.guide)
    x = grey(8).round()
    module.start(x)
    steps, kept = Steps(module, adam(module.parameters()), batch_size=4), []
    steps.update.capturable = True
    for epoch in range(4):
        if epoch == 2:
            steps.optimizer.load_state_dict(steps.optimizer.state_dict())
        steps.walk(Columns(x))
        kept.append(next(iter(steps._captured._captured.values()))[0])
    assert kept[0] is kept[1]
    assert kept[1] is not kept[2]
    assert kept[2] is kept[3]


class Einsum(nn.Module):
    """A decoder whose weight has a gradient with the strides of its transpose."""

    def __init__(self, *_) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(16, 2))

    def forward(self, z):
        return torch.einsum("...i,oi->...o", z, self.weight).unflatten(-1, SHAPE)


@pytest.mark.parametrize("compile", [False, True])
def test_steps_are_backward_and_a_plain_optimiser(compile, float64, unfused):
    pair, copy, x = swapped(decoder=Einsum), swapped(decoder=Einsum), grey(8).round()
    copy.load_state_dict(pair.state_dict())
    trained(pair, x, IWAE(2), compile=compile, draw=unchanged)
    module, optimizer = IWAE(2)(copy.model, copy.guide), adam(copy.parameters(), fused=False)
    module.start(x)
    pyro.set_rng_seed(2)
    for batch in x[torch.randperm(8)].split(4):
        optimizer.zero_grad()
        (module(batch) / 4).backward()
        optimizer.step()
    torch.testing.assert_close([*pair.parameters()], [*copy.parameters()], rtol=0, atol=1e-10)


@pytest.mark.parametrize("captured", [False, True])
def test_a_program_whose_python_changes_goes_on_eagerly(captured, monkeypatch, running, unfused):
    """The weight of a warm-up as a Python number: recorded as it was, and noticed when it changes."""

    def run(compile: bool) -> dict[str, Tensor]:
        weight = 1.0
        decoder = nn.Linear(2, 3)

        def model(x):
            pyro.module("decoder", decoder)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(weight * decoder(z), 1.0).to_event(1), obs=x)

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(pyro.param("loc", torch.zeros(2)), 1.0).to_event(1))

        module, x = IWAE(2)(model, guide), torch.ones(8, 3)
        module.start(x)
        steps = Steps(module, adam(module.parameters()), batch_size=4, compile=compile)
        steps.update.capturable = captured and compile
        steps.walk(Columns(x))
        weight = 1.1
        steps.walk(Columns(x))
        return module.state_dict()

    monkeypatch.setattr("pyrovae.training.compiled_gradient.CHECK_EVERY", 2)
    torch.set_default_dtype(
        torch.float32 if captured else torch.float64
    )  # torch's fused Adam on a CPU skips in float32 only
    pyro.set_rng_seed(0)
    eager = run(False)
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    with warned("recorded", "buffer", "number", category=NotCompiledWarning):
        assert_same(eager, run(True), 1e-5 if captured else 1e-10)


def test_parameters_without_a_gradient_now_and_then():
    """Adam leaves them alone then, and only then; a tape of its operations must not be played there."""
    module = IWAE(2)(*rooted(Root()))
    module.start(torch.zeros(4, 4))
    steps = Steps(module, adam(module.parameters()), batch_size=4)
    moved = [torch.ones_like(value) for value in steps.update.parameters]
    steps.update(moved)
    steps.update(moved)
    steps.update(moved)
    before = [value.clone() for value in steps.update.parameters]
    steps.update([None, *moved[1:]])
    steps.update([None, *moved[1:]])
    assert torch.equal(steps.update.parameters[0], before[0])
    assert not torch.equal(steps.update.parameters[1], before[1])
    steps.update(moved)
    assert not torch.equal(steps.update.parameters[0], before[0])


@pytest.mark.parametrize("flushed", [False, True])
def test_moments_without_a_gradient_reach_zero(flushed):
    """They would stay at the smallest denormal numbers, and each step be slow; what is the caller's stays the caller's."""
    module = IWAE(2)(*rooted(Root()))
    module.start(torch.zeros(4, 4))
    steps = Steps(module, adam(module.parameters()), batch_size=4)
    torch.set_flush_denormal(flushed)
    try:
        steps.update([torch.ones_like(value) for value in steps.update.parameters])
        for _ in range(1200):
            steps.update([torch.zeros_like(value) for value in steps.update.parameters])
        assert (sys.float_info.min / 2 == 0.0) == flushed
    finally:
        torch.set_flush_denormal(False)
    moments = [value for state in steps.optimizer.state.values() for name, value in state.items() if name == "exp_avg"]
    assert moments
    assert not any(value.any() for value in moments)


def test_hooks_of_an_optimiser_are_called(unfused):
    pair, called = swapped(), []
    module = IWAE(2)(pair.model, pair.guide)
    module.start(grey(4).round())
    optimizer = adam(module.parameters())
    optimizer.register_step_post_hook(lambda *_: called.append(1))
    Steps(module, optimizer, batch_size=4).walk(Columns(grey(16).round()))
    assert len(called) == 4


def test_a_stream_of_the_same_batches_is_the_same_run(float64, unfused):
    def run(streamed: bool) -> dict[str, Tensor]:
        pair = swapped()
        module = IWAE(2)(pair.model, pair.guide)
        module.start(dynamic(grey()))
        steps = Steps(module, adam(module.parameters()), batch_size=4, draw=dynamic)
        pyro.set_rng_seed(3)
        means = steps.stream(map(Columns, grey().split(4))) if streamed else steps.walk(Columns(grey()))
        return {**module.state_dict(), "sums": means.sums, "count": torch.tensor(means.count)}

    assert_same(run(False), run(True))


def on_cuda(compile: bool) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    pair = swapped().cuda()
    module, data = IWAE(2)(pair.model, pair.guide), grey(200).cuda()
    module.start(dynamic(data))
    steps = Steps(module, adam(module.parameters()), batch_size=4, draw=dynamic, compile=compile)
    torch.cuda.manual_seed(3)
    read = []
    for epoch in range(3):
        steps.optimizer.param_groups[0]["lr"] = 1e-2 / (1 + epoch // 2)
        order = torch.randperm(200, generator=torch.Generator().manual_seed(epoch))
        read.append(steps.walk(Columns(data), order).read("train"))
    read.append(steps.stream(map(Columns, grey(200).cuda().split(4))).read("train"))
    return module.state_dict(), read


class Graph:
    """In the place of a CUDA graph: it counts what would be replayed."""

    replayed: list[int]

    def __init__(self) -> None:
        self.size = 0

    def replay(self) -> None:
        Graph.replayed.append(self.size)


@pytest.mark.parametrize(
    ("calls", "runs", "replays"),
    [((30,), 3 + 8 + 1, [8, 8, 8, 1, 1, 1]), ((1, 1, 1, 1, 1), 3 + 1, [1, 1]), ((3, 8), 3 + 8, [8]), ((2,), 2, [])],
)
def test_a_captured_function_runs_as_often_as_it_was_asked_to(calls, runs, replays, monkeypatch):
    """The count of what is warmed up, captured and replayed, without a device."""
    run: list[int] = []
    monkeypatch.setattr(torch.cuda, "Stream", lambda _: MagicMock())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    for name in ("graph", "stream", "device"):
        monkeypatch.setattr(torch.cuda, name, lambda *_, **__: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", MagicMock())
    Graph.replayed = []
    captured = Captured(lambda: run.append(1), torch.device("cuda", 0))
    for times in calls:
        captured.run(times)
    for size, graph in captured._graphs.items():
        graph.size = size
    assert len(run) == runs
    assert len(Graph.replayed) == len(replays)
    assert sorted(captured._graphs) == sorted(set(replays))


def test_what_cannot_be_captured_runs_all_the_same(monkeypatch):
    run: list[int] = []
    monkeypatch.setattr(torch.cuda, "Stream", lambda _: MagicMock())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", MagicMock(side_effect=RuntimeError("operation not permitted")))
    for name in ("stream", "device"):
        monkeypatch.setattr(torch.cuda, name, lambda *_, **__: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", MagicMock())
    captured = Captured(lambda: run.append(1), torch.device("cuda", 0))
    with warned("CUDA", "not permitted", category=NotCompiledWarning):
        captured.run(10)
    captured.run(5)
    assert len(run) == 15


@pytest.mark.cuda
def test_captured_steps_are_eager_steps(float64):
    (eager, means), (captured, other_means) = on_cuda(False), on_cuda(True)
    assert_same(eager, captured)
    for one, other in zip(means, other_means, strict=True):
        assert one == pytest.approx(other, abs=1e-9)


@pytest.mark.cuda
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_nothing_waits_for_the_device_within_an_epoch():
    pair = swapped().cuda()
    module, data = IWAE(2)(pair.model, pair.guide), grey(200).cuda()
    module.start(dynamic(data))
    steps = Steps(module, adam(module.parameters()), batch_size=4, draw=dynamic)
    order = torch.randperm(200).cuda()
    steps.walk(Columns(data), order)
    body, began = order.view(50, 4), torch.cuda.current_stream()
    began.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in steps._captured.walk(Columns(data), body, 0):
            pass
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.cuda
def test_a_replayed_step_that_is_not_finite_moves_nothing():
    data = torch.zeros(400, 4)
    data[205] = 9.0
    root = Root().cuda()

    def model(x):
        pyro.module("root", root)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(root(x, z), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("loc", x.new_ones(2)), 0.1).to_event(1))

    module = IWAE(2)(model, guide)
    module.start(data[:4].cuda())
    steps = Steps(module, adam(module.parameters()), batch_size=4)
    with refused("gradient", "linear.weight"):
        steps.walk(Columns(data.cuda()))
    assert int(steps.progress.tally.steps) == 51
    assert all(value.isfinite().all() for value in module.parameters())


@pytest.mark.cuda
@pytest.mark.parametrize(
    "settings", [{"ema": 0.9}, {"ema": 0.9, "nonfinite": "skip"}, {"ema": 0.9, "accumulate": 2}], ids=str
)
def test_steps_that_are_averaged_left_out_or_of_parts_are_eager_steps(settings, float64):
    def run(compile: bool) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
        torch.manual_seed(0)
        pair = VAE((4,), latent_dim=2, encoder=Normalised, decoder=small, likelihood=Normal).cuda()
        module, data = IWAE(2)(pair.model, pair.guide), torch.randn(202, 4).cuda()
        module.start(data)
        data[[5, 77, 201]] = torch.nan if "nonfinite" in settings else 0.0
        steps = Steps(module, adam(module.parameters()), batch_size=4, compile=compile, **settings)
        torch.cuda.manual_seed(3)
        means = [steps.walk(Columns(data)).read("train") for _ in range(2)]
        means.append(steps.stream(map(Columns, data.split(4))).read("train"))
        with steps.averaged():
            averages = {f"average {name}": value.clone() for name, value in module.state_dict().items()}
        return {**module.state_dict(), **averages, "skipped": torch.tensor(steps.progress.skipped)}, means

    (eager, means), (captured, other_means) = run(False), run(True)
    assert_same(eager, captured)
    assert eager["skipped"] == (3 if "nonfinite" in settings else 0)
    for one, other in zip(means, other_means, strict=True):
        assert one == pytest.approx(other, abs=1e-9)
