"""An IWAE by hand, in plain PyTorch, as the yardstick of ``configs/mnist_iwae.yaml``: same network, data, budget.

    python -m benchmarks.handwritten_iwae --root data --epochs 10

Nothing of the library's engine, objectives, training or evaluation is used; only its data set, so that both train on the
same pixels and are tested on the same draw of the test set.
"""

import argparse
import itertools
import math
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from pyrovae.data import MNIST


def network(*widths: int) -> nn.Sequential:
    """Linear layers with tanh between them."""
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
    return nn.Sequential(*[part for layer in layers[:-1] for part in (layer, nn.Tanh())], layers[-1])


def log_weights(encoder: nn.Module, decoder: nn.Module, x: Tensor, particles: int) -> Tensor:
    """log p(x, z) - log q(z | x), shape ``(K, B)``, for x of shape ``(B, 784)``."""
    loc, raw = encoder(x).chunk(2, -1)
    scale = softplus(raw) + 1e-6
    noise = torch.randn(particles, *loc.shape)
    z = loc + scale * noise
    log_p_z = -0.5 * (z**2).sum(-1)
    log_q_z = (-0.5 * noise**2 - scale.log()).sum(-1)
    logits = decoder(z)
    log_p_x = -binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)
    return log_p_x + log_p_z - log_q_z


def bound(weights: Tensor) -> Tensor:
    """The importance-weighted bound of each datum."""
    return weights.logsumexp(0) - math.log(len(weights))


@torch.no_grad()
def log_likelihood(encoder: nn.Module, decoder: nn.Module, x: Tensor, samples: int) -> Tensor:
    """log p(x) of each datum by importance sampling, in pieces of 100 samples for 100 data."""
    pieces = [
        torch.stack([log_weights(encoder, decoder, batch, 100).logsumexp(0) for _ in range(samples // 100)]).logsumexp(0)
        for batch in x.split(100)
    ]
    return torch.cat(pieces) - math.log(samples)


def main() -> None:
    """Train and test."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--particles", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, default=1000)
    asked = parser.parse_args()
    data = MNIST(asked.root, binarize="dynamic")
    train = data.train.x.flatten(1)
    torch.manual_seed(asked.seed)
    encoder, decoder = network(784, 200, 200, 100), network(50, 200, 200, 784)
    with torch.no_grad():
        decoder[-1].bias.copy_(train.mean(0).clamp(1e-3, 1 - 1e-3).logit())
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)
    began = perf_counter()
    for epoch in range(1, asked.epochs + 1):
        total = 0.0
        for indices in torch.randperm(len(train)).split(100):
            loss = -bound(log_weights(encoder, decoder, train[indices].bernoulli(), asked.particles)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(indices)
        print(f"epoch {epoch}: training bound {-total / len(train):.2f} ({perf_counter() - began:.0f} s)", flush=True)
    x = data.test.fixed_draw()[: asked.limit].flatten(1)
    estimate = log_likelihood(encoder, decoder, x, 5000).double()
    error = estimate.std() / math.sqrt(len(estimate))
    print(f"log p(x) {estimate.mean():.2f} +- {error:.2f} on {len(estimate)} test images, 5000 samples")


if __name__ == "__main__":
    main()
