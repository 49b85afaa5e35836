"""An importance-weighted autoencoder by hand, in plain PyTorch: eager, compiled, and as a CUDA graph.

Nothing of the library's engine, objectives, training or evaluation is used.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.peers import Stepper, Trained
from benchmarks.task import Task


def log_weights(encoder: nn.Module, decoder: nn.Module, x: Tensor, particles: int) -> Tensor:
    """log p(x, z) - log q(z | x), shape ``(K, B)``, for x of shape ``(B, *event_shape)``."""
    return weigh(*proposal(encoder, x), decoder, x, particles)


def proposal(encoder: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and scale of q(z | x), both of shape ``(B, latent_dim)``."""
    loc, raw = encoder(x).chunk(2, -1)
    return loc, softplus(raw) + 1e-6


def weigh(loc: Tensor, scale: Tensor, decoder: Callable[[Tensor], Tensor], x: Tensor, particles: int) -> Tensor:
    """The same for a proposal N(loc, scale^2), both of shape ``(B, latent_dim)``."""
    noise = torch.randn(particles, *loc.shape, device=loc.device)
    z = loc + scale * noise
    log_p_z = -0.5 * (z**2).sum(-1)
    log_q_z = (-0.5 * noise**2 - scale.log()).sum(-1)
    logits = decoder(z.flatten(0, 1)).unflatten(0, (particles, -1))
    log_p_x = -binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").flatten(2).sum(-1)
    return log_p_x + log_p_z - log_q_z


def bound(weights: Tensor) -> Tensor:
    """The importance-weighted bound of each datum; of one particle, the evidence lower bound."""
    return weights.logsumexp(0) - math.log(len(weights)) if len(weights) > 1 else weights[0]


@torch.no_grad()
def log_likelihood(encoder: nn.Module, decoder: nn.Module, x: Tensor, samples: int) -> Tensor:
    """log p(x) of each datum by importance sampling, in pieces of 100 samples for 100 data."""
    pieces = [
        torch.stack([log_weights(encoder, decoder, batch, 100).logsumexp(0) for _ in range(samples // 100)]).logsumexp(0)
        for batch in x.split(100)
    ]
    return torch.cat(pieces) - math.log(samples)


def binarize(x: Tensor) -> Tensor:
    """A fresh draw of each pixel; faster on a processor than ``torch.bernoulli``, the same where it is compiled."""
    return (torch.rand_like(x) < x).to(x.dtype)


class Loss(nn.Module):
    """Minus the mean bound of the batch that stands in some rows of the data, binarised anew."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.encoder, self.decoder = task.networks()
        self.particles = task.particles

    def forward(self, data: Tensor, rows: Tensor) -> Tensor:
        return self.of(data[rows])

    def of(self, pixels: Tensor) -> Tensor:
        """The same for rows that were read elsewhere."""
        return -bound(log_weights(self.encoder, self.decoder, binarize(pixels), self.particles)).mean()

    def trained(self) -> Trained:
        """The networks as they are now."""
        return Trained(partial(proposal, self.encoder), self.decoder)


def eager(task: Task) -> Stepper:
    """PyTorch as it is written."""
    loss = Loss(task)
    return stepper(task, loss, loss)


def compiled(task: Task) -> Stepper:
    """The loss, with the choice of rows and the binarisation, under ``torch.compile``."""
    loss = Loss(task)
    return stepper(task, loss, torch.compile(loss))


def stepper(task: Task, parameters: Loss, loss: Callable[[Tensor, Tensor], Tensor]) -> Stepper:
    """Steps of the optimiser on a loss and its parameters."""
    optimizer = torch.optim.Adam(parameters.parameters(), lr=task.learning_rate, fused=True)
    order = task.order()

    def run(steps: int) -> float:
        total = torch.zeros((), device=task.data.device)
        for rows in order.take(steps * task.batch_size).split(task.batch_size):
            value = loss(task.data, rows)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            total += value.detach()
        return total.item() / steps

    return run


def compiled_run(task: Task, epochs: int) -> Trained:
    """Epochs of the compiled step, on data in memory; an incomplete batch is left out."""
    loss = Loss(task)
    stepper(task, loss, torch.compile(loss))(epochs * (len(task.data) // task.batch_size))
    return loss.trained()


def eager_run(task: Task, epochs: int) -> Trained:
    """The loop of the textbooks: a ``DataLoader``, and PyTorch as it is written."""
    loss = Loss(task)
    optimizer = torch.optim.Adam(loss.parameters(), lr=task.learning_rate)
    loader = DataLoader(TensorDataset(task.data.cpu()), task.batch_size, shuffle=True)
    for _ in range(epochs):
        for (pixels,) in loader:
            value = loss.of(pixels.to(task.data.device))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    return loss.trained()


def cuda_graph(task: Task) -> Stepper:
    """The whole step, compiled as above, recorded once as a CUDA graph."""
    loss = Loss(task)
    step = _Recorded(task, loss, torch.compile(loss))
    order = task.order()

    def run(steps: int) -> float:
        step.total.zero_()
        for rows in order.take(steps * task.batch_size).split(task.batch_size):
            step(rows)
        return step.total.item() / steps

    return run


class _Recorded:
    """A training step as a CUDA graph; ``total`` is the sum of its losses."""

    def __init__(self, task: Task, parameters: Loss, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._data, self._loss = task.data, loss
        self._rows = torch.arange(task.batch_size, device=task.data.device)
        self._optimizer = torch.optim.Adam(parameters.parameters(), lr=task.learning_rate, fused=True, capturable=True)
        self.total = torch.zeros((), device=task.data.device)
        before = copy_of(parameters)
        self._warm_up()
        self._graph = torch.cuda.CUDAGraph()
        self._optimizer.zero_grad()
        with torch.cuda.graph(self._graph):
            self._step()
        self._start_again(parameters, before)

    def __call__(self, rows: Tensor) -> None:
        self._rows.copy_(rows)
        self._graph.replay()

    def _step(self) -> None:
        value = self._loss(self._data, self._rows)
        value.backward()
        self._optimizer.step()
        self.total += value.detach()

    def _warm_up(self) -> None:
        """What is recorded must have run a few times before, on a stream of its own."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._optimizer.zero_grad()
                self._step()
        torch.cuda.current_stream().wait_stream(stream)

    @torch.no_grad()
    def _start_again(self, parameters: Loss, before: dict[str, Tensor]) -> None:
        """Undo the steps of the warm-up in place, where the graph reads and writes."""
        parameters.load_state_dict(before)
        for state in self._optimizer.state.values():
            for value in state.values():
                value.zero_()


def copy_of(module: nn.Module) -> dict[str, Tensor]:
    """The weights as they are now."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
