"""What is relied on of inductor beyond what it documents: each private name exists, and does what is relied on."""

import logging

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from pyrovae.compiling import inductor_internals as internals


def test_the_logger_is_that_of_inductor():
    from torch._inductor import ir

    assert ir.log is logging.getLogger(internals.LOGGER)


def test_a_graph_is_compiled_and_its_modules_are_kept():
    x = torch.arange(4.0)
    graph = make_fx(lambda x: (x.exp() + 1.0,), tracing_mode="fake")(x)
    before = len(internals.compiled_modules())
    options = {"fallback_random": True, "deterministic": True, "reorder_for_locality": False}
    with torch.no_grad():
        [found] = internals.compile_graph(graph, [x], options)(x)
    torch.testing.assert_close(found, x.exp() + 1.0)
    assert len(internals.compiled_modules()) > before


def test_a_product_by_onednn_is_lowered_for_inputs():
    left, right = torch.randn(8, 4), torch.randn(4, 3)
    torch.testing.assert_close(internals.onednn_product(left, right), left @ right)
    graph = make_fx(lambda left, right: (internals.onednn_product(left, right),), tracing_mode="fake")(left, right)
    with torch.no_grad(), internals.onednn_product_of_inputs():
        [found] = internals.compile_graph(graph, [left, right], {})(left, right)
    torch.testing.assert_close(found, left @ right)


def test_cpp_is_compiled_and_a_refusal_is_a_runtime_error():
    library = internals.load_cpp('extern "C" int twice(int number) { return 2 * number; }')
    assert library.twice(21) == 42
    with pytest.raises(RuntimeError):
        internals.load_cpp("this is no C++")
