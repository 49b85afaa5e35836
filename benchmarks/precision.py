"""What a faster arithmetic in the networks costs in log p(x): its error against float64, and its time.

Each setting of ``pyrovae.log_likelihood(precision=...)``, and float64, make their draws from the same noise: the guide's
means and scales are computed in that precision, the draws follow from them, and the weights are computed in it too. So an
error is all that rounding does to the estimate of a datum, none of it Monte Carlo.
"""

from copy import deepcopy
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils.benchmark import Measurement

import pyrovae
from benchmarks.likelihood import drawn, estimator, held_out, repeated, trained
from benchmarks.measure import Settings, interleaved, milliseconds, ratio, table
from benchmarks.peers.ours import pair
from benchmarks.task import latent_dim, mlp_task, pixels
from pyrovae.evaluation.estimates.estimate import LogLikelihood
from pyrovae.runtime.eval_mode import evaluating
from pyrovae.runtime.precision import computing_in, precisions

batch_size = 100
data_at_once = 10


def run(settings: Settings) -> None:
    """One table, on an importance-weighted autoencoder that was trained for an epoch."""
    train, test = pixels(settings)
    vae = pair(trained(mlp_task(batch_size, 5, train), 50 if settings.quick else len(train) // batch_size))
    number, samples = (50, 100) if settings.quick else (200, 1000)
    x = held_out(test, number)
    noise = standard_noise(samples, x)
    exact = estimated(deepcopy(vae).double(), x.double(), noise)
    errors = {name: error(vae, x, noise, name, exact) for name in precisions}
    times = timed(settings, vae, x, samples)
    rows = [[name, *scientific(errors[name]), *relative(times, name)] for name in precisions]
    spread = f"Monte Carlo error of a datum: {exact.standard_error.mean():.2f}"
    title = f"precision, log p(x) of {number} data from {samples} draws each, against float64 ({spread})"
    header = ["", "mean error, nats", "mean absolute", "largest", "ms", "time, of highest's"]
    table(settings, title, header, rows)


def standard_noise(samples: int, x: Tensor) -> Tensor:
    """Standard normal numbers for all draws, shape ``(K, B, latent_dim)``."""
    torch.manual_seed(2)
    return torch.randn(samples, len(x), latent_dim, device=x.device)


def error(vae: pyrovae.VAE, x: Tensor, noise: Tensor, precision: Any, exact: LogLikelihood) -> Tensor:
    """How much too large log p(x) of each datum is."""
    with computing_in(precision):
        found = estimated(vae, x, noise)
    return torch.from_numpy(found.log_p - exact.log_p)


@torch.no_grad()
def estimated(vae: pyrovae.VAE, x: Tensor, noise: Tensor) -> LogLikelihood:
    """The estimate from draws that are made of this noise, in the precision of the pair and of ``x``."""
    with evaluating(vae.model, vae.guide):
        pieces = zip(x.split(data_at_once), noise.to(x.dtype).split(data_at_once, 1), strict=True)
        return LogLikelihood.concatenate([LogLikelihood.from_log_weights(weights(vae, *piece)) for piece in pieces])


def weights(vae: pyrovae.VAE, x: Tensor, noise: Tensor) -> Tensor:
    """The log weights of draws that are made of this noise, shape ``(K, B)``."""

    def given(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The noise, for the draws; other numbers where a few are made to see how programs run."""
        return noise if shape == noise.shape else torch.randn(shape, dtype=dtype, device=device)

    with mock.patch("torch.distributions.normal._standard_normal", given):
        return pyrovae.log_weights(vae, x, num_samples=len(noise)).total


def timed(settings: Settings, vae: pyrovae.VAE, x: Tensor, samples: int) -> dict[str, Measurement]:
    """The estimates' times, of draws of their own; compiled where it need not be quick."""
    contenders = {}
    for precision in precisions:
        estimate = estimator(vae, drawn(vae, x, samples, compile=not settings.quick), precision)
        estimate()
        contenders[precision] = repeated(estimate)
    return interleaved(contenders, rounds=3 if settings.quick else 10, steps=1)


def scientific(errors: Tensor) -> list[str]:
    """Mean, mean absolute and largest absolute error."""
    return [f"{errors.mean():+.1e}", f"{errors.abs().mean():.1e}", f"{errors.abs().max():.1e}"]


def relative(times: dict[str, Measurement], name: str) -> list[str]:
    """Milliseconds, and the quotient with those of ``highest``."""
    return [milliseconds(times[name].median), f"{ratio(times[name], times['highest']):.2f}"]
