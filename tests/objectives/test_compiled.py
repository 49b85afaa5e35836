from enum import Enum
from typing import ClassVar, NamedTuple

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from checks import refused, warned
from programs import LinearGaussian
from torch import Tensor, nn
from torch._inductor.codecache import PyCodeCache
from torch.fx import graph_module
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from user_network import Normalised

import pyrovae
from pyrovae import ELBO, IWAE, VAE, InputError
from pyrovae.compiling.fallback import NotCompiledWarning
from pyrovae.objectives import compiled

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


def test_parameters_of_plain_functions_are_trained(float64, unfused):
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


def test_buffers_change_in_training_and_rest_in_evaluation(x, unfused):
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
    eager = IWAE(1)(vae.model, vae.guide)
    fused = compile(eager)
    with warned("test_compiled.py", "if z.sum() > 0:", category=NotCompiledWarning):
        fused(x)
    torch.manual_seed(1)
    loss = fused(x)
    torch.manual_seed(1)
    assert loss == eager(x)


def test_a_graph_a_shape_and_no_more_than_so_many(x, monkeypatch):
    recorded = []
    monkeypatch.setattr(compiled, "MOST_GRAPHS", 2)
    monkeypatch.setattr(compiled, "fuse", lambda function, _: recorded.append(1) or function)
    vae = pair()
    fused = compile(IWAE(2)(vae.model, vae.guide))
    for batch in (x, x[:3], x, x[:3]):
        fused(batch)
    assert len(recorded) == 2
    with warned(2, "shapes", category=NotCompiledWarning):
        fused(x[:2])
    fused(x[:2])
    assert len(recorded) == 2


def test_torch_keeps_nothing_of_what_was_compiled(x):
    """It keeps the source of each graph, and each module of kernels, as long as a process runs."""
    kept = graph_module._loader.eval_cache, PyCodeCache.modules
    before = [len(each) for each in kept]
    vae = pair()
    compile(ELBO()(vae.model, vae.guide), x)
    assert [len(each) for each in kept] == before


def test_a_network_is_no_objective():
    with refused("Linear", "compile(IWAE(5)(model, guide), x)"):
        compile(nn.Linear(1, 1))


class Kind(Enum):
    WIDE = 1.0
    NARROW = 0.5


class Extent(NamedTuple):
    shift: Tensor
    scale: float


def scaled(x, scale=1.0, *, shift=None, kind=Kind.WIDE, extra=()):
    """A model whose arguments are of all kinds; the last is only looked at."""
    shift = shift if isinstance(shift, Extent | None) else Extent(shift, 1.0)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        mean = z if shift is None else z + shift.shift * shift.scale
        pyro.sample("x", dist.Normal(mean, scale * kind.value * (3.0 if scale is True else 1.0)), obs=x)


def proposal(x, *args, **kwargs):
    loc = pyro.param("loc", torch.tensor(0.3))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc, 1.0))


def at_seed(module, *args, **kwargs) -> list[Tensor]:
    """The loss and its gradient, with the noise of seed 1."""
    torch.manual_seed(1)
    loss = module(*args, **kwargs)
    return [loss, *torch.autograd.grad(loss, [*module.parameters()])]


