"""Pyro's automatic guides: weighed as they are, or refused with what their user can do."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from checks import refused
from pyro import poutine
from pyro.infer import Trace_ELBO, autoguide

from pyrovae import ELBO, IWAE, fit, log_likelihood
from pyrovae.engine.log_weights import log_weights

pytestmark = pytest.mark.usefixtures("float64")
x = torch.tensor([-0.4, 0.1, 1.3, 2.0], dtype=torch.float64)
joint = ("DiagonalNormal", "MultivariateNormal", "LowRankMultivariateNormal", "IAFNormal", "Gaussian", "Structured")
messengers = ("NormalMessenger", "HierarchicalNormalMessenger", "RegressiveMessenger")


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


@pytest.mark.parametrize("name", joint)
def test_a_guide_that_is_joint_over_the_data_is_named_as_such(name):
    guide = getattr(autoguide, f"Auto{name}")(model)
    with refused("guide", "AutoNormal", "amortized"):
        log_weights((model, guide), x)


def test_a_joint_guide_in_a_list_is_named_too():
    guide = autoguide.AutoGuideList(model)
    guide.append(autoguide.AutoDiagonalNormal(model))
    with refused("'_AutoGuideList.0_latent'", "AutoNormal"):
        log_weights((model, guide), x)


@pytest.mark.parametrize("name", messengers)
def test_a_guide_that_runs_the_model_is_not_charged_with_what_that_observes(name):
    guide = getattr(autoguide, f"Auto{name}")(model)
    weights = log_weights((model, guide), x, num_samples=3)
    site = weights.guide.nodes["z"]
    z, q = site["value"], site["fn"]
    expected = dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(x) - q.log_prob(z)
    torch.testing.assert_close(weights.total, expected, rtol=0, atol=1e-10)
    module = ELBO(1)(model, guide)
    module.start(x)
    pyro.set_rng_seed(1)
    ours = module(x).item()
    pyro.set_rng_seed(1)
    assert ours == pytest.approx(Trace_ELBO().loss(model, guide, x), abs=1e-10)
    assert {id(value) for value in guide.parameters()} <= {id(value) for value in module.parameters()}


@pytest.mark.filterwarnings("ignore::pyrovae.evaluation.ImportanceSamplingWarning")
def test_and_its_log_likelihood_too():
    guide = autoguide.AutoNormalMessenger(model, init_scale=1.0)
    module = IWAE(5, "dreg")(model, guide)
    optimizer = torch.optim.Adam(module(x) and module.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        module(x).backward()
        optimizer.step()
    estimate = log_likelihood((model, guide), x, 2000)
    exact = dist.Normal(0.0, 2.0**0.5).log_prob(x).numpy()
    assert (abs(estimate.log_p - exact) < 3 * estimate.standard_error + 1e-6).all()


def test_a_discrete_latent_that_is_hidden_from_the_guide():
    def discrete(x):
        with pyro.plate("data", len(x)):
            label = pyro.sample("label", dist.Categorical(torch.ones(2)), infer={"enumerate": "parallel"})
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + label, 1.0), obs=x)

    guide = autoguide.AutoNormal(poutine.block(discrete, hide=["label"]))
    with refused("'label'", "pyro.sample('label', ...)", "enumerated"):
        log_weights((discrete, guide), x)


class TestParametersByPlace:
    """An automatic guide has some for each datum by its place in the batch."""

    guides = pytest.mark.parametrize(
        "make",
        [
            lambda: autoguide.AutoNormal(model, init_scale=1.0),
            lambda: autoguide.AutoNormalMessenger(model, init_scale=1.0),
        ],
        ids=["AutoNormal", "AutoNormalMessenger"],
    )

    @guides
    @pytest.mark.filterwarnings("ignore::pyrovae.evaluation.ImportanceSamplingWarning")
    def test_all_data_are_weighed_together(self, make):
        guide = make()
        fit((model, guide), x, epochs=100, batch_size=4, optimizer=partial(torch.optim.Adam, lr=0.1), compile=False)
        estimate = log_likelihood((model, guide), x, 2000, max_rows=8, max_weights=4000, compile=False)
        exact = dist.Normal(0.0, 2.0**0.5).log_prob(x).numpy()
        assert (abs(estimate.log_p - exact) < 4 * estimate.standard_error).all()
        assert (estimate.effective_sample_size > 1000).all()

    @guides
    def test_smaller_batches_and_validation_data_are_refused(self, make):
        with refused("batch_size=4", "amortized"):
            fit((model, make()), x, batch_size=2)
        with refused("validation", "amortized"):
            fit((model, make()), x, x + 1.0, batch_size=4)
        with refused("accumulate", 2, "accumulate=1"):
            fit((model, make()), x, batch_size=4, accumulate=2)

    def test_an_amortised_messenger_has_none(self):
        guide = autoguide.AutoNormalMessenger(model, amortized_plates=("data",))
        fit((model, guide), x, x[:3], batch_size=2, epochs=1, compile=False)


def test_swapped_programs_are_still_called_so():
    with refused("'x'", "swapped"):
        log_weights((model, model), x)
