"""Importance sampling: the time of log p(x) per 100,000 rows, draws times data.

784-200-200-50 and back with tanh, Bernoulli, trained for a moment so that the weights are those of a model. All estimate
log p(x) of the same data from as many draws, and must agree within Monte Carlo error; compilation is not counted.
``pyrovae`` is all that ``pyrovae.log_likelihood`` does, with errors, bounds and Pareto k-hats; those by hand are log p(x)
and nothing else. The floor stands last: the decoder's products, and nothing else.

Pyro's own ``vectorized_importance_weights`` is joint over the batch, an estimate of another number, and so not here.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.benchmark import Measurement

import pyrovae
from benchmarks.measure import AbsentError, Contender, Settings, compare, interleaved, measurement, ours
from benchmarks.peers import by_hand, numpyro_svi
from benchmarks.peers.jax_steps import device_of, require
from benchmarks.peers.ours import pair
from benchmarks.task import Task, mlp_task, pixels
from pyrovae.evaluation.estimates.estimate import LogLikelihood
from pyrovae.evaluation.estimates.importance import log_mean_weight
from pyrovae.evaluation.likelihood.draws import Draws
from pyrovae.runtime.batches import Columns
from pyrovae.runtime.eval_mode import evaluating
from pyrovae.runtime.memory import MAX_WEIGHTS
from pyrovae.runtime.precision import Precision, computing_in

unit_rows = 100_000
particles = (1, 5, 50, 500)
"""Those of the bounds that ``pyrovae.log_likelihood`` estimates unasked."""

products = "the decoder's products alone"

Estimate = Callable[[], Tensor]
"""Estimates log p(x) of all data, anew at each call; shape ``(B,)``, on the CPU."""


@dataclass(frozen=True, eq=False)
class Work:
    """What all contenders do.

    Args:
        task: the model, with trained weights.
        x: the data, shape ``(B, 784)``.
        samples: the number of draws a datum.
        at_once: those of them that are drawn together, by hand.
    """

    task: Task
    x: Tensor
    samples: int
    at_once: int

    @property
    def rows(self) -> int:
        """Draws times data."""
        return self.samples * len(self.x)


def run(settings: Settings) -> None:
    """One table."""
    work = prepared(settings)
    estimates, absent = built(work)
    notes = compared({name: estimate() for name, estimate in estimates.items()})
    contenders = {name: repeated(estimate) for name, estimate in estimates.items()} | {products: multiplications(work)}
    contenders[products](1)
    on_cuda = settings.device.type == "cuda"
    times = interleaved(contenders, rounds=3 if settings.quick else 10, steps=5 if on_cuda else 1)
    title = f"log p(x) of {len(work.x)} data from {work.samples} draws each, {work.task.name.partition(',')[0]}"
    compare(settings, title, per_unit(times, work.rows), unit=f"per {unit_rows:,} rows", notes=notes, absent=absent)


def prepared(settings: Settings) -> Work:
    """As many rows as make a time that can be measured."""
    train, test = pixels(settings)
    task = trained(mlp_task(100, 5, train), 100 if settings.quick else 2000)
    samples, at_once = (10_000, 1000) if settings.device.type == "cuda" else (200 if settings.quick else 1000, 40)
    return Work(task, held_out(test, 100), samples, at_once)


def trained(task: Task, steps: int) -> Task:
    """The task with the weights that so many training steps by hand lead to."""
    loss = by_hand.Loss(task)
    by_hand.stepper(task, loss, loss)(steps)
    return replace(task, encoder=loss.encoder, decoder=loss.decoder)


def held_out(test: Tensor, number: int) -> Tensor:
    """One draw of binary images, shape ``(number, 784)``."""
    torch.manual_seed(1)
    return by_hand.binarize(test[:number].flatten(1))


def built(work: Work) -> tuple[dict[str, Estimate], dict[str, str]]:
    """The contenders, and why others are absent."""
    vae = pair(work.task)
    fused, eager = (drawn(vae, work.x, work.samples, compile=compile) for compile in (True, False))
    made: dict[str, Estimate] = {
        ours: whole(vae, fused),
        "pyrovae, log p(x) alone": mean_weight(vae, fused),
        "pyrovae, eager": whole(vae, eager),
        "by hand, compiled": by_hand_in_pieces(work, torch.compile),
        "by hand, eager": by_hand_in_pieces(work),
    }
    try:
        return made | {"NumPyro": with_numpyro(work)}, {}
    except AbsentError as reason:
        return made, {"NumPyro": str(reason)}


@torch.no_grad()
def drawn(vae: pyrovae.VAE, x: Tensor, samples: int, *, compile: bool, max_rows: int | None = None) -> Draws:
    """The weights from which ``pyrovae.log_likelihood`` estimates; the programs are recorded when they are first drawn."""
    options = {"device": x.device, "compile": compile, "max_rows": max_rows, "max_weights": MAX_WEIGHTS}
    return Draws(vae.model, vae.guide, data=Columns(x), number=samples, **options)


def estimator(vae: pyrovae.VAE, draws: Draws, precision: Precision = "highest") -> Callable[[], LogLikelihood]:
    """``pyrovae.log_likelihood``, without a new record of the programs at every call."""
    counts = [count for count in particles if count <= draws.number]

    @torch.no_grad()
    def estimate() -> LogLikelihood:
        with computing_in(precision), evaluating(vae.model, vae.guide):
            return LogLikelihood.concatenate(
                [LogLikelihood.from_log_weights(draws.log_weights(x), counts) for x in draws.batches()]
            )

    return estimate


def whole(vae: pyrovae.VAE, draws: Draws) -> Estimate:
    """All that ``pyrovae.log_likelihood`` does."""
    estimate = estimator(vae, draws)
    return lambda: torch.from_numpy(estimate().log_p)


def mean_weight(vae: pyrovae.VAE, draws: Draws) -> Estimate:
    """The logarithm of the mean of its weights, without errors, bounds and k-hats."""

    @torch.no_grad()
    def estimate() -> Tensor:
        with evaluating(vae.model, vae.guide):
            return torch.cat([log_mean_weight(draws.log_weights(x)) for x in draws.batches()]).cpu()

    return estimate


def by_hand_in_pieces(work: Work, compiled: Callable[[Any], Any] = lambda function: function) -> Estimate:
    """Log-sum-exps of pieces of draws, in plain PyTorch."""
    weigh = partial(by_hand.log_weights, *work.task.networks(), particles=work.at_once)
    piece = compiled(lambda x: weigh(x=x).logsumexp(0))

    @torch.no_grad()
    def estimate() -> Tensor:
        pieces = [piece(work.x) for _ in range(work.samples // work.at_once)]
        return torch.stack(pieces).logsumexp(0).cpu().double() - math.log(work.samples)

    return estimate


def with_numpyro(work: Work) -> Estimate:
    """Jitted ``log_density`` of guide and model for one datum and one draw, under ``vmap``, in a scan over the pieces.

    Raises:
        AbsentError: where NumPyro, or jax on the device, is missing.
    """
    require("numpyro")
    import jax
    import jax.numpy as jnp
    from jax import random

    place, log_p = device_of(work.x.device.type), _jitted(work)
    with jax.default_device(place):
        x, keys = jnp.asarray(work.x.cpu().numpy()), [random.key(0)]

    def estimate() -> Tensor:
        with jax.default_device(place), jax.default_matmul_precision("highest"):
            keys[0], use = random.split(keys[0])
            return torch.tensor(np.asarray(log_p(x, use)), dtype=torch.float64)

    return estimate


def _jitted(work: Work) -> Any:
    """NumPyro's log p(x), a function of data and a key."""
    import jax
    from jax import lax, random
    from jax.scipy.special import logsumexp
    from numpyro.handlers import seed, substitute
    from numpyro.infer.util import log_density

    model, guide = numpyro_svi.programs(work.task)
    shape = work.samples // work.at_once, len(work.x), work.at_once

    def log_weight(x: Any, key: Any) -> Any:
        log_q, trace = log_density(seed(guide, key), (x[None],), {}, {})
        log_p, _ = log_density(substitute(model, {"z": trace["z"]["value"]}), (x[None],), {}, {})
        return log_p - log_q

    log_weights = jax.vmap(jax.vmap(log_weight, (None, 0)))

    @jax.jit
    def log_p(x: Any, key: Any) -> Any:
        pieces = lax.map(lambda keys: logsumexp(log_weights(x, keys), 1), random.split(key, shape))
        return logsumexp(pieces, 0) - math.log(work.samples)

    return log_p


