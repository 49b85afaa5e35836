"""Networks that others wrote: what is recorded of them is what they do, and a training of them can be gone on with."""

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import pyro
import pytest
import torch
from _pytest.mark.structures import ParameterSet
from checks import refused, warned
from torch import Tensor

import pyrovae
from pyrovae import IWAE
from pyrovae.compiling.fallback import NotCompiledWarning
from tests.networks.others import Case, GraphPair, Pair, cases, edges_as_argument, ring

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*weight_norm. is deprecated:FutureWarning",
    "ignore:There is a performance drop:UserWarning",  # of attention under vmap
    "ignore:None of the inputs have requires_grad:UserWarning",  # of a re-entrant checkpoint without gradients
    "ignore:.*its step was too small to count",  # a bias before a normalisation, which has no gradient
    "ignore::pyrovae.evaluation.ImportanceSamplingWarning",  # of pairs that are not trained
)
sgd = partial(torch.optim.SGD, lr=1e-2, momentum=0.9)


TWINS = {"GRU", "GRU, float32", "LSTM, float32", "complex numbers, float32", "weight_norm, old"}
"""Cases that are near to another: LSTM, complex numbers, weight_norm."""
IN_BACKWARD = {"LSTM", "weight_norm", "spectral_norm, old", "pruned", "tied", "checkpoint"}
"""Cases whose recorded steps ``compiling/test_backward.py`` compares, without clipping and momentum."""
OF_KINDS = {"tied", "spectral_norm", "torch.compile, aot_eager", "complex numbers", "autocast", "subclass of tensors"}
"""Cases in each of which something else could go wrong when it is recorded."""


def ready(case: Case) -> Case:
    """The case, where its package is installed, in its precision."""
    pytest.importorskip(case.needs)
    torch.set_default_dtype(case.dtype)
    return case


def slow_but_cases(quick: Callable[[str], bool]) -> list[ParameterSet]:
    """All cases; but for the quick ones of those that need torch alone they are slow."""
    soon = {name for name, case in cases.items() if case.needs == "torch" and name not in TWINS and quick(name)}
    return [pytest.param(case, marks=[pytest.mark.slow] * (name not in soon), id=name) for name, case in cases.items()]


def with_cases(quick: Callable[[str], bool]) -> pytest.MarkDecorator:
    """Cases of which fewer are quick than elsewhere."""
    return pytest.mark.parametrize("case", slow_but_cases(quick), indirect=True)


@pytest.fixture(params=slow_but_cases(lambda name: True))
def case(request) -> Case:
    return ready(request.param)


def pair_of(case: Case) -> Pair:
    """The pair of a case, the same each time."""
    torch.manual_seed(0)
    pyro.clear_param_store()
    return case.make()


def tensors(pair: Pair) -> dict[str, Tensor]:
    """Its parameters and buffers, but for tensors of other libraries' classes, which nobody changes."""
    named = [*pair.module.named_parameters(), *pair.module.named_buffers()]
    own = {name: value.dequantize() if hasattr(value, "qdata") else value for name, value in named}  # pyright: ignore
    return {name: value.detach().clone() for name, value in own.items()}


def trained(case: Case, epochs: int = 2, **options) -> dict[str, Tensor]:
    """All parameters and buffers after so many epochs of two batches of four."""
    pair = pair_of(case)
    options = {"objective": IWAE(2), "optimizer": sgd, "clip_norm": 1.0, "batch_size": 4, "progress": False, **options}
    pyrovae.fit(pair, pair.x, epochs=epochs, **options)
    return tensors(pair)


def expected_warning(case: Case) -> AbstractContextManager:
    """Expect the warning that it cannot be recorded, where it is known not to be."""
    return nullcontext() if case.eager is None else warned(case.eager, category=NotCompiledWarning)


def expected_error(why: str | None) -> AbstractContextManager:
    """Expect an error, where there is a reason for one."""
    return nullcontext() if why is None else refused(why)


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in found.items():
        with_name = partial("{}: {}".format, name)
        torch.testing.assert_close(value, expected[name], rtol=tolerance, atol=tolerance, msg=with_name)


