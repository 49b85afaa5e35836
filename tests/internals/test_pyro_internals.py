"""What is relied on of Pyro beyond what it documents: each private name exists, and does what is relied on."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.nn import PyroModule, PyroParam
from pyro.poutine import runtime, subsample_messenger
from torch import nn
from torch.distributions import constraints

from pyrovae.internals import pyro_internals as internals


class Positive(PyroModule):
    def __init__(self):
        super().__init__()
        self.rate = PyroParam(torch.ones(2), constraint=constraints.positive)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (runtime, "_PYRO_STACK"),
        (runtime, "_DIM_ALLOCATOR"),
        (runtime._DIM_ALLOCATOR, "_stack"),
        (subsample_messenger, "_Subsample"),
        (pyro.get_param_store(), "_constraints"),
        (dist.Normal(0.0, 1.0).mask(False), "_mask"),
        (Positive(), "_pyro_name"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_private_name_exists(owner, name):
    assert hasattr(owner, name), f"Pyro {pyro.__version__} has no {name}"


def test_free_values_have_the_suffix():
    assert [name for name, _ in Positive().named_parameters()] == [f"rate{internals.UNCONSTRAINED}"]


def test_a_module_within_another_has_its_name_in_the_store():
    outer = PyroModule()
    outer.inner = Positive()
    assert internals.name_in_store(outer) == ""
    assert internals.name_in_store(outer.inner) == "inner"
    assert internals.name_in_store(nn.Linear(1, 1)) == ""


def test_constraints_are_by_name():
    pyro.param("rate", torch.ones(2), constraint=constraints.positive)
    assert internals.stored_constraints() == {"rate": constraints.positive}


def test_a_mask_is_what_a_distribution_was_masked_by():
    mask = torch.tensor([True, False])
    assert internals.mask_of(dist.Normal(torch.zeros(2), 1.0).mask(mask)) is mask
    assert internals.mask_of(dist.Normal(torch.zeros(2), 1.0).mask(False)) is False


def test_deterministic_sites():
    def program():
        pyro.deterministic("a", torch.zeros(()))
        pyro.sample("b", dist.Normal(0.0, 1.0))

    nodes = poutine.trace(program).get_trace().nodes
    assert [internals.is_deterministic(nodes[name]) for name in "ab"] == [True, False]


def test_plates_are_subsamples():
    def program():
        with pyro.plate("data", 10, subsample_size=3):
            pass

    fn = poutine.trace(program).get_trace().nodes["data"]["fn"]
    assert isinstance(fn, internals.Subsample)
    assert (fn.size, fn.subsample_size) == (10, 3)


def test_programs_run_outside_all_handlers():
    with poutine.trace() as trace, pyro.plate("data", 3):
        with internals.outside_all_handlers(), pyro.plate("other", 2):
            inner = pyro.sample("inner", dist.Normal(0.0, 1.0))
        outer = pyro.sample("outer", dist.Normal(0.0, 1.0))
    assert inner.shape == (2,)
    assert outer.shape == (3,)
    assert "inner" not in trace.trace
    assert "outer" in trace.trace
