"""A training that was stopped and went on is the training that was not."""

import json
import random
import signal
from functools import partial

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau

import pyrovae
from pyrovae import VAE, InputError
from pyrovae.objectives import BetaELBO
from pyrovae.training import Interrupted, Run
from pyrovae.training.checkpoint import load_training, load_weights
from pyrovae.training.steps import Steps

settings = {"epochs": 4, "batch_size": 16, "seed": 3, "progress": False}


def data(number=70) -> torch.Tensor:
    return torch.bernoulli(torch.full((number, 4), 0.5), generator=torch.Generator().manual_seed(0))


class Jittered(torch.utils.data.Dataset):
    """Data that are moved a little at each use, by all random generators there are."""

    def __len__(self):
        return 70

    def __getitem__(self, index):
        noise = torch.rand(4) + np.random.rand() + random.random()  # noqa: NPY002
        return (data()[index] + 0.01 * noise).clamp(0.0, 1.0).round()


def train(folder, *, resume=False, stop_after=None, number=signal.SIGTERM, x=None, objective=None, **options):
    """Train into a folder, with a signal to the process after so many steps."""
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    pair, over, steps = VAE((4,), latent_dim=2), Steps._over, []

    def counted(self, number_of_steps, number_of_data):
        steps.append(number_of_steps)
        if sum(steps) == stop_after:
            signal.raise_signal(number)
        over(self, number_of_steps, number_of_data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Steps, "_over", counted)
        x, options = data() if x is None else x, {**settings, **options, "objective": objective and objective()}
        pyrovae.fit(pair.model, pair.guide, x, data(20), run=str(folder), resume=resume, **options)
    return pair


def outcome(folder):
    """All that must be equal."""
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    training = load_training(folder / "checkpoints")
    return (
        [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in metrics],
        *(load_weights(folder / "checkpoints", which) for which in ("best", "last")),
        *(training[name] for name in ("optimizer", "scheduler", "buffers")),
    )


def same(one, other) -> bool:
    """Whether all is equal to the bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def assert_same(one, other):
    for found, expected in zip(outcome(one), outcome(other), strict=True):
        assert same(found, expected), (found, expected)


cases = {
    "eager": {"compile": False},
    "compiled": {"compile": True},
    "sgd and a plateau": {"optimizer": partial(torch.optim.SGD, lr=0.1, momentum=0.9), "scheduler": ReduceLROnPlateau},
    "a schedule": {"scheduler": partial(LambdaLR, lr_lambda=lambda epoch: 0.5**epoch)},
    "one cycle": {"scheduler": partial(OneCycleLR, max_lr=0.01, total_steps=10)},
    "warm-up": {"objective": partial(BetaELBO, warmup=12)},
    "random data": {"x": Jittered()},
    "clipped, RMSprop": {"clip_norm": 0.5, "optimizer": partial(torch.optim.RMSprop, lr=0.01)},
    "all at once": {"batch_size": 100},
}


@pytest.mark.parametrize("name", cases)
def test_goes_on_bit_for_bit(name, tmp_path):
    """Five steps an epoch; stopped within one, after the last step of one, and within the last."""
    options = cases[name]
    whole = train(tmp_path / "whole", **options)
    stops = {"all at once": (1, 2), "compiled": (7,)}.get(name, (2, 5, 13))
    for stop in stops:
        folder = tmp_path / str(stop)
        with pytest.raises(Interrupted, match="; go on with `pyrovae train --resume"):
            train(folder, stop_after=stop, **options)
        again = train(folder, resume=True, **options)
        assert_same(tmp_path / "whole", folder)
        torch.testing.assert_close(again.state_dict(), whole.state_dict(), rtol=0, atol=0)
        assert not (folder / "lock.json").exists()
