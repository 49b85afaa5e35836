"""Every distribution with a reparameterised draw, of torch, Pyro and zuko: its recorded gradient is its own."""

import inspect
from collections.abc import Callable
from contextlib import nullcontext

import pyro.distributions as dist
import pytest
import torch
import zuko
import zuko.lazy
from checks import slow_but
from pyro.contrib.zuko import ZukoToPyro
from torch import Tensor, nn
from torch.distributions import Distribution, transform_to, transforms

from pyrovae.compiling.fusion import fuse
from pyrovae.compiling.recording import Recording
from pyrovae.compiling.refusals import NotRecordedError

pytestmark = pytest.mark.usefixtures("float64", "unfused")
B, D = 4, 3
SHAPES = {0: (B,), 1: (B, D), 2: (B, D, D)}
SAME = ("probs", "covariance_matrix", "precision_matrix")
"""Arguments that say what another one says too."""


DRAWS_ALONE = {"Stable", "LinearHMM"}
"""What has no density."""
LOOKING = {"CNF", "Wishart", "NanMaskedNormal", "NanMaskedMultivariateNormal", "Stable", "StableWithLogProb", "Rejector"}
"""What looks at the numbers in a tensor, so that a program that draws from it runs eagerly."""


class Built(nn.Module):
    """A distribution, built anew at each call of parameters that stay."""

    def __init__(self, build: Callable[["Built"], Distribution]) -> None:
        super().__init__()
        self.kept = nn.ParameterList()
        self._build = build

    def forward(self) -> Distribution:
        self._next = 0
        return self._build(self)

    def free(self, *shape: int) -> Tensor:
        if self._next == len(self.kept):
            self.kept.append(nn.Parameter(torch.randn(*shape)))
        self._next += 1
        return self.kept[self._next - 1]

    def positive(self, *shape: int) -> Tensor:
        return self.free(*shape).exp()

    def lower(self, *shape: int) -> Tensor:
        return torch.eye(shape[-1]) + 0.1 * self.free(*shape).tril()

    def normal(self, *shape: int) -> Distribution:
        return dist.Normal(self.free(*shape), self.positive(*shape))


def hmm(p: Built, cls: type) -> Distribution:
    """A hidden Markov model with one hidden and one observed dimension."""
    noise = [p.normal(B, 2, 1).to_event(1) for _ in range(2)]
    initial = p.normal(B, 1).to_event(1)
    if cls is dist.GaussianHMM:
        initial = dist.MultivariateNormal(p.free(B, 1), scale_tril=p.positive(B, 1, 1))
        noise = [dist.MultivariateNormal(p.free(B, 2, 1), scale_tril=p.positive(B, 2, 1, 1)) for _ in range(2)]
    return cls(initial, torch.ones(1, 1), noise[0], torch.ones(1, 1), noise[1])


def accepted(p: Built, cls: type) -> Distribution:
    return cls(p.normal(B), lambda x: -x.abs(), p.free(B))


specials: dict[str, Callable[[Built, type], Distribution]] = {
    "Independent": lambda p, cls: cls(p.normal(B, D), 1),
    "TransformedDistribution": lambda p, cls: cls(p.normal(B), [transforms.AffineTransform(p.free(B), 2.0)]),
    "Uniform": lambda p, cls: cls(-p.positive(B), p.positive(B)),
    "Wishart": lambda p, cls: cls(p.positive(B) + D, scale_tril=p.lower(B, D, D)),
    "AVFMultivariateNormal": lambda p, cls: cls(p.free(D), p.lower(D, D), p.free(2, 1, D)),
    "OMTMultivariateNormal": lambda p, cls: cls(p.free(D), p.lower(D, D)),
    "Delta": lambda p, cls: cls(p.free(B)),
    "MixtureOfDiagNormals": lambda p, cls: cls(p.free(B, 2, D), p.positive(B, 2, D), p.free(B, 2)),
    "MixtureOfDiagNormalsSharedCovariance": lambda p, cls: cls(p.free(B, 2, D), p.positive(B, D), p.free(B, 2)),
    "GaussianScaleMixture": lambda p, cls: cls(p.positive(D), p.free(2), p.positive(2)),
    "FoldedDistribution": lambda p, cls: cls(p.normal(B)),
    "LKJ": lambda p, cls: cls(D, p.positive(B)),
    "MaskedMixture": lambda p, cls: cls(torch.arange(B) < 2, p.normal(B), p.normal(B)),
    "ExpandedDistribution": lambda p, cls: cls(p.normal(1), torch.Size([B])),
    "MaskedDistribution": lambda p, cls: cls(p.normal(B), torch.arange(B) < 2),
    "IndependentHMM": lambda p, cls: cls(hmm(p, dist.GaussianHMM)),
    "GaussianHMM": hmm,
    "LinearHMM": hmm,
    "Rejector": accepted,
}


