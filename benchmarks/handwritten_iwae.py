"""An IWAE by hand, in plain PyTorch, as the yardstick of ``configs/mnist_iwae.yaml``: same network, data, budget.

    python -m benchmarks.handwritten_iwae --root data --epochs 10

Nothing of the library's engine, objectives, training or evaluation is used; only its data set, so that both train on the
same pixels and are tested on the same draw of the test set.
"""

import argparse
import math
from time import perf_counter

import torch

from benchmarks.networks import mlp
from benchmarks.peers.by_hand import binarize, bound, log_likelihood, log_weights
from pyrovae.data import MNIST


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
    encoder, decoder = mlp(784, 200, 200, 100), mlp(50, 200, 200, 784)
    with torch.no_grad():
        decoder[-1].bias.copy_(train.mean(0).clamp(1e-3, 1 - 1e-3).logit())
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)
    began = perf_counter()
    for epoch in range(1, asked.epochs + 1):
        total = 0.0
        for indices in torch.randperm(len(train)).split(100):
            loss = -bound(log_weights(encoder, decoder, binarize(train[indices]), asked.particles)).mean()
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
