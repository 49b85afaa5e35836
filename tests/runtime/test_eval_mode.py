"""Networks that programs reach in one way or another, with dropout and batch normalisation, are evaluated alike."""

from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, partial, wraps
from itertools import product
from threading import Thread
from types import SimpleNamespace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from checks import refused, slow_but
from pyro import poutine
from torch import nn

import pyrovae
from pyrovae.evaluation import (
    annealed_importance_sampling,
    bidirectional,
    bound_curve,
    impute,
    posterior_means,
    rate_distortion,
    reconstructions,
)
from pyrovae.runtime.eval_mode import evaluating, modes_kept
from pyrovae.runtime.reachable_modules import modules_reached
from pyrovae.training import EvaluationModeWarning

pytestmark = pytest.mark.usefixtures("float64")


def network(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, outputs))


def observe(decoder, x, mask=None):
    with pyro.plate("data", len(x), dim=-1):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        loc = decoder(z.reshape(-1, 2)).reshape(*z.shape[:-1], 3)
        px = dist.Normal(loc, 1.0)
        pyro.sample("x", (px if mask is None else px.mask(mask)).to_event(1), obs=x)


def propose(encoder, x, mask=None):
    with pyro.plate("data", len(x), dim=-1):
        loc, log_scale = encoder(x).chunk(2, -1)
        pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


class Networks(nn.Module):
    """The pair as methods of a module, which is evaluated right whatever else is."""

    def __init__(self):
        super().__init__()
        self.decoder, self.encoder = network(2, 3), network(3, 4)

    def model(self, x, mask=None):
        observe(self.decoder, x, mask)

    def guide(self, x, mask=None):
        propose(self.encoder, x, mask)


def named(networks):
    """Functions that close over their networks, and name them to Pyro."""
    decoder, encoder = networks.decoder, networks.encoder

    def model(x, mask=None):
        pyro.module("decoder", decoder)
        observe(decoder, x, mask)

    def guide(x, mask=None):
        pyro.module("encoder", encoder)
        propose(encoder, x, mask)

    return model, guide


def closures(networks):
    decoder, encoder = networks.decoder, networks.encoder
    return lambda x, mask=None: observe(decoder, x, mask), lambda x, mask=None: propose(encoder, x, mask)


def partials(networks):
    return partial(observe, networks.decoder), partial(propose, networks.encoder)


def defaults(networks):
    def model(x, mask=None, decoder=networks.decoder):
        observe(decoder, x, mask)

    def guide(x, mask=None, *, parts={"encoder": [networks.encoder]}):  # noqa: B006
        propose(parts["encoder"][0], x, mask)

    return model, guide


def methods(networks):
    class Plain:
        def __init__(self):
            self.parts = {"decoder": networks.decoder, "encoder": [networks.encoder]}

        def model(self, x, mask=None):
            observe(self.parts["decoder"], x, mask)

        def guide(self, x, mask=None):
            propose(self.parts["encoder"][0], x, mask)

    plain = Plain()
    return plain.model, plain.guide


def slots(networks):
    @dataclass(slots=True)
    class Slotted:
        decoder: nn.Module
        encoder: nn.Module

        def model(self, x, mask=None):
            observe(self.decoder, x, mask)

        def guide(self, x, mask=None):
            propose(self.encoder, x, mask)

    slotted = Slotted(networks.decoder, networks.encoder)
    return slotted.model, slotted.guide


HELD = SimpleNamespace()


def through_a_global(x):
    return HELD.decoder(x)


def model_of_globals(x, mask=None):
    observe(through_a_global, x, mask)


def guide_of_globals(x, mask=None):
    def encode(x):
        return HELD.encoder(x)

    propose(encode, x, mask)


def names_of_globals(networks):
    HELD.decoder, HELD.encoder = networks.decoder, networks.encoder
    return model_of_globals, guide_of_globals


def handled(networks):
    def decorated(program):
        @wraps(program)
        def run(*args, **kwargs):
            return program(*args, **kwargs)

        return run

    model, guide = closures(networks)
    return poutine.mask(decorated(model), mask=True), poutine.scale(guide, 1.0)


def out_of_sight(networks):
    """Programs that get their networks from where nobody looks, so that only their calls show them."""
    hidden = iter([networks])

    @cache
    def get():
        return next(hidden)

    return lambda x, mask=None: observe(get().decoder, x, mask), lambda x, mask=None: propose(get().encoder, x, mask)