def same(fused, eager, *args, **kwargs) -> None:
    for ours, theirs in zip(at_seed(fused, *args, **kwargs), at_seed(eager, *args, **kwargs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


@pytest.mark.usefixtures("unfused")
class TestArgumentsThatAreNoTensors:
    calls: ClassVar[dict[str, tuple[tuple, dict]]] = {
        "a number": ((0.5,), {}),
        "a number by name": ((), {"scale": 0.7}),
        "a flag": ((True,), {}),
        "None and an enumeration": ((2.0,), {"shift": None, "kind": Kind.NARROW}),
        "a tuple of fixed values": ((1,), {"extra": ("word", (None, False, -0.0))}),
        "a tensor in a named tuple": ((), {"shift": Extent(torch.tensor(0.4), 2.0)}),
        "tensors in a dictionary of lists": ((0.5,), {"extra": {"a": [torch.ones(2), 3], "b": torch.ones(1)}}),
        "a number of NumPy": ((np.float64(0.5),), {}),
        "torch's own words": ((), {"extra": (torch.float32, torch.device("cpu"), torch.Size([2]))}),
    }

    @pytest.mark.parametrize("call", calls.values(), ids=calls.keys())
    def test_the_same_loss_and_gradients(self, call, float64):
        x, (args, kwargs) = torch.randn(4), call
        eager = IWAE(5)(scaled, proposal)
        fused = compile(eager, x, *args, **kwargs)
        assert [graph is not None for graph in fused._graphs.values()] == [True]
        same(fused, eager, x, *args, **kwargs)

    def test_a_change_of_value_or_type_is_another_recording(self, float64, monkeypatch):
        recorded = []
        monkeypatch.setattr(compiled, "fuse", lambda function, _: recorded.append(1) or function)
        x, eager = torch.randn(4), IWAE(5)(scaled, proposal)
        fused = compile(eager)
        for number, scale in enumerate((0.5, 0.7, 1, 1.0, True), 1):
            for _ in range(2):
                same(fused, eager, x, scale)
            assert len(recorded) == number
        assert at_seed(fused, x, True)[0] != at_seed(fused, x, 1)[0]

    def test_positions_and_names_are_told_apart(self, float64, monkeypatch):
        monkeypatch.setattr(compiled, "fuse", lambda function, _: function)
        x, eager = torch.randn(4), ELBO(2)(scaled, proposal)
        fused = compile(eager)
        extras = ((x, 1.0), (1.0, x), [1.0, x], {"a": x, "b": 1.0})
        for kwargs in ({"shift": x}, {"scale": x.exp()}, *({"extra": extra} for extra in extras)):
            same(fused, eager, x, **kwargs)
        assert len(fused._graphs) == 6

    def test_no_more_recordings_than_so_many_and_one_warning(self, float64, monkeypatch):
        monkeypatch.setattr(compiled, "MOST_GRAPHS", 2)
        monkeypatch.setattr(compiled, "fuse", lambda function, _: function)
        x, eager = torch.randn(4), ELBO(2)(scaled, proposal)
        fused = compile(eager)
        for scale in (0.1, 0.2):
            fused(x, scale)
        with warned(2, "shapes", "tensor", category=NotCompiledWarning):
            same(fused, eager, x, 0.3)
        for scale in (0.1, 0.4, 0.5):
            same(fused, eager, x, scale)
        assert len(fused._graphs) == 2

    def test_numbers_in_tensors_may_change(self, float64):
        x, eager = torch.randn(4), IWAE(5)(scaled, proposal)
        fused = compile(eager)
        for scale in (0.5, 0.7):
            same(fused, eager, x, torch.tensor(scale), shift=Extent(torch.tensor(scale), 1.0))
        assert len(fused._graphs) == 1

    def test_a_packed_sequence_runs_eagerly_and_says_so_once(self, float64):
        def model(packed):
            rows, lengths = pad_packed_sequence(packed, batch_first=True)
            mask = torch.arange(rows.shape[1]) < lengths[:, None]
            with pyro.plate("data", len(rows)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z[..., None], 1.0).mask(mask).to_event(1), obs=rows)

        def guide(packed):
            with pyro.plate("data", int(packed.batch_sizes[0])):
                pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.3)), 1.0))

        eager = IWAE(5)(model, guide)
        fused = compile(eager)
        values = torch.randn(3, 4)
        sequences = [
            pack_padded_sequence(values, torch.tensor(lengths), batch_first=True) for lengths in ([4, 2, 1], [4, 3, 2])
        ]
        with warned(1, "PackedSequence", category=NotCompiledWarning) as told:
            same(fused, eager, sequences[0])
        assert len(told) == 1
        same(fused, eager, sequences[1])
        assert at_seed(fused, sequences[0])[0] != at_seed(fused, sequences[1])[0]

    @pytest.mark.parametrize(
        ("extra", "named"),
        [((0, np.ones(2)), ["'extra'[1]", "ndarray"]), (nn.Linear(1, 1), ["'extra'", "Linear"]), ({1}, ["'extra'", "set"])],
    )
    def test_what_may_change_is_named(self, extra, named, float64):
        x, eager = torch.randn(4), ELBO(2)(scaled, proposal)
        fused = compile(eager)
        with warned(*named, category=NotCompiledWarning):
            same(fused, eager, x, extra=extra)


@pytest.mark.usefixtures("unfused")
class TestAFailingProgram:
    """Its own error comes alone: a warning would be an error of its own here."""

    def test_which_fails_on_another_batch(self, float64):
        def model(x):
            if x.sum() > 100.0:
                raise ArithmeticError("too large")
            scaled(x)

        fused = compile(ELBO(2)(model, proposal))
        with pytest.raises(ArithmeticError, match="too large"):
            fused(torch.full((4,), 50.0))
        with warned("test_compiled.py", "if x.sum() > 100.0:", category=NotCompiledWarning):
            fused(torch.ones(4))
        with pytest.raises(ArithmeticError, match="too large"):
            fused(torch.full((5,), 50.0))

    def test_whose_gradient_fails(self, float64):
        def model(x):
            scaled(x, shift=torch.special.gammainc(pyro.param("shift", torch.tensor(0.1)), torch.tensor(1.0)))

        with pytest.raises(NotImplementedError, match="the derivative for 'igamma: input' is not implemented"):
            compile(ELBO(2)(model, proposal))(torch.ones(4))
        with pytest.raises(NotImplementedError, match="the derivative for 'igamma: input' is not implemented"):
            pyrovae.fit((model, proposal), torch.ones(8), objective=ELBO(2), epochs=1, batch_size=4, compile=True)

    def test_which_refuses_by_itself(self, float64):
        def model(x, limit=1.0):
            if len(x) > 4:
                raise InputError("mine")
            scaled(x, limit)

        fused = compile(ELBO(2)(model, proposal), torch.ones(4), 1.0)
        with refused("mine"):
            fused(torch.ones(5), 1.0)

    def test_which_also_has_an_argument_that_may_change(self, float64):
        fused = compile(ELBO(2)(scaled, proposal))
        with pytest.raises(TypeError, match="multiply sequence"):
            fused(torch.ones(4), [object()])

    def test_which_fails_as_it_is_weighed(self, float64):
        def model(x):
            z = None
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                if z.dim() > 1 and len(z) > 10:
                    raise ArithmeticError("too many")
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        with pytest.raises(ArithmeticError, match="too many"):
            pyrovae.log_likelihood((model, proposal), torch.ones(4), 50, compile=True)
