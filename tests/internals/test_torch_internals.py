"""What is relied on of torch beyond what it documents: each private name exists, and does what is relied on."""

import sys
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.distributions.transforms import TanhTransform
from torch.fx import graph_module
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.modules import batchnorm
from torch.optim import lr_scheduler as schedules
from torch.utils import _python_dispatch, _pytree

from pyrovae.internals import torch_internals as internals

SGD = {"lr": 0.1, "weight_decay": 0.0, "momentum": 0.0, "dampening": 0.0, "nesterov": False}
SGD |= {"maximize": False, "is_first_step": False}
ADAM = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.0, "eps": 1e-8, "amsgrad": True, "maximize": False}


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (torch, "_standard_gamma"),
        (torch, "_sample_dirichlet"),
        (batchnorm, "_BatchNorm"),
        (_python_dispatch, "TorchDispatchMode"),
        (_pytree, "tree_leaves"),
        (_pytree, "tree_map_only"),
        (nn.Module(), "_buffers"),
        (nn.Module(), "_parameters"),
        (nn.Module(), "_non_persistent_buffers_set"),
        (torch.zeros(1), "_version"),
        (torch.ops.aten.add.Tensor, "_schema"),
        (graph_module, "_loader"),
        (torch.optim.SGD([torch.zeros(1)], 0.1), "_optimizer_step_pre_hooks"),
        (torch.optim.SGD([torch.zeros(1)], 0.1), "_optimizer_step_post_hooks"),
        (nn.Parameter(torch.zeros(1)), "_post_accumulate_grad_hooks"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_private_name_exists(owner, name):
    assert hasattr(owner, name), f"torch {torch.__version__} has no {name}"


@pytest.mark.parametrize("draw", [internals.standard_gamma, internals.sample_dirichlet])
def test_draws_are_made_by_these_functions(draw):
    """The distributions of torch call them, so that replacing them replaces their draws."""
    seen = []

    class Seeing(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    with Seeing():
        torch.distributions.Gamma(torch.ones(2), torch.ones(2)).sample()
        torch.distributions.Dirichlet(torch.ones(2)).sample()
    assert draw in seen


@pytest.mark.parametrize("kind", ["pre", "post"])
def test_hooks_of_an_optimizer_are_seen(kind):
    optimizer = torch.optim.SGD([torch.zeros(1)], 0.1)
    assert not internals.has_step_hooks(optimizer)
    getattr(optimizer, f"register_step_{kind}_hook")(lambda *_: None)
    assert internals.has_step_hooks(optimizer)


def test_hooks_of_accumulation_are_seen():
    parameter = nn.Parameter(torch.zeros(1))
    assert not internals.has_accumulation_hooks(parameter)
    parameter.register_post_accumulate_grad_hook(lambda _: None)
    assert internals.has_accumulation_hooks(parameter)


@pytest.mark.parametrize("kind", [schedules.ChainedScheduler, partial(schedules.SequentialLR, milestones=[1])])
def test_the_schedules_within_a_schedule(kind):
    optimizer = torch.optim.SGD([torch.zeros(1)], 0.1)
    parts = [schedules.ConstantLR(optimizer), schedules.ExponentialLR(optimizer, 0.9)]
    whole = kind(schedulers=parts) if kind is schedules.ChainedScheduler else kind(optimizer, parts)
    assert internals.inner_schedules(whole) == parts
    assert internals.inner_schedules(parts[0]) == []


def test_parameters_and_buffers_can_be_replaced():
    module = nn.BatchNorm1d(2)
    internals.own_buffers(module)["running_mean"] = torch.full((2,), 3.0)
    internals.own_parameters(module)["weight"] = torch.full((2,), 4.0)
    assert module.running_mean is not None
    assert module.running_mean.tolist() == [3.0, 3.0]
    assert module.weight.tolist() == [4.0, 4.0]


def test_unsaved_buffers_are_those_that_are_not_persistent():
    module = nn.Module()
    module.register_buffer("kept", torch.zeros(1))
    module.register_buffer("lost", torch.ones(1), persistent=False)
    assert [*internals.unsaved_buffers(module)] == ["lost"]
    assert "lost" not in module.state_dict()


def test_every_batch_normalisation_is_one():
    layers = [nn.BatchNorm1d(2), nn.BatchNorm2d(2), nn.LazyBatchNorm1d(), nn.SyncBatchNorm(2)]
    assert all(isinstance(layer, internals.BatchNorm) for layer in layers)
    assert not isinstance(nn.LayerNorm(2), internals.BatchNorm)


def test_a_version_counts_changes_in_place():
    x = torch.zeros(2)
    before = internals.version(x)
    x.add_(1.0)
    assert internals.version(x) == before + 1
    assert internals.version(x + 1.0) == 0


def test_a_schema_says_what_is_written_to_and_what_shares_memory():
    assert internals.schema_of(torch.ops.aten.add_.Tensor).is_mutable
    assert not internals.schema_of(torch.ops.aten.add.Tensor).is_mutable
    views = internals.schema_of(torch.ops.aten.view.default).returns
    assert [value.alias_info is not None for value in views] == [True]
    assert internals.schema_of(len) is None
    assert "device" in {argument.name for argument in internals.schema_of(torch.ops.aten.zeros.default).arguments}


def test_caches_of_a_transform_are_not_what_it_was_built_from():
    transform = TanhTransform(cache_size=1)
    transform(torch.zeros(2))
    assert transform.inv is not None
    assert not [value for value in internals.held_by_transform(transform) if isinstance(value, Tensor | tuple)]


def test_a_mode_sees_every_operator_below_autograd():
    seen = []

    class Seeing(internals.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    with Seeing():
        torch.zeros(2).mul_(2.0)
    assert torch.ops.aten.mul_.Tensor in seen


def test_trees_are_lists_tuples_and_mappings():
    assert internals.tree_leaves(({"a": 1}, [2, (3,)])) == [1, 2, 3]
    assert internals.tree_map_only(int, lambda n: n + 1, {"a": [1, "b"]}) == {"a": [2, "b"]}


def test_sources_of_graphs_are_kept_by_torch():
    before = {*internals.sources_of_graphs()}
    graph = make_fx(lambda x: x + 1.0)(torch.zeros(2))
    graph(torch.zeros(2))
    assert {*internals.sources_of_graphs()} - before


def test_a_recording_with_fakes_holds_real_tensors():
    held = torch.full((2,), 3.0)
    graph = internals.record_with_fakes(lambda x: x + held, {}, [torch.zeros(2)])
    assert graph(torch.ones(2)).tolist() == [4.0, 4.0]


def test_compiled_parts_are_recorded_as_they_were_written():
    import torch._dynamo

    assert internals.has_imported_dynamo() == ("torch._dynamo" in sys.modules)
    assert torch._dynamo.config.error_on_nested_fx_trace
    with internals.compiled_parts_recorded_as_written():
        assert not torch._dynamo.config.error_on_nested_fx_trace
    assert torch._dynamo.config.error_on_nested_fx_trace


@pytest.mark.parametrize(
    ("operator", "arguments", "settings"),
    [
        (torch.ops.aten._foreach_add_.Scalar, [1], {}),
        (torch.ops.aten._foreach_lerp_.Scalar, [[torch.zeros(1)], 0.5], {}),
        (torch.ops.aten._fused_adam_.default, [[torch.zeros(1)]] * 5, ADAM),
        (torch.ops.aten._fused_sgd_.default, [[torch.zeros(1)], []], SGD),
    ],
    ids=str,
)
def test_the_function_of_an_operator_calls_that_operator(operator, arguments, settings):
    called = []

    class Seeing(internals.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            called.append(func)
            return func(*args, **(kwargs or {}))

    function, values = internals.python_function_of(operator), [torch.zeros(1)]
    with Seeing():
        function(values, *arguments, **settings)
    assert function is not operator
    assert called == [operator]


def test_an_operator_without_a_function_is_its_own():
    assert internals.python_function_of(torch.ops.aten.add_.Tensor) is torch.ops.aten.add_.Tensor