KINDS = [named, closures, partials, defaults, methods, slots, names_of_globals, handled, out_of_sight]
kinds = pytest.mark.parametrize("kind", KINDS)
X = torch.linspace(-2.0, 2.0, 18, dtype=torch.float64).reshape(6, 3)
EVALUATIONS = {
    "log_likelihood": lambda *pair: pyrovae.log_likelihood(pair, X, 200).log_p,
    "a mixture": lambda *pair: pyrovae.log_likelihood(pair, X, 200, proposal="mixture").log_p,
    "bound_curve": lambda *pair: bound_curve(pair, X, num_particles=(1, 5), num_samples=50).values,
    "annealing": lambda *pair: annealed_importance_sampling(pair, X, 3, 4, steps=2).log_weights,
    "annealing from the guide": lambda *pair: (
        annealed_importance_sampling(pair, X, 3, 4, start="guide", steps=2).log_weights
    ),
    "bidirectional": lambda *pair: bidirectional(pair, X, 3, 4, steps=2).reverse,
    "reconstructions": lambda *pair: reconstructions(pair, X),
    "posterior_means": lambda *pair: posterior_means(pair, X),
    "rate_distortion": lambda *pair: rate_distortion({"a": pair}, X, num_samples=8).distortions["a"],
    "impute": lambda *pair: impute(pair, X, X > 0.0, num_samples=2, num_particles=8),
}


def met(kind, name):
    """Whether the two are met in each run: each evaluation by one kind of function, the plainest by both."""
    return name in ("log_likelihood", "posterior_means") or (kind is named) == (name not in ("annealing", "bidirectional"))


def networks_of(seed=0):
    """Networks whose running statistics are neither those of their data nor those that they began with."""
    torch.manual_seed(seed)
    networks = Networks()
    for part in (networks.decoder, networks.encoder):
        part[1].running_mean.normal_()
    return networks


def state(networks):
    return {name: value.clone() for name, value in networks.state_dict().items()}


def modes(networks):
    return [part.training for part in networks.modules()]


@pytest.mark.filterwarnings("ignore::pyrovae.evaluation.ImportanceSamplingWarning")
class TestEvaluations:
    @pytest.mark.parametrize(("kind", "name"), slow_but(met, product([named, out_of_sight], EVALUATIONS)))
    def test_functions_are_evaluated_as_modules_are(self, kind, name):
        """From the same noise; and nothing of the networks is changed."""
        networks, evaluate = networks_of(), EVALUATIONS[name]
        expected = evaluate(networks.eval().model, networks.guide)
        networks.train().decoder[0].eval()
        before, flags = state(networks), modes(networks)
        np.testing.assert_array_equal(evaluate(*kind(networks)), expected)
        assert modes(networks) == flags
        assert all(torch.equal(value, before[name]) for name, value in networks.state_dict().items())

    @kinds
    def test_wherever_the_networks_are(self, kind):
        networks = networks_of()
        expected = pyrovae.log_likelihood(networks, X, 100).log_p
        model, guide = kind(networks)
        assert np.array_equal(pyrovae.log_likelihood((model, guide), X, 100).log_p, expected)
        if kind is not out_of_sight:
            assert set(networks.modules()) - {networks} <= set(modules_reached(model, guide))

    @pytest.mark.parametrize("kind", [closures, out_of_sight])
    def test_recorded_programs(self, kind, unfused):
        networks = networks_of()
        expected = pyrovae.log_likelihood(networks, X, 100, compile=False).log_p
        found = pyrovae.log_likelihood(kind(networks), X, 100, compile=True).log_p
        np.testing.assert_allclose(found, expected)
        assert all(modes(networks))

    @kinds
    def test_a_row_owes_nothing_to_its_neighbours(self, kind):
        model, guide = kind(networks_of())
        alone = torch.cat([posterior_means((model, guide), row) for row in X.split(1)])
        torch.testing.assert_close(posterior_means((model, guide), X), alone)

    def test_modes_are_put_back_after_an_error(self):
        networks = networks_of()
        networks.encoder.eval()
        before = modes(networks)
        with refused("'z'", "pyro.sample('z', ...)"):
            pyrovae.log_likelihood((named(networks)[0], lambda x: None), X, 10)
        assert modes(networks) == before


