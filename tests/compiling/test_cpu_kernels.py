"""Rewritten graphs give the numbers of what was recorded, but for rounding."""

import math
import platform

import pyro.distributions as dist
import pytest
import torch
from checks import slow_but
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

import pyrovae
from pyrovae.compiling import cpu_kernels as rewriting
from pyrovae.compiling.cpu_kernels import (
    ONEDNN_ROWS,
    biased,
    factors,
    log_bernoulli,
    log_of_one_more,
    onednn_is_faster,
    rewrite,
    tanh,
)
from pyrovae.compiling.fusion import decompositions, fuse

PIXELS = 112
"""Seven factors a product."""


def plain(logits: Tensor, x: Tensor) -> Tensor:
    return -binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)


def grouped(logits: Tensor, x: Tensor) -> Tensor:
    return log_bernoulli(logits, x, logits.shape)


def pixels(
    spread: float, dtype: torch.dtype = torch.float64, shape: tuple[int, ...] = (3, 5, PIXELS)
) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return spread * torch.randn(shape, dtype=dtype), torch.rand(shape, dtype=dtype).round()


@pytest.mark.parametrize("spread", [1e-3, 1.0, 30.0, 1e4])
def test_few_logarithms_give_the_log_density(spread):
    logits, x = pixels(spread)
    torch.testing.assert_close(grouped(logits, x), plain(logits, x), rtol=1e-13, atol=1e-13)
    fractions = torch.rand_like(x)
    torch.testing.assert_close(grouped(logits, fractions), plain(logits, fractions), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("logit", [-1e4, -40.0, -20.0, 0.0, 20.0, 40.0, 1e4])
@pytest.mark.parametrize("number", [0.0, 1.0])
def test_pixels_that_are_almost_certain_keep_their_small_log_densities(logit, number):
    logits, x = torch.full((1, PIXELS), logit), torch.full((1, PIXELS), number)
    exact = logsigmoid((2.0 * x - 1.0).double() * logits.double()).sum(-1)
    torch.testing.assert_close(grouped(logits, x).double(), exact, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("spread", [1.0, 5.0, 30.0])
def test_float32_loses_no_more_than_the_sum_of_logarithms(spread):
    logits, x = pixels(spread, torch.float32, (2000, PIXELS))
    exact = plain(logits.double(), x.double())
    ours, theirs = ((found(logits, x) - exact).abs() for found in (grouped, plain))
    assert ours.mean() <= 1.1 * theirs.mean()
    assert (ours <= 1e-6 * exact.abs() + 1e-6).all()


@pytest.mark.parametrize("logit", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("number", [0.0, 1.0])
def test_no_number_stays_no_number(logit, number):
    logits, x = torch.zeros(PIXELS), torch.full((PIXELS,), number)
    logits[5] = logit
    assert grouped(logits, x).equal(plain(logits, x)) or (grouped(logits, x).isnan() and plain(logits, x).isnan())


@pytest.mark.parametrize(
    ("number", "expected"), [(784, 7), (3072, 16), (1024, 16), (64, 4), (16, 1), (100, 1), (1, 1), (0, 1)]
)
def test_products_are_whole(number, expected):
    assert factors(number) == expected


def test_the_logarithm_of_one_more_is_as_exact_as_log1p():
    value = torch.logspace(-45, 6, 10_000)
    torch.testing.assert_close(log_of_one_more(value).double(), value.double().log1p(), rtol=3e-7, atol=0.0)


def logarithms(function, *inputs: Tensor) -> tuple[int, int]:
    """How often a recorded function calls what has a logarithm a pixel, and what has one for many, once rewritten."""
    graph = make_fx(function, tracing_mode="fake")(*inputs)
    rewrite(graph)
    graph.graph.eliminate_dead_code()
    targets = [node.target for node in graph.graph.nodes]
    for found, expected in zip(graph(*inputs), function(*inputs), strict=True):
        torch.testing.assert_close(found, expected)
    return targets.count(torch.ops.aten.binary_cross_entropy_with_logits.default), targets.count(log_bernoulli)


@pytest.mark.parametrize(("shape", "event_dim"), [((3, 4, 64), 1), ((3, 4, 1, 8, 8), 3), ((3, 4, 2, 32), 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_independent_pixels_are_rewritten(shape, event_dim, dtype):
    logits, x = pixels(3.0, dtype, shape)

    def density(logits: Tensor, x: Tensor) -> list[Tensor]:
        return [dist.Bernoulli(logits=logits, validate_args=False).to_event(event_dim).log_prob(x)]

    assert logarithms(density, logits, x[0]) == (0, 1)


@pytest.mark.parametrize(
    "density",
    [
        lambda logits, x: [-binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1, keepdim=True)],
        lambda logits, x: [(-binary_cross_entropy_with_logits(logits, x, reduction="none")).sum(0)],
        lambda logits, x: [(-binary_cross_entropy_with_logits(logits, x, pos_weight=x + 2, reduction="none")).sum(-1)],
        lambda logits, x: [(-binary_cross_entropy_with_logits(logits, x, x + 2, reduction="none")).sum(-1)],
        lambda logits, x: [(x * -binary_cross_entropy_with_logits(logits, x, reduction="none")).sum(-1)],
        lambda logits, x: [(-binary_cross_entropy_with_logits(logits[:, :, :50], x[:, :, :50], reduction="none")).sum(-1)],
    ],
    ids=["kept dimension", "other dimension", "positive weights", "weights", "masked", "no whole products"],
)
def test_other_sums_stay_as_they_are(density):
    assert logarithms(density, *pixels(3.0)) == (1, 0)


def test_bfloat16_stays_as_it_is():
    logits, x = pixels(3.0, torch.float32)
    density = lambda logits, x: [(-binary_cross_entropy_with_logits(logits, x, reduction="none")).sum(-1)]  # noqa: E731
    assert logarithms(density, logits.bfloat16(), x.bfloat16()) == (1, 0)


@pytest.mark.parametrize("shape", [(1, 8, 8), pytest.param((50,), marks=pytest.mark.slow)])
def test_loss_and_gradient_are_those_of_the_programs(shape):
    torch.manual_seed(0)
    vae = pyrovae.VAE(shape, latent_dim=2).double()
    module = pyrovae.IWAE(3)(vae.model, vae.guide)
    x = torch.rand(6, *shape, dtype=torch.float64).round()
    found = []
    for loss in (module, pyrovae.compile(module, x)):
        torch.manual_seed(1)
        value = loss(x)
        found.append([value.detach(), *torch.autograd.grad(value, list(module.parameters()))])
    torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-12)


def test_what_is_fused_was_rewritten(monkeypatch):
    graphs = []
    monkeypatch.setattr(torch._inductor, "compile", lambda graph, inputs, options: graphs.append(graph) or graph)
    inputs = [*pixels(3.0, torch.float32)]

    def density(logits: Tensor, x: Tensor) -> list[Tensor]:
        return [dist.Bernoulli(logits=logits, validate_args=False).to_event(1).log_prob(x)]

    torch.testing.assert_close(fuse(density, inputs)(*inputs), density(*inputs))
    assert len(graphs[0].graph.find_nodes(op="call_function", target=log_bernoulli)) == 1


def test_tanh_is_exact_to_the_last_bit_but_one():
    x = torch.cat([torch.linspace(-12, 12, 400_001), torch.logspace(-38, 1, 10_000)])
    exact = x.double().tanh()
    assert ((tanh(x) - exact) / exact.where(exact != 0.0, 1.0)).abs().max() < 1.5e-7
    assert ((tanh(x) - exact).abs() < 8e-8).all()


def test_tanh_where_there_is_no_number():
    special = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 3e38, -3e38, 1e-45])
    torch.testing.assert_close(tanh(special), special.tanh(), rtol=0.0, atol=0.0, equal_nan=True)
    assert tanh(special).signbit()[1]


def test_other_precisions_have_their_own_operators():
    for dtype in (torch.float64, torch.bfloat16):
        assert tanh(torch.ones(2, dtype=dtype)) is NotImplemented
    narrow = torch.ones(2, 2, dtype=torch.bfloat16)
    assert biased(narrow[0], narrow, narrow) is NotImplemented
    assert biased(torch.ones(2, 2), torch.ones(2, 2), torch.ones(2, 2)) is NotImplemented
    assert biased(torch.ones(2), torch.ones(2, 2), torch.ones(2, 2), beta=2.0) is NotImplemented


@pytest.mark.parametrize(
    "dtype", slow_but(lambda dtype: dtype == torch.float32, [torch.float32, torch.float64, torch.bfloat16])
)
def test_a_layer_fused(dtype):
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(20, 30).to(dtype), torch.randn(7, 20, dtype=dtype)
    expected = layer(x).tanh().detach()
    fused = fuse(lambda x, weight, bias: [torch.nn.functional.linear(x, weight, bias).tanh()], [x, *layer.parameters()])
    torch.testing.assert_close(fused(x, *(parameter.detach() for parameter in layer.parameters()))[0], expected)


def test_a_bias_is_added_after_the_product():
    inputs = torch.ones(3), torch.ones(4, 2), torch.ones(2, 3)
    graph = make_fx(torch.addmm, decompositions)(*inputs)
    targets = [node.target for node in graph.graph.nodes]
    assert torch.ops.aten.mm.default in targets
    assert torch.ops.aten.addmm.default not in targets
    torch.testing.assert_close(graph(*inputs), torch.addmm(*inputs))


needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")


def by_onednn(left: Tensor, right: Tensor) -> bool:
    """Whether the recorded product is one of oneDNN's."""
    graph = make_fx(torch.mm, decompositions, tracing_mode="fake")(left, right)
    targets = [node.target for node in graph.graph.nodes]
    taken = torch.ops.mkldnn._linear_pointwise.default in targets
    assert taken != (torch.ops.aten.mm.default in targets)
    return taken


@needs_onednn
def test_products_of_many_rows_are_onednns_where_it_is_faster(monkeypatch):
    many, right = torch.ones(ONEDNN_ROWS, 20), torch.ones(20, 30)
    monkeypatch.setattr(rewriting, "onednn_is_faster", lambda: False)
    assert not by_onednn(many, right)
    monkeypatch.setattr(rewriting, "onednn_is_faster", lambda: True)
    assert by_onednn(many, right)
    assert by_onednn(many, torch.ones(30, 20).t())
    assert not by_onednn(many[1:], right)
    assert not by_onednn(many[:, :0], right[:0])
    assert not by_onednn(torch.ones(20, ONEDNN_ROWS).t(), right)
    for dtype in (torch.float64, torch.bfloat16):
        assert not by_onednn(many.to(dtype), right.to(dtype))


@needs_onednn
@pytest.mark.parametrize("transposed", [pytest.param(False, marks=pytest.mark.slow), True])
def test_products_of_onednn_fused(transposed, monkeypatch):
    """With weights that change from call to call, as inputs of the graph; and inductor is left as it was found."""
    from torch._inductor.lowering import lowerings
    from torch._inductor.utils import fresh_cache

    before = lowerings[torch.ops.mkldnn._linear_pointwise.default]
    monkeypatch.setattr(rewriting, "onednn_is_faster", lambda: True)
    torch.manual_seed(0)
    x, bias = torch.randn(3, ONEDNN_ROWS, 20), torch.randn(30)
    weights = [torch.randn(30, 20).t() if transposed else torch.randn(20, 30) for _ in range(2)]

    def layer(x: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
        return [(x @ weight + bias).tanh()]

    with fresh_cache():
        fused = fuse(layer, [x, weights[0], bias])
    for weight in weights:
        exact = layer(x.double(), weight.double(), bias.double())[0]
        torch.testing.assert_close(fused(x, weight, bias)[0].double(), exact, rtol=1e-5, atol=1e-5)
    assert lowerings[torch.ops.mkldnn._linear_pointwise.default] is before


@pytest.mark.parametrize(
    ("said", "capability", "expected"),
    [("AuthenticAMD", "AVX512", True), ("AuthenticAMD", "AVX2", False), ("GenuineIntel", "AVX512", False)],
)
@pytest.mark.parametrize("linux", [True, False])
def test_which_processors_onednn_is_faster_on(said, capability, expected, linux, monkeypatch, tmp_path):
    information = tmp_path / "cpuinfo"
    if linux:
        information.write_text(f"processor\t: 0\nvendor_id\t: {said}\n")
    monkeypatch.setattr(rewriting, "PROCESSOR", information)
    monkeypatch.setattr(platform, "processor", lambda: f"AMD64 Family 25 Model 17 Stepping 1, {said}")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    for library in (torch.backends.mkl, torch.backends.mkldnn):
        monkeypatch.setattr(library, "is_available", lambda: True)
    assert onednn_is_faster.__wrapped__() == expected
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    assert not onednn_is_faster.__wrapped__()
