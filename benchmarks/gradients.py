"""How much of a gradient is noise, against the number of particles; and what each of its estimators costs.

The first two tables are of the model of Rainforth et al., Tighter Variational Bounds are Not Necessarily Better
(arXiv:1802.04537), section 4: z ~ N(mu, I), x ~ N(z, I) and the guide N(A x + b, 2/3 I) in 20 dimensions, where the best mu
is the mean of the data, A = I / 2 and b = mu / 2; every parameter is then moved by noise of standard deviation 0.01. A ratio
near that which noise alone would show is none; a high one of ``stl``, which is biased for K above 1, is not of the truth.

The last is of an MLP 784-200-200-50, the programs run eagerly: an estimator's time beside that of plain autodiff.
"""

from collections.abc import Callable, Mapping
from functools import partial

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

import pyrovae
from benchmarks.measure import Contender, Settings, compare, interleaved, table
from benchmarks.peers.ours import pair
from benchmarks.task import Task, mlp_task, pixels
from pyrovae.objectives import MIWAE, VIMCO, Objective

dimensions = 20
plain = "reparameterized"

Makes = Callable[[int], Objective]

compared: dict[str, Makes] = {
    "IWAE, reparameterized": pyrovae.IWAE,
    "IWAE, dreg": lambda particles: pyrovae.IWAE(particles, "dreg"),
    "IWAE, stl": lambda particles: pyrovae.IWAE(particles, "stl"),
    "IWAE, resampled": lambda particles: pyrovae.IWAE(particles, "resampled"),
    "MIWAE, 8 groups": lambda particles: MIWAE(8, particles),
    "VIMCO (of 2 at K = 1)": lambda particles: VIMCO(max(2, particles)),
}
"""Objectives of K particles, or of K in a group."""

estimators: dict[str, Makes] = {
    **{name: partial(pyrovae.IWAE, estimator=name) for name in (plain, "score_function", "stl", "dreg", "resampled")},
    "VIMCO": VIMCO,
}


class Toy(PyroModule):
    """z ~ N(mu, I), x ~ N(z, I)."""

    def __init__(self, mean: Tensor) -> None:
        super().__init__()
        self.mean = nn.Parameter(mean)

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(self.mean, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


class ToyGuide(PyroModule):
    """z ~ N(A x + b, 2/3 I)."""

    def __init__(self, slope: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.slope, self.offset = nn.Parameter(slope), nn.Parameter(offset)

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ self.slope.T + self.offset, (2 / 3) ** 0.5).to_event(1))


def run(settings: Settings) -> None:
    """Two tables of ratios, and one of times."""
    particles, repeats = ((1, 4), 10) if settings.quick else ((1, 4, 16, 64, 256), 100)
    found = {name: ratios(settings, make, particles, repeats) for name, make in compared.items()}
    for program in ("guide", "model"):
        rows = [[name, *(f"{statistics[program].snr:.3f}" for statistics in row)] for name, row in found.items()]
        title = f"gradients, signal-to-noise ratio of the {program}'s, {repeats} draws (noise alone: {floor(repeats):.3f})"
        table(settings, title, ["", *(f"K = {count}" for count in particles)], rows)
    measure(settings, mlp_task(20, 50, pixels(settings)[0]))


def ratios(
    settings: Settings, make: Makes, particles: tuple[int, ...], repeats: int
) -> list[Mapping[str, pyrovae.evaluation.GradientSummary]]:
    """The summaries of both programs at each K."""
    model, guide, x = toy(settings)
    return [pyrovae.gradient_statistics((model, guide), x, make(count), repeats).programs for count in particles]


def floor(repeats: int) -> float:
    """The ratio of a gradient whose mean is 0."""
    return pyrovae.GradientStatistics({}, {}, repeats).floor


def toy(settings: Settings, number: int = 64, of: int = 1024) -> tuple[Toy, ToyGuide, Tensor]:
    """The pair near its optimum for 1,024 data, and some of these."""
    generator = torch.Generator().manual_seed(0)
    normal = partial(torch.randn, generator=generator)
    data = normal(dimensions) + normal(of, dimensions) * 2**0.5
    mean, slope = data.mean(0), torch.eye(dimensions) / 2
    moved = [value + 0.01 * normal(*value.shape) for value in (mean, slope, mean / 2)]
    model, guide = Toy(moved[0]), ToyGuide(*moved[1:])
    return model.to(settings.device), guide.to(settings.device), data[:number].to(settings.device)


def measure(settings: Settings, task: Task) -> None:
    """One table of times."""
    contenders = {name: gradients(task, make(task.particles)) for name, make in estimators.items()}
    times = interleaved(contenders, rounds=settings.rounds, seconds=settings.seconds)
    compare(settings, f"gradients, {task.name}, eager", times, base=plain, unit="a gradient")


def gradients(task: Task, objective: Objective) -> Contender:
    """So many gradients of both networks on the same binary data."""
    vae = pair(task)
    module = objective(vae.model, vae.guide)
    x = task.data[: task.batch_size].round()
    module.start(x)
    parameters = list(module.parameters())

    def work(times: int) -> float:
        for _ in range(times):
            first, *_ = torch.autograd.grad(module(x), parameters)
        return first.sum().item()

    return work