class TestContexts:
    def test_compiled_networks(self):
        """Dynamo traces what is called for each module; here without a backend, which would take a compiler."""
        dropout = nn.Sequential(nn.Dropout(0.5))
        compiled = torch.compile(dropout, backend="eager", fullgraph=True)
        with evaluating():
            assert torch.equal(poutine.trace(lambda: compiled(X)).get_trace().nodes["_RETURN"]["value"], X)
        assert dropout.training
        assert dropout[0].training

    def test_they_lie_within_each_other(self):
        networks = networks_of()
        networks.decoder.eval()
        before = modes(networks)
        model, guide = out_of_sight(networks)
        with evaluating(model):
            with evaluating(model, guide):
                poutine.trace(model).get_trace(X)
                poutine.trace(guide).get_trace(X)
                assert not any(part.training for part in networks.encoder.modules())
            poutine.trace(guide).get_trace(X)
            assert not any(part.training for part in networks.encoder.modules())
        assert modes(networks) == before

    def test_modules_that_no_program_calls_are_left_alone(self):
        """Those that are called outside of Pyro's handlers, and those of another thread's programs."""
        outside, other = nn.Dropout(0.5), nn.Dropout(0.5)
        with evaluating():
            outside(X)
            thread = Thread(target=lambda: poutine.trace(other).get_trace(X))
            thread.start()
            thread.join()
            assert outside.training
            assert other.training

    def test_nothing_is_left_behind(self):
        late = nn.Dropout(0.5)
        with evaluating():
            pass
        poutine.trace(late).get_trace(X)
        assert late.training

    def test_modes_of_what_joins_are_kept(self):
        first, late = nn.Dropout(0.5), nn.Dropout(0.5).eval()
        with modes_kept(first) as kept:
            kept.keep([late])
            first.eval()
            late.train()
            kept.keep([first, late])
        assert first.training
        assert not late.training


class Spy(nn.Module):
    """Takes down in which mode it is called, with a gradient and without."""

    def __init__(self):
        super().__init__()
        self.seen = {True: set(), False: set()}

    def forward(self, x):
        if not torch.compiler.is_compiling():
            self.seen[self.training].add(torch.is_grad_enabled())
        return x


@pytest.mark.parametrize("validation", [None, X], ids=["trains", "validates"])
@pytest.mark.parametrize("training", [True, False], ids=["from training", "from evaluation"])
class TestFit:
    @pytest.mark.parametrize("kind", [Networks, named], ids=["modules", "functions"])
    def test_networks_train_in_steps_and_have_their_modes_again(self, kind, training, validation):
        networks = networks_of().train(training)
        networks.decoder[3].train(not training)
        networks.decoder.append(spy := Spy().train(training))
        before, flags = state(networks), modes(networks)
        pair = (networks.model, networks.guide) if kind is Networks else named(networks)
        with pytest.warns(EvaluationModeWarning) if training else nullcontext():
            pyrovae.fit(pair, X, validation, epochs=2, batch_size=3, progress=False)
        assert modes(networks) == flags
        assert True in spy.seen[True]
        steps = networks.decoder[1].num_batches_tracked - before["decoder.1.num_batches_tracked"]
        assert steps in (2, 4)  # of the best of two epochs

    def test_functions_train_as_modules_do(self, training, validation):
        found = []
        for kind in (lambda networks: (networks.model, networks.guide), named):
            pyro.clear_param_store()
            networks = networks_of().train(training)
            pyrovae.fit(kind(networks), X, validation, epochs=2, batch_size=3, progress=False)
            found.append(state(networks))
        for name, value in found[0].items():
            torch.testing.assert_close(found[1][name], value)

    def test_a_network_that_is_not_trained_trains_in_the_mode_that_it_has(self, training, validation):
        """Frozen, and not named to Pyro; it is validated in evaluation mode all the same."""
        networks = networks_of()
        fixed = nn.Sequential(network(3, 3), Spy()).requires_grad_(False).train(training)
        model, guide = named(networks)
        pyrovae.fit((model, lambda x: guide(fixed(x))), X, validation, epochs=1, batch_size=3, progress=False)
        assert all(part.training == training for part in fixed.modules())
        assert fixed[0][1].num_batches_tracked == (2 if training else 0), "those of training alone"
        assert (True in fixed[1].seen[True]) == training

    def test_modes_are_put_back_after_an_error(self, training, validation):
        networks = networks_of().train(training)
        with refused("loss", "nan"):
            pyrovae.fit(
                named(networks), X, validation, optimizer=partial(torch.optim.SGD, lr=1e300), epochs=5, progress=False
            )
        assert all(flag == training for flag in modes(networks))
