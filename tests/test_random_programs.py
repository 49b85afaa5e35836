r"""Random small programs: K particles in one call are K runs of stock Pyro, datum by datum.

A sentence of a small grammar is a pair of programs. What :func:`pyrovae.log_weights` makes of it is held against

.. math::
    \log w_{kb} = \sum_{\text{model's sites } s} \log p_s - \sum_{\text{guide's sites } s} \log q_s

from K single runs of either program under ``poutine.trace``, replayed at the same draws: each site's log density with its
mask and its scale, less the data plate's, summed over all plates but that of the data.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.nn import PyroModule
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn
from torch.nn.functional import normalize, one_hot

from pyrovae.engine.log_weights import log_weights
from pyrovae.errors import InputError

Step = Callable[[Tensor, Tensor, bool], Tensor]
"""Of the features, the data, and whether axes are named from the left."""


def fixed(*shape: int) -> Tensor:
    """Numbers that depend on the shape alone."""
    return (torch.arange(1.0, 1 + torch.Size(shape).numel()) * 1.7).sin().reshape(shape)


def axis(left: bool) -> int:
    """The features' axis in a single run, where h has the shape (B, H), by its name from the left or from the right."""
    return 1 if left else -1


def first(h: Tensor, left: bool) -> Tensor:
    return h[:, :1] if left else h[..., :1]


def total(h: Tensor, left: bool) -> Tensor:
    return h.sum(1)[:, None] if left else h.sum(-1)[..., None]


def regrouped(h: Tensor, left: bool) -> Tensor:
    return h.reshape(h.shape[0], -1) if left else h.reshape(*h.shape[:-1], -1)


steps: dict[str, Step] = {
    "softmax": lambda h, x, left: h.softmax(axis(left)),
    "cumsum": lambda h, x, left: h.cumsum(axis(left)),
    "normalize": lambda h, x, left: normalize(h, dim=axis(left)),
    "mean": lambda h, x, left: h.mean(axis(left), keepdim=True) - 0.5 * h,
    "first": lambda h, x, left: first(h, left),
    "total": lambda h, x, left: total(h, left),
    "twice": lambda h, x, left: torch.cat([h, -h], axis(left)),
    "with the data": lambda h, x, left: torch.cat([h, x], axis(left)),
    "regrouped": lambda h, x, left: regrouped(h, left),
    "flat": lambda h, x, left: h.view(-1, h.shape[-1]) if left else h.flatten(-1),
    "flip": lambda h, x, left: h.flip(axis(left)),
    "tanh": lambda h, x, left: h.tanh(),
}
latents = ("vector", "scalar", "positive", "bits", "label", "in a plate")
likelihoods = ("normal", "bits", "inner plate")
forms = ("function", "module", "PyroModule")