def multiplications(work: Work) -> Contender:
    """The floor: every row through the decoder's matrix products, without biases, activations, noise and densities."""
    rows = work.at_once * len(work.x)
    layers = [layer for layer in work.task.decoder.modules() if isinstance(layer, nn.Linear)]
    inputs = [torch.randn(rows, layer.in_features, device=work.x.device) for layer in layers]
    outputs = [torch.empty(rows, layer.out_features, device=work.x.device) for layer in layers]

    @torch.no_grad()
    def multiply(times: int) -> float:
        for _ in range(times * work.samples // work.at_once):
            for layer, given, result in zip(layers, inputs, outputs, strict=True):
                torch.mm(given, layer.weight.T, out=result)
        return outputs[-1][0, 0].item()

    return multiply


def repeated(estimate: Estimate) -> Contender:
    """So many estimates of all data."""
    return lambda times: [estimate() for _ in range(times)]


def compared(log_p: Mapping[str, Tensor], tolerance: float = 5.0) -> dict[str, dict[str, str]]:
    """Columns of each one's mean log p(x), and of its difference from ours with the standard error of that.

    Two estimates of a datum differ by Monte Carlo error alone, independently of those of other data.

    Raises:
        ValueError: where the mean difference is more than so many standard errors, so that its time is of another number.
    """
    apart = {name: value - log_p[ours] for name, value in log_p.items() if name != ours}
    found = {name: (value.mean().item(), value.std().item() / math.sqrt(len(value))) for name, value in apart.items()}
    shown = {name: f"{mean:+.3f} ± {error:.3f}" for name, (mean, error) in found.items()}
    if any(not abs(mean) <= tolerance * error + 1e-3 for mean, error in found.values()):
        raise ValueError(f"mean log p(x) differs from ours by more than Monte Carlo error: {shown}")
    return {"mean log p(x)": {name: f"{value.mean():.2f}" for name, value in log_p.items()}, "difference": shown}


def per_unit(times: Mapping[str, Measurement], rows: int) -> dict[str, Measurement]:
    """The times of so many rows as times of 100,000."""
    return {name: measurement(name, [t * unit_rows / rows for t in timed.times]) for name, timed in times.items()}
