"""What ``fit`` does with steps that are not finite, and with averages."""

import json
import math
import signal

import pyro
import pyro.distributions as dist
import pytest
import torch
from checks import refused
from torch import nn
from torch.optim.lr_scheduler import ConstantLR, LambdaLR, OneCycleLR, SequentialLR

import pyrovae
from pyrovae.runs.checkpoint import load_weights, read_manifest
from pyrovae.training.failing_site import NonFiniteError
from pyrovae.training.progress import Progress
from pyrovae.training.signals import Interrupted

pytestmark = pytest.mark.usefixtures("float64")


class Fragile(nn.Module):
    """z ~ N(0, 1), x ~ N(w z, 1), whose density is NaN for x of NaN, and once w is further from 1 than it may be."""

    def __init__(self, reach=math.inf):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))
        self.reach = reach

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            broken = torch.where((self.weight - 1.0).abs() < self.reach, 0.0, math.nan)
            pyro.sample("x", dist.Normal(self.weight * z + broken, 1.0, validate_args=False), obs=x)


class Guide(nn.Module):
    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(0.1))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.slope * x.nan_to_num(0.0), 1.0))


def train(model, x, **options):
    guide = Guide()
    options = {"epochs": 3, "batch_size": 10, "compile": False, "progress": False, **options}
    return guide, pyrovae.fit((model, guide), x, **options)


class Faulty(torch.utils.data.Dataset):
    """Sixty data, of which one is NaN in some of its uses."""

    def __init__(self, *faults):
        self.uses, self.faults = 0, faults
        self.x = torch.randn(60, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return 60

    def __getitem__(self, index):
        self.uses += index == 9
        return torch.tensor(math.nan) if index == 9 and self.uses in self.faults else self.x[index]


def test_a_step_may_be_left_out_and_is_counted():
    _, history = train(Fragile(), Faulty(*range(3, 100)), nonfinite="skip")
    assert [epoch["skipped"] for epoch in history.metrics] == [1, 1, 1]
    assert all(math.isfinite(epoch["train_bound"]) for epoch in history.metrics)


def test_and_stops_where_it_may_not():
    model = Fragile()
    with refused("'x'", "model", "nan", error=NonFiniteError):
        train(model, Faulty(*range(3, 100)))
    assert model.weight.isfinite()


def test_steps_that_went_too_far_are_made_again_and_smaller(tmp_path):
    """Each epoch has six, which lead out of where the model is finite, unless they are small; the last one too."""
    x, model = 3.0 * torch.randn(60), Fragile(reach=0.35)
    optimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.4)  # noqa: E731
    _, history = train(model, x, epochs=2, optimizer=optimizer, nonfinite="rewind", run=str(tmp_path / "run"))
    times = history.metrics[0]["rewinds"]
    assert times > 0
    assert history.metrics[0]["learning_rate"] == 0.4 / 2**times
    assert (model.weight - 1.0).abs() < 0.35
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])["rewinds"] == times


def test_smaller_steps_that_do_not_help_end():
    """After ten times; parameters are then where the last try left them."""
    model, data = Fragile(), Faulty(*range(3, 100))
    with refused("'x'", "model", "nan", error=NonFiniteError):
        train(model, data, nonfinite="rewind")
    assert data.uses == 2 + 11
    assert model.weight.isfinite()


def test_a_schedule_starts_from_the_smaller_rate():
    x, model = 3.0 * torch.randn(60), Fragile(reach=0.35)
    optimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.4)  # noqa: E731
    schedule = lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch)  # noqa: E731
    _, history = train(model, x, optimizer=optimizer, scheduler=schedule, nonfinite="rewind")
    rates = [epoch["learning_rate"] for epoch in history.metrics]
    factors = [0.5 ** (epoch["rewinds"]) for epoch in history.metrics]
    assert rates[0] == 0.4 * factors[0]
    assert rates[1] == pytest.approx(rates[0] / 2 * factors[1])


