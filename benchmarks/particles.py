"""Programs that name the axes of a single run, as tutorials do, beside the same programs in broadcasting style.

A conditional VAE that joins latent and context by ``torch.cat``, and a topic model (ProdLDA) with batch normalisation and
``softmax(dim=1)``, on 784 binary pixels or words at B = 128, K = 1 and 5, trained by IWAE. In tutorial style particles are
mapped, in broadcasting style they run together; both are recorded and fused. At K = 1 their mean loss over the first steps
must be the same; of several particles the dropout of the topic model's encoder has a mask each where they are mapped, and
one for all where they run together.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pyrovae
from benchmarks.measure import Settings, compare, interleaved
from benchmarks.networks import mlp
from benchmarks.peers import Stepper
from benchmarks.programs.contenders import batch_size, draw, steps_of
from benchmarks.programs.pair import NormalNetwork, latent, pixels
from benchmarks.task import pixels as images
from pyrovae.compiling.fallback import NotCompiledWarning

context, topics = pixels // 2, 20
TUTORIAL, BROADCASTING = "mapped", "together"


@dataclass(frozen=True, eq=False)
class Programs:
    """A model and a guide over networks of their own."""

    model: Callable[[Tensor], Any]
    guide: Callable[[Tensor], Any]
    networks: nn.ModuleList


def conditional(style: str) -> Programs:
    """z ~ p(z | c), y ~ Bernoulli(decoder(z, c)), where c and y are the halves of a picture."""
    prior, encoder = NormalNetwork(context, latent), NormalNetwork(pixels, latent)
    decoder = mlp(latent + context, 200, 200, pixels - context)

    def joined(z: Tensor, c: Tensor) -> Tensor:
        return torch.cat([z, c if style == TUTORIAL else c.expand(*z.shape[:-1], -1)], -1)

    def model(x: Tensor) -> None:
        pyro.module("prior", prior)
        pyro.module("decoder", decoder)
        c, y = x[:, :context], x[:, context:]
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(*prior(c)).to_event(1))
            pyro.sample("y", dist.Bernoulli(logits=decoder(joined(z, c))).to_event(1), obs=y)

    def guide(x: Tensor) -> None:
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(*encoder(x)).to_event(1))

    return Programs(model, guide, nn.ModuleList([prior, encoder, decoder]))


def topic_model(style: str) -> Programs:
    """ProdLDA: words ~ Multinomial(softmax(norm(beta softmax(z)))); the encoder has dropout and batch normalisation."""
    hidden = nn.Sequential(nn.Linear(pixels, 100), nn.Softplus(), nn.Linear(100, 100), nn.Softplus(), nn.Dropout(0.2))
    heads = nn.ModuleList([nn.Linear(100, topics), nn.Linear(100, topics)])
    norms = nn.ModuleList([nn.BatchNorm1d(topics, affine=False), nn.BatchNorm1d(topics, affine=False)])
    beta, norm = nn.Linear(topics, pixels, bias=False), nn.BatchNorm1d(pixels, affine=False)

    def words(z: Tensor) -> Tensor:
        theta = F.softmax(z, -1)
        if style == TUTORIAL:
            return F.softmax(norm(beta(theta)), dim=1)
        values = beta(theta)
        variance = values.var(-2, correction=0, keepdim=True)
        return F.softmax((values - values.mean(-2, keepdim=True)) * (variance + norm.eps).rsqrt(), -1)

    def model(x: Tensor) -> None:
        pyro.module("beta", beta)
        with pyro.plate("documents", x.shape[0]):
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape[0], topics), x.new_ones(x.shape[0], topics)).to_event(1))
            pyro.sample("words", dist.Multinomial(int(x.sum(-1).max()), words(z)), obs=x)

    def guide(x: Tensor) -> None:
        for name, module in (("hidden", hidden), ("heads", heads)):
            pyro.module(name, module)
        with pyro.plate("documents", x.shape[0]):
            h = hidden(x)
            loc, log_variance = (normed(head(h)) for normed, head in zip(norms, heads, strict=True))
            pyro.sample("z", dist.Normal(loc, (0.5 * log_variance).exp()).to_event(1))

    return Programs(model, guide, nn.ModuleList([hidden, heads, norms, beta, norm]))


def run(settings: Settings) -> None:
    """Both programs at both numbers of particles; one that cannot be recorded is an error here."""
    data = images(settings)[0].flatten(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotCompiledWarning)
        for program in (conditional,) if settings.quick else (conditional, topic_model):
            for particles in (5,) if settings.quick else (1, 5):
                measure(settings, program, particles, data)


def measure(settings: Settings, program: Callable[[str], Programs], particles: int, data: Tensor) -> None:
    """One table; both styles start from the same weights."""
    steppers = {style: recorded(program, style, particles, data) for style in (TUTORIAL, BROADCASTING)}
    losses = {style: run(50 if settings.quick else 200) for style, run in steppers.items()}
    first, second = losses.values()
    if particles == 1 and abs(first - second) > 0.05 * abs(first):
        raise ValueError(f"the mean losses of the first steps differ: {losses}; the styles do not compute the same")
    times = interleaved(steppers, rounds=settings.rounds, seconds=settings.seconds)
    notes = {"loss, first steps": {name: f"{loss:.1f}" for name, loss in losses.items()}}
    title = f"particles, {program.__name__.replace('_', ' ')}, B = {batch_size}, K = {particles}"
    compare(settings, title, times, notes=notes, base=TUTORIAL)


def recorded(program: Callable[[str], Programs], style: str, particles: int, data: Tensor) -> Stepper:
    """What ``pyrovae.fit`` runs for data in memory."""
    torch.manual_seed(0)
    pyro.clear_param_store()
    pair = program(style)
    pair.networks.to(data.device)
    module = pyrovae.IWAE(particles)(pair.model, pair.guide)
    module.start(draw(data[:batch_size]))
    if module.plates is None or module.plates.particles != style:
        raise ValueError(f"particles are to run {style}, and do not: {module.plates}")
    return steps_of(module, data)
