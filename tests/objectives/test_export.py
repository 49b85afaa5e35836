"""``torch.export`` records an objective on a pair as one graph over the same parameters."""

import warnings
from functools import partial

import pyro
import pytest
import torch
from checks import made, members, slow_but
from programs import GaussianGuide, LinearGaussian, Subsampled, Tutorial, WithDeterministic, WithPixelPlate, functions

import pyrovae.objectives
from pyrovae.likelihoods import Normal
from pyrovae.networks import MLP
from pyrovae.objectives import ELBO, IWAE, SIWAE, BetaELBO, Objective, ReweightedWakeSleep
from pyrovae.vae import VAE

pytestmark = pytest.mark.usefixtures("float64")
classes = members(pyrovae.objectives, Objective)


def vae():
    network = partial(MLP, hidden=(8,))
    vae = VAE((3,), 2, likelihood=partial(Normal, learned="shared"), encoder=network, decoder=network)
    return vae.model, vae.guide


def modules(structure=LinearGaussian):
    model = structure()
    return model, GaussianGuide(model, shift=0.3)


def methods():
    tutorial = Tutorial()
    return tutorial.model, tutorial.guide


def subsampled():
    pair = Subsampled(*modules(), 2)
    return pair.model, pair.guide


def assert_exports(objective, pair, x):
    module = objective(*pair)
    module.start(x)
    recorded = torch.export.export(module, (x,), strict=False)
    assert_one_graph_of_tensors(recorded)
    graph = recorded.module()
    values, gradients = [], []
    for run in (module, graph):
        pyro.set_rng_seed(1)
        values.append(run(x))
        parameters = dict(run.named_parameters())
        found = torch.autograd.grad(values[-1], [*parameters.values()], allow_unused=True)
        gradients.append({name: value for name, value in zip(parameters, found, strict=True) if value is not None})
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=1e-10)
    assert len(gradients[0]) > 0
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-10)


def assert_one_graph_of_tensors(recorded):
    graphs = [module.graph for module in recorded.graph_module.modules() if isinstance(module, torch.fx.GraphModule)]
    calls = [str(node.target) for graph in graphs for node in graph.nodes if node.op == "call_function"]
    assert len(calls) > 10
    for word in ("item", "_local_scalar_dense", "assert", "sym_", "nonzero", "unbacked"):
        assert [call for call in calls if word in call.replace("getitem", "")] == []


@pytest.mark.parametrize("cls", slow_but(lambda cls: cls in (IWAE, BetaELBO, ReweightedWakeSleep, SIWAE), classes))
def test_a_vae(cls):
    assert_exports(made(cls, 3), vae(), torch.randn(4, 3))


def test_a_module_that_has_not_been_called_yet():
    x = torch.randn(4, 3)
    module = IWAE(3)(*modules())
    recorded = torch.export.export(module, (x,), strict=False)
    assert_one_graph_of_tensors(recorded)
    losses = []
    for run in (recorded.module(), module):
        pyro.set_rng_seed(1)
        losses.append(run(x))
    torch.testing.assert_close(*losses, rtol=0, atol=1e-10)


def test_the_analytic_kl():
    assert_exports(ELBO(2, analytic_kl=True), vae(), torch.randn(4, 3))


@pytest.mark.parametrize(
    "pair",
    [
        modules,
        partial(modules, WithDeterministic),
        partial(modules, WithPixelPlate),
        methods,
        lambda: functions(*modules()),
        subsampled,
    ],
    ids=["modules", "deterministic", "inner plate", "methods", "functions", "subsampled plate"],
)
def test_programs_of_the_user(pair):
    assert_exports(IWAE(3), pair(), torch.randn(4, 3))


def test_other_data_and_trained_parameters_flow_through():
    """The graph holds no value of the batch or of the parameters that it was recorded at."""
    model, guide = functions(*modules())
    module = ELBO(2)(model, guide)
    x, other = torch.randn(2, 4, 3)
    module.start(x)
    graph = torch.export.export(module, (x,), strict=False).module()
    with torch.no_grad(), warnings.catch_warnings():
        for name, parameter in graph.named_parameters():
            parameter.add_(0.1)
            module.get_parameter(name).copy_(parameter)
    losses = []
    for run in (module, graph):
        pyro.set_rng_seed(1)
        losses.append(run(other).item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-10)