def families() -> dict[str, type[Distribution]]:
    """The classes of torch and Pyro whose draws are reparameterised, by name; Pyro's own where both have one."""
    found = {}
    for package in (torch.distributions, dist):
        for name, cls in vars(package).items():
            if isinstance(cls, type) and issubclass(cls, Distribution) and cls.__module__.startswith(("torch.", "pyro.")):
                found[name] = cls
    return {name: cls for name, cls in found.items() if getattr(cls, "has_rsample", False) is not False}


BROKEN = {"GaussianScaleMixture"}
"""What has no gradient by itself: autograd finds a number that its density has changed in place."""


def build(p: Built, name: str, cls: type[Distribution]) -> Distribution:
    """One of them, by its arguments' constraints where nothing is said of it."""
    if name in specials:
        return specials[name](p, cls)
    known, taken = cls.arg_constraints, inspect.signature(cls.__init__).parameters
    made = {each: p.free(*SHAPES[known[each].event_dim]) for each in taken if each in known and each not in SAME}
    made = {each: transform_to(known[each])(value) for each, value in made.items()}
    return cls(**made, **({"temperature": torch.tensor(0.7)} if "temperature" in taken else {}))


def assert_recorded(distribution: Built) -> None:
    """A draw, a function of it and its density, and the gradient of both: recorded and by itself."""

    def step(weight: Tensor) -> list[Tensor | None]:
        fn = distribution()
        z = fn() if isinstance(fn, ZukoToPyro) else fn.rsample()
        loss = (weight[: z.numel()] * z.flatten()).sum()
        try:
            loss = loss + fn.log_prob(z).sum()
        except NotImplementedError:
            assert type(fn).__name__ in DRAWS_ALONE
        return [loss.detach(), *torch.autograd.grad(loss, [*distribution.kept], allow_unused=True)]

    if not distribution().has_rsample:
        pytest.skip("it has no reparameterised draw of these parameters")
    weight = torch.linspace(0.5, 1.5, B * D * D)
    torch.manual_seed(1)
    expected = step(weight)
    assert any(value is not None and value.abs().sum() > 0 for value in expected[1:])
    recording = Recording(step, distribution, [weight])
    own = [value.detach() for value in recording.tensors]
    fused = fuse(lambda *inputs: recording(inputs[: len(own)], *inputs[len(own) :]), [*own, weight])
    torch.manual_seed(1)
    for ours, theirs in zip(fused(*own, weight), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


TWINS = {
    *("Chi2", "HalfCauchy", "InverseGamma", "SoftAsymmetricLaplace", "IndependentHMM", "LinearHMM"),
    *("MixtureOfDiagNormalsSharedCovariance", "HalfNormal", "Weibull", "ContinuousBernoulli", "OMTMultivariateNormal"),
}
"""Families whose draws and densities are those of another here but for a transformation or fewer parameters."""


@pytest.mark.filterwarnings("ignore:Singular sample detected:UserWarning")
@pytest.mark.parametrize(("name", "cls"), slow_but(lambda name, _: name not in TWINS, families().items()), ids=families())
def test_of_torch_and_pyro(name, cls):
    error = pytest.raises(NotRecordedError, match="get value out of") if name in LOOKING else nullcontext()
    error = pytest.raises(RuntimeError, match="modified by an inplace operation") if name in BROKEN else error
    with error:
        assert_recorded(Built(lambda p: build(p, name, cls)))


def flow(cls: type) -> nn.Module:
    """A small one, of a context."""
    sizes = {"transforms": 1} if "transforms" in inspect.signature(cls).parameters else {}
    inverted = cls in (zuko.flows.NAF, zuko.flows.UNAF, zuko.flows.BPF, zuko.flows.SOSPF)  # step by step: many operations
    return cls(1 if inverted else 2, 2, **sizes, hidden_features=(4,))


class Conditional(nn.Module):
    """A flow as a distribution of Pyro, with its context among the parameters."""

    def __init__(self, cls: type) -> None:
        super().__init__()
        self.flow = flow(cls)
        self.context = nn.Parameter(torch.randn(B, 2))
        self.kept = [*self.flow.parameters(), self.context]

    def forward(self) -> Distribution:
        return ZukoToPyro(self.flow(self.context))


flows = {
    name: cls
    for name, cls in vars(zuko.flows).items()
    if isinstance(cls, type)
    and issubclass(cls, zuko.lazy.LazyDistribution)
    and "features" in inspect.signature(cls).parameters
}


soon = {"MAF", "NSF", "NAF", "GF", "CNF", "GMM"}
"""A flow of each kind: affine, of splines, of a monotone network, of distribution functions, of time, and a mixture."""


@pytest.mark.parametrize(("name", "cls"), slow_but(lambda name, _: name in soon, flows.items()), ids=flows)
def test_of_zuko(name, cls, monkeypatch):
    bisection = zuko.transforms.bisection
    monkeypatch.setattr(zuko.transforms, "bisection", lambda *args, n, **kwargs: bisection(*args, n=2, **kwargs))
    torch.manual_seed(0)
    with pytest.raises(NotRecordedError, match="get value out of") if name in LOOKING else nullcontext():
        assert_recorded(Conditional(cls))