@dataclass(frozen=True)
class Sentence:
    """A pair of programs, as drawn.

    Attributes:
        data: the number B of data.
        width: of a latent.
        pixels: of a datum.
        particles: the number K.
        sites: the kinds of the latent sites, one or two; the second depends on the first.
        steps: what the model does to the features, each with whether it names axes from the left.
        left: whether the rest of the programs does.
        likelihood: of what kind.
        data_last: whether the data plate has the last dimension; an inner plate is then to its left, else to its right.
        masked: whether densities of some of the data are masked, in the model's observations.
        scaled: the site whose density is scaled: the first latent in the model, in the guide, the observation, or none.
        full: full size of the data plate over its size.
        deterministic: whether there are ``pyro.deterministic`` sites, within the plate and without.
        form: what the programs are.
    """

    data: int
    width: int
    pixels: int
    particles: int
    sites: tuple[str, ...]
    steps: tuple[tuple[str, bool], ...]
    left: bool
    likelihood: str
    data_last: bool
    masked: bool
    scaled: str
    full: int
    deterministic: bool
    form: str
    weights: dict[int, nn.Parameter] = field(default_factory=dict, compare=False, repr=False)

    def plate(self) -> Any:
        rows = torch.arange(self.data) if self.full > 1 else None
        return pyro.plate("data", self.full * self.data, subsample=rows, dim=-1 if self.data_last else -2)

    def inner(self, name: str, size: int) -> Any:
        return pyro.plate(name, size, dim=-2 if self.data_last else -1)

    def x(self) -> Tensor:
        x = fixed(self.data, self.pixels)
        return (x > 0).double() if self.likelihood == "bits" else x

    def scale(self, place: str) -> Any:
        return poutine.scale(scale=0.5 if self.scaled == place else 1.0)

    # What both programs have in common: h, of shape (B, H) in a single run.

    def prior(self, kind: str, loc: Tensor | float) -> dist.TorchDistribution:
        """Of a site of that kind, whose parameters depend on ``loc``, (B,) in a single run."""
        if isinstance(loc, Tensor) and not self.data_last:
            loc = loc[:, None] if self.left else loc.unsqueeze(-1)
        if kind in ("scalar", "in a plate"):
            return dist.Normal(loc, 1.3)
        along = loc[..., None] if isinstance(loc, Tensor) else loc
        parameters = along + fixed(self.width)
        if kind == "label":
            return dist.Categorical(logits=parameters)
        if kind == "bits":
            return dist.Bernoulli(logits=parameters).to_event(1)
        return (dist.Normal if kind == "vector" else dist.LogNormal)(parameters, 0.8).to_event(1)

    def draw(self, number: int, loc: Tensor | float) -> Tensor:
        """The features that a site gives."""
        kind, name = self.kind(number), f"z{number}"
        if kind == "in a plate":
            with self.inner(f"coordinates of {name}", self.width):
                z = pyro.sample(name, self.prior(kind, loc))
            if not self.data_last:
                return z
            return z.t() if self.left else z.transpose(-1, -2)
        z = pyro.sample(name, self.prior(kind, loc))
        if kind == "label":
            z = one_hot(z, self.width).double()
        elif kind == "scalar":
            return z if not self.data_last else z[:, None] if self.left else z[..., None]
        return z if self.data_last else z[:, 0] if self.left else z.squeeze(-2)

    def kind(self, number: int) -> str:
        return self.sites[number]

    def mean(self, h: Tensor) -> Tensor:
        return h.mean(axis(self.left))

    # The two programs.

    def model(self, x: Tensor) -> None:
        if self.deterministic:
            pyro.deterministic("constant", fixed(3))
        with self.plate():
            with self.scale("model"):
                h = self.draw(0, 0.0)
            if len(self.sites) > 1:
                h = torch.cat([h, self.draw(1, self.mean(h))], axis(self.left))
            for name, left in self.steps:
                h = steps[name](h, x, left)
            mean = h @ self.weight(h.shape[-1])
            if self.deterministic:
                pyro.deterministic("mean", mean.mean(-1) if self.data_last else mean.mean(-1, keepdim=True))
            hidden = torch.arange(self.data) % 2 == 0 if self.masked else torch.ones(self.data).bool()
            with poutine.mask(mask=hidden if self.data_last else hidden[:, None]), self.scale("observation"):
                self.observe(mean, x)

    def observe(self, mean: Tensor, x: Tensor) -> None:
        if self.likelihood == "inner plate":
            with self.inner("pixels", self.pixels):
                if self.data_last:
                    mean, x = mean.t() if self.left else mean.transpose(-1, -2), x.T
                pyro.sample("x", dist.Normal(mean, 0.9), obs=x)
            return
        if not self.data_last:
            mean, x = mean[:, None] if self.left else mean.unsqueeze(-2), x[:, None]
        family = dist.Bernoulli(logits=mean) if self.likelihood == "bits" else dist.Normal(mean, 0.9)
        pyro.sample("x", family.to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with self.plate():
            loc = self.mean(x)
            with self.scale("guide"):
                h = self.draw(0, loc)
            if len(self.sites) > 1:
                self.draw(1, loc - 0.3 * self.mean(h))

    def weight(self, rows: int) -> Tensor:
        if self.form == "function":
            return pyro.param(f"weight of {rows}", lambda: fixed(rows, self.pixels))
        return self.weights.setdefault(rows, nn.Parameter(fixed(rows, self.pixels)))

    def programs(self) -> tuple[Any, Any]:
        """Model and guide in the form that was drawn."""
        if self.form == "function":
            return lambda x: self.model(x), lambda x: self.guide(x)
        base: Any = nn.Module if self.form == "module" else PyroModule

        class Program(base):
            def __init__(self, run: Callable[[Tensor], None]) -> None:
                super().__init__()
                self.run = run
                self.bias = nn.Parameter(torch.zeros(()))

            def forward(self, x: Tensor) -> None:
                self.run(x + self.bias)

        return Program(self.model), Program(self.guide)


names = st.sampled_from(sorted(steps))
sentences = st.builds(
    Sentence,
    data=st.integers(1, 5),
    width=st.integers(1, 5),
    pixels=st.integers(1, 5),
    particles=st.integers(1, 4),
    sites=st.lists(st.sampled_from(latents), min_size=1, max_size=2).map(tuple),
    steps=st.lists(st.tuples(names, st.booleans()), max_size=3).map(tuple),
    left=st.booleans(),
    likelihood=st.sampled_from(likelihoods),
    data_last=st.booleans(),
    masked=st.booleans(),
    scaled=st.sampled_from(("nothing", "nothing", "model", "guide", "observation")),
    full=st.sampled_from((1, 1, 1, 2)),
    deterministic=st.booleans(),
    form=st.sampled_from(forms),
)


def single(program: Any, x: Tensor, draws: Trace | None = None) -> Trace:
    """One run of stock Pyro, at given draws where there are any."""
    program = program if draws is None else poutine.replay(program, trace=draws)
    return prune_subsample_sites(poutine.trace(program).get_trace(x))


def densities(trace: Trace, full: int) -> Tensor:
    """The sum of the log densities of a single run, for each datum."""
    return reduce(torch.add, [density(site, full) for site in trace.nodes.values() if is_density(site)])


def is_density(site: Any) -> bool:
    return site["type"] == "sample" and not site["infer"].get("_deterministic")


def density(site: Any, full: int) -> Tensor:
    (dim,) = [frame.dim for frame in site["cond_indep_stack"] if frame.name == "data"]
    log_prob = scale_and_mask(site["fn"].log_prob(site["value"]), site["scale"] / full, site["mask"])
    log_prob = log_prob.expand(torch.broadcast_shapes(log_prob.shape, site["fn"].batch_shape))
    others = [other for other in range(-log_prob.dim(), 0) if other != dim]
    return log_prob.sum(others) if others else log_prob


def one_by_one(sentence: Sentence, drawn: Trace) -> Tensor:
    """The weights of draws of shape ``(K, ..., B, *event)``, each particle by a run of its own."""
    (model, guide), x = sentence.programs(), sentence.x()
    rows = []
    for particle in range(sentence.particles):
        draws = single(guide, x)
        for name, site in draws.nodes.items():
            if is_density(site):
                site["value"] = drawn.nodes[name]["value"][particle].reshape(site["value"].shape)
        rows.append(densities(single(model, x, draws), sentence.full) - densities(single(guide, x, draws), sentence.full))
    return torch.stack(rows)


def test_particles_are_runs_of_stock_pyro(float64):
    refused: list[str] = []

    @settings(derandomize=True, deadline=None, max_examples=50)
    @given(sentences)
    def check(sentence: Sentence) -> None:
        pyro.clear_param_store()
        pyro.set_rng_seed(1)
        try:
            weights = log_weights(sentence.programs(), sentence.x(), num_samples=sentence.particles)
        except InputError as error:
            refused.append(str(error))
            return
        expected = one_by_one(sentence, weights.guide)
        torch.testing.assert_close(weights.total, expected, rtol=0, atol=1e-10)
        assert weights.scale == sentence.full

    check()
    assert all("site '" in message for message in refused), refused
    assert len(refused) <= 5, refused
