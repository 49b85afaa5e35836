"""Two processes that evaluate together; run as ``python sharded.py FOLDER RANK``, or imported, for what one finds."""

import sys

import numpy as np
import torch
from programs import GaussianGuide, LinearGaussian
from together import device, joined

import pyrovae
from pyrovae.runtime.sharding import in_shards


def estimates(device: torch.device, broken: bool = False) -> list[np.ndarray]:
    """Of log p(x), in five pieces."""
    torch.manual_seed(0)
    model = LinearGaussian()
    guide, x = GaussianGuide(model, shift=0.1).to(device), model.data(21).to(device)
    model.to(device)
    if broken:
        x[6:8] = torch.nan
    found = pyrovae.log_likelihood((model, guide), x, 50, max_weights=250, max_rows=200)
    chains = pyrovae.annealed_importance_sampling((model, guide), x, 4, 5, steps=2, max_rows=20)
    bounds = pyrovae.bidirectional((model, guide), x, 4, 5, steps=2, max_rows=20)
    return [found.log_p, found.k_hat, chains.log_weights, bounds.reverse]


def error_of_a_part(rank: int) -> str:
    """What a process says where the data of the second are spoilt."""
    try:
        estimates(device, broken=rank == 1)
    except ValueError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def main(folder: str, rank: int) -> None:
    with joined(folder, rank):
        found = estimates(device)
        mine: list[int] = []
        assert in_shards("abcde", lambda index, item: mine.append(index) or item) == list("abcde")
        np.savez(f"{folder}/{rank}.npz", np.array(mine), *found, said=error_of_a_part(rank))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