def test_averages_are_what_is_validated_kept_and_left(tmp_path):
    x, model = torch.randn(60), Fragile()
    guide, _ = train(model, x, validation=x[:20], ema=0.9, run=str(tmp_path / "run"))
    kept = load_weights(tmp_path / "run" / "checkpoints", "best")
    assert torch.equal(kept["model.weight"], model.weight.detach())
    plain, _ = train(other := Fragile(), x, validation=x[:20])
    assert not torch.equal(other.weight, model.weight)
    assert not torch.equal(plain.slope, guide.slope)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"nonfinite": "hide"}, ["nonfinite", "'hide'", "'stop'", "'skip'", "'rewind'"]),
        ({"ema": 1.5}, ["ema", 1.5]),
        ({"accumulate": 0}, ["accumulate", 0]),
    ],
)
def test_what_is_no_choice(options, words):
    with refused(*words):
        train(Fragile(), torch.randn(20), **options)


def test_what_is_made_again_is_made_from_the_same_beginning():
    """Adam's moments too, the second time as the first: a run whose second epoch has a quarter of the rate at once."""
    optimizer = lambda parameters: torch.optim.Adam(parameters, lr=0.04)  # noqa: E731
    model, other = Fragile(), Fragile()
    _, history = train(model, Faulty(5, 6), epochs=2, optimizer=optimizer, nonfinite="rewind")
    assert [epoch["rewinds"] for epoch in history.metrics] == [0, 2]
    quartered = lambda optimizer: LambdaLR(optimizer, lambda epoch: 0.25 if epoch else 1.0)  # noqa: E731
    train(other, Faulty(), epochs=2, optimizer=optimizer, scheduler=quartered)
    assert torch.equal(model.weight, other.weight)


def test_a_run_that_makes_steps_again_goes_on_from_the_end_of_an_epoch(tmp_path, monkeypatch):
    over, done = Progress.advance, []

    def told(self, batches):
        done.append(batches)
        if len(done) == 15:
            signal.raise_signal(signal.SIGTERM)
        over(self, batches)

    x, options = torch.randn(60), {"nonfinite": "rewind", "keep_minutes": 0.0}
    train(whole := Fragile(), x, run=tmp_path / "whole", **options)
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "advance", told)
        with refused(2, "epochs", "pyrovae train --resume", error=Interrupted):
            train(Fragile(), x, run=tmp_path / "run", **options)
    assert read_manifest(tmp_path / "run" / "checkpoints", "last")["batches"] == 0
    train(model := Fragile(), x, run=tmp_path / "run", resume=True, **options)
    assert torch.equal(model.weight, whole.weight)


def test_looking_whether_an_epoch_may_be_kept_changes_nothing():
    """Running statistics are those of the steps alone."""

    def encoder(in_shape, out_shape):
        layers = nn.Linear(*in_shape, 4), nn.BatchNorm1d(4), nn.Linear(4, math.prod(out_shape))
        return nn.Sequential(*layers, nn.Unflatten(1, out_shape))

    def fitted(**options):
        pyro.set_rng_seed(0)
        pair = pyrovae.VAE((3,), latent_dim=1, encoder=encoder)
        x = torch.bernoulli(torch.full((40, 3), 0.5), generator=torch.Generator().manual_seed(0))
        pyrovae.fit(pair, x, epochs=2, batch_size=10, progress=False, **options)
        return pair.state_dict()

    torch.testing.assert_close(fitted(nonfinite="rewind"), fitted(), rtol=0, atol=0)


def test_averages_are_left_without_validation_too():
    train(model := Fragile(), x := torch.randn(60), ema=0.9)
    train(other := Fragile(), x)
    assert not torch.equal(other.weight, model.weight)


@pytest.mark.parametrize("schedule", [OneCycleLR, "sequence"], ids=str)
def test_every_schedule_starts_from_the_smaller_rate(schedule):
    """So that two tries that failed leave a quarter of each rate."""

    def scheduled(optimizer):
        if schedule == "sequence":
            parts = [ConstantLR(optimizer, 0.5, 2), ConstantLR(optimizer, 1.0, 2)]
            return SequentialLR(optimizer, parts, [2])
        return OneCycleLR(optimizer, max_lr=0.04, total_steps=8)

    def rates(data):
        optimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.04)  # noqa: E731
        _, history = train(Fragile(), data, epochs=4, optimizer=optimizer, scheduler=scheduled, nonfinite="rewind")
        return [epoch["learning_rate"] for epoch in history.metrics]

    assert rates(Faulty(3, 4)) == pytest.approx([rate / 4 for rate in rates(Faulty())])
