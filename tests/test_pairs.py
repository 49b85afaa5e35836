"""Whatever takes a pair takes it first and whole, and takes the data that ``fit`` takes."""

import inspect
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from checks import refused, slow_but
from torch.utils.data import Dataset

import pyrovae
from pyrovae import IWAE, VAE, evaluation
from pyrovae.data import Binarize, Split
from pyrovae.likelihoods import Bernoulli
from pyrovae.networks import MLP

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore::pyrovae.evaluation.ImportanceSamplingWarning"),
]
x = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
draws = {"num_samples": 20}
calls = {
    "annealed_importance_sampling": partial(pyrovae.annealed_importance_sampling, num_chains=2, temperatures=3, steps=2),
    "bidirectional": partial(pyrovae.bidirectional, num_chains=2, temperatures=3, steps=2),
    "bound_curve": partial(pyrovae.bound_curve, num_particles=(1, 2), **draws),
    "fit": partial(pyrovae.fit, epochs=1, progress=False),
    "gradient_statistics": partial(pyrovae.gradient_statistics, objective=IWAE(2), num_samples=2),
    "impute": partial(pyrovae.impute, **draws),
    "log_likelihood": partial(pyrovae.log_likelihood, **draws),
    "aggregate_posterior": partial(evaluation.aggregate_posterior, num_samples=2),
    "inference_gaps": partial(evaluation.inference_gaps, steps=2, **draws),
    "interpolate": lambda pair, data: evaluation.interpolate(pair, data, data, steps=3),
    "kl_decomposition": partial(evaluation.kl_decomposition, num_samples=2),
    "posterior_means": evaluation.posterior_means,
    "reconstructions": evaluation.reconstructions,
}
"""What takes a pair and data."""
others = {
    "find_plates": lambda pair: pyrovae.find_plates(pair, x),
    "log_weights": lambda pair: pyrovae.log_weights(pair, x).total,
    "refine": lambda pair: pyrovae.refine(pair).params(x),
    "traverse": lambda pair: evaluation.traverse(pair, x[:1], num_samples=20),
}


class Rows(Dataset):
    def __len__(self):
        return len(x)

    def __getitem__(self, index):
        return x[index]


forms = {
    "array": x.numpy(),
    "data set": Rows(),
    "mapping": {"x": x},
    "split": Split(x, None, np.arange(len(x)), Binarize.parse("none")),
}


def vae() -> VAE:
    torch.manual_seed(0)
    network = partial(MLP, hidden=(4,))
    return VAE((3,), 2, likelihood=Bernoulli, encoder=network, decoder=network)


def numbers(found) -> list[torch.Tensor]:
    """The tensors and arrays of a result."""
    parts = [found] if isinstance(found, torch.Tensor) else vars(found).values() if hasattr(found, "__dict__") else found
    return [torch.as_tensor(part) for part in parts if isinstance(part, torch.Tensor | np.ndarray)]


def outcome(call, pair, data=None) -> list[torch.Tensor]:
    torch.manual_seed(1)
    found = call(pair) if data is None else call(pair, data)
    return numbers(found) + [value.detach().clone() for value in pair_parameters(pair)]


def pair_parameters(pair) -> list[torch.Tensor]:
    model, guide = pair if isinstance(pair, tuple) else (pair.model, pair.guide)
    return [*model.parameters(), *guide.parameters()]


def with_mask(name, data):
    """Imputation needs to know what was observed."""
    if name != "impute":
        return data
    given = {"mask": x > 0}
    if isinstance(data, Split):
        return Split(data.x, None, data.index, data.binarize, given)
    return {**(data if isinstance(data, dict) else {"x": data}), **given}


def assert_same(found, expected):
    for value, other in zip(found, expected, strict=True):
        torch.testing.assert_close(value, other, rtol=0.0, atol=0.0, equal_nan=True)


def test_nothing_is_left_out():
    public = {**{name: getattr(pyrovae, name) for name in pyrovae.__all__}, **vars(evaluation)}
    functions = {name: value for name, value in public.items() if inspect.isfunction(value) and name[0] != "_"}
    taking = {name for name, value in functions.items() if next(iter(inspect.signature(value).parameters)) == "pair"}
    assert taking == calls.keys() | others.keys()
    assert not any("guide" in inspect.signature(value).parameters for value in functions.values())


@pytest.mark.parametrize("name", calls | others)
def test_a_vae_and_its_two_programs_are_one_pair(name):
    found, expected = [], []
    for each, wrap in ((expected, lambda made: made), (found, lambda made: (made.model, made.guide))):
        data = (with_mask(name, x),) if name in calls else ()
        each += outcome((calls | others)[name], wrap(vae()), *data)
    assert found
    assert_same(found, expected)


def met(name, form):
    """Whether the two are met in each run: half of the forms by each call, and half of the calls by each form."""
    return ([*calls].index(name) + [*forms].index(form)) % 2 == 0


@pytest.mark.parametrize(("name", "form"), slow_but(met, product(calls, forms)))
def test_all_take_what_fit_takes(name, form):
    expected = outcome(calls[name], vae(), with_mask(name, x))
    found = outcome(calls[name], vae(), with_mask(name, forms[form]))
    assert_same(found, expected)


def test_a_split_that_is_binarised_dynamically_is_evaluated_by_its_fixed_draw():
    split = Split(x * 0.5 + 0.1, None, np.arange(len(x)), Binarize.parse("dynamic"))
    one, other = vae(), vae()
    found = pyrovae.log_likelihood(one, split, 50).log_p
    np.testing.assert_array_equal(found, pyrovae.log_likelihood(other, split.fixed_draw(), 50).log_p)


@pytest.mark.parametrize("name", sorted(calls.keys() | others.keys()))
class TestTheOldForm:
    """A model and a guide as two arguments."""

    def function(self, name):
        return getattr(pyrovae, name, None) or getattr(evaluation, name)

    @pytest.mark.parametrize("more", [(), (x,), (x, 1, 2, 3, 4)], ids=len)
    def test_two_arguments_are_refused_with_the_remedy(self, name, more):
        pair = vae()
        with refused("VAE", "(model, guide)"):
            self.function(name)(pair.model, pair.guide, *more)

    def test_two_names_are_refused_with_the_remedy(self, name):
        pair = vae()
        with refused(name, "'guide'", "(model, guide)"):
            self.function(name)(guide=pair.guide, model=pair.model)


@pytest.mark.parametrize(
    ("pair", "found"),
    [
        (None, ["NoneType"]),
        (x, ["Tensor"]),
        ((vae, vae, vae), ["tuple", "function, function, function"]),
        ((x, vae), ["tuple", "Tensor, function"]),
        (vae, ["vae"]),
    ],
)
def test_what_is_no_pair_is_refused(pair, found):
    with refused("pair", *found, "(model, guide)"):
        pyrovae.log_weights(pair, x)
    with refused("pair", *found):
        IWAE(5)(pair)


def test_an_objective_takes_a_pair_and_pyro_s_two_programs():
    pair = vae()
    losses = []
    for module in (IWAE(5)(pair), IWAE(5)((pair.model, pair.guide)), IWAE(5)(pair.model, pair.guide)):
        torch.manual_seed(1)
        losses.append(module(x).item())
    assert losses == [losses[0]] * 3