def assert_recorded_training(case: Case) -> None:
    """A recorded training moves what an eager one moves, to where it does."""
    for compile in (False, True) if case.untrained else ():
        with expected_error(case.untrained):
            trained(case, compile=compile)
    if case.untrained:
        return
    expected, before = trained(case, compile=False), tensors(pair_of(case))
    with expected_warning(case):
        found = trained(case, compile=True)
    assert_same(found, expected, case.tolerance)
    assert any(not torch.equal(value, before[name]) for name, value in found.items())


@with_cases(lambda name: name not in IN_BACKWARD | {"torch.compile"})
def test_a_recorded_training_is_an_eager_one(case, unfused):
    assert_recorded_training(case)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["channels_last", "torch_geometric, edges as argument", "GRU, float32"])
def test_a_fused_training_is_an_eager_one(name):
    assert_recorded_training(ready(cases[name]))


@with_cases(lambda name: name in OF_KINDS)
def test_a_recorded_gradient_is_an_eager_one(case, unfused):
    outcomes = []
    for compile in (False, True) if case.untrained is None else ():
        pair = pair_of(case)
        loss = IWAE(2)(pair.model, pair.guide)
        with expected_warning(case) if compile else nullcontext():
            loss = pyrovae.compile(loss, pair.x) if compile else loss
        torch.manual_seed(1)
        value = loss(pair.x)
        value.backward()
        gradients = {name: parameter.grad for name, parameter in pair.module.named_parameters() if parameter.requires_grad}
        outcomes.append({"loss": value.detach(), **gradients})
    assert not outcomes or assert_same(*outcomes, case.tolerance) is None


def test_it_goes_on_to_the_bit(case, tmp_path):
    train = partial(trained, case, compile=False)
    with expected_error(case.untrained or case.unkept):
        expected = train(run=tmp_path / "one")
        train(epochs=1, run=tmp_path / "two")
        found = train(run=tmp_path / "two", resume=True)
        assert found.keys() == expected.keys()
        assert_same(found, expected, tolerance=0.0)


@with_cases(lambda name: name in OF_KINDS | {"LSTM", "shared parameter", "torch.compile", "channels_last"})
def test_log_likelihood(case, unfused):
    pair = pair_of(case)
    estimate = partial(pyrovae.log_likelihood, pair, num_samples=50)
    with warnings.catch_warnings():
        if case.eager:
            warnings.simplefilter("ignore", NotCompiledWarning)  # without a gradient it may be recorded
        found = estimate(pair.x, compile=True).log_p
    expected = estimate(pair.x, compile=False).log_p
    assert torch.as_tensor(expected).isfinite().all()
    torch.testing.assert_close(*map(torch.as_tensor, (found, expected)), rtol=case.tolerance, atol=case.tolerance)


def test_log_likelihood_of_a_datum_is_its_own(case):
    pair = pair_of(case)
    seeds = torch.arange(len(pair.x))
    estimate = partial(pyrovae.log_likelihood, pair, num_samples=50)
    together, alone = estimate(pair.x, seed=seeds).log_p, estimate(pair.x[3:4], seed=seeds[3:4]).log_p
    torch.testing.assert_close(together[3:4], alone, rtol=case.tolerance, atol=case.tolerance)


@pytest.mark.slow
def test_edges_are_given_in_any_way(float64, unfused):
    """By ``partial``, with a call, or as a buffer; rows of the data they are not."""
    pytest.importorskip("torch_geometric")
    given, edges = edges_as_argument(), ring()
    buffered = GraphPair(edges)
    buffered.load_state_dict(given.module.state_dict() | {"edges": edges})
    losses, weights = [], []
    for model, guide, more in (
        (given.model, given.guide, {}),
        (given.module.model, given.module.guide, {"edges": edges}),
        (buffered.model, buffered.guide, {}),
    ):
        pyro.clear_param_store()
        loss = IWAE(5)(model, guide)
        for each in (loss, pyrovae.compile(loss, given.x, **more)):
            torch.manual_seed(1)
            losses.append(each(given.x, **more).item())
        torch.manual_seed(1)
        weights.append(pyrovae.log_weights((model, guide), given.x, num_samples=5, **more).total)
    assert losses == pytest.approx([losses[0]] * 6, rel=1e-10)
    assert all(torch.allclose(each, weights[0], rtol=1e-10) for each in weights)
    with refused("edges"):
        pyrovae.fit(given.module, {"x": given.x, "edges": edges}, epochs=1, progress=False)
