"""A training that was stopped and went on is the training that was not."""

import itertools
import json
import random
import shutil
import signal
from functools import partial

import numpy as np
import pytest
import torch
from checks import refused
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau, StepLR

import pyrovae
from pyrovae import VAE
from pyrovae.objectives import ELBO, BetaELBO
from pyrovae.runs import Run
from pyrovae.runs.checkpoint import load_training, load_weights
from pyrovae.runs.checkpoint_index import checkpoints
from pyrovae.training import Interrupted
from pyrovae.training.checkpointing import Checkpointer
from pyrovae.training.progress import Progress
from pyrovae.training.signals import Signals

settings = {"epochs": 4, "batch_size": 16, "seed": 3, "progress": False}


def data(number=70) -> torch.Tensor:
    return torch.bernoulli(torch.full((number, 4), 0.5), generator=torch.Generator().manual_seed(0))


class Jittered(torch.utils.data.Dataset):
    """Data that are turned over now and then, by all random generators there are."""

    def __len__(self):
        return 70

    def __getitem__(self, index):
        noise = torch.rand(4) + np.random.rand() + random.random()  # noqa: NPY002
        return torch.where(noise > 1.5, 1.0 - data()[index], data()[index])


def train_once(folder, *, resume=False, x=None, objective=None, **options):
    """Train into a folder."""
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    pair = VAE((4,), latent_dim=2)
    x, options = data() if x is None else x, {**settings, **options, "objective": objective and objective()}
    pyrovae.fit(pair, x, data(20), run=str(folder), resume=resume, **options)
    return pair


def train(folder, *, stop_after=None, number=signal.SIGTERM, **options):
    """Train into a folder, with a signal to the process after so many steps."""
    over, done = Progress.advance, []

    def counted(self, steps):
        done.append(steps)
        if stop_after is not None and sum(done[:-1]) < stop_after <= sum(done):
            signal.raise_signal(number)
        over(self, steps)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "advance", counted)
        return train_once(folder, **options)


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
    "on CUDA": {"device": "cuda", "compile": False},
    "on CUDA, compiled": {"device": "cuda"},
}
twins = {"a schedule", "all at once"}
"""Cases that are near to others: to one cycle and a plateau, and to any."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.cuda] * ("device" in options) + [pytest.mark.slow] * (name in twins))
        for name, options in cases.items()
    ],
)
def test_goes_on_bit_for_bit(name, tmp_path, unfused):
    """Five steps an epoch; stopped within one, after the last step of one, and within the last."""
    options = cases[name]
    whole = train(tmp_path / "whole", **options)
    stops = {"eager": (2, 5, 13), "all at once": (1, 2), "random data": (2, 5)}.get(name, (7,))
    for stop in stops:
        folder = tmp_path / str(stop)
        with refused("pyrovae train --resume", error=Interrupted):
            train(folder, stop_after=stop, **options)
        again = train(folder, resume=True, **options)
        assert_same(tmp_path / "whole", folder)
        torch.testing.assert_close(again.state_dict(), whole.state_dict(), rtol=0, atol=0)
        assert not (folder / "lock.json").exists()


def test_a_checkpoint_within_an_epoch_needs_no_signal(tmp_path):
    """Where the process is killed, the last of them is what is left: here after every step."""
    train(tmp_path / "whole", keep_minutes=0.0)
    kept, over = [], Progress.advance

    def copied(self, steps):
        over(self, steps)
        kept.append(shutil.copytree(tmp_path / "killed", tmp_path / f"copy-{len(kept)}"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "advance", copied)
        train_once(tmp_path / "killed", keep_minutes=0.0)
    assert len(kept) == 20
    for folder in kept[::7]:
        assert (folder / "lock.json").exists()  # whose process, this one, has no such lock any more
        train(folder, resume=True, keep_minutes=0.0)
        assert_same(tmp_path / "whole", folder)


def test_what_is_asked_for_may_be_more(tmp_path):
    """Epochs may be added, and patience shortened."""
    train(tmp_path / "whole", epochs=6)
    train(tmp_path / "longer", epochs=2)
    train(tmp_path / "longer", epochs=6, resume=True)
    assert_same(tmp_path / "whole", tmp_path / "longer")
    before = outcome(tmp_path / "longer")
    train(tmp_path / "longer", epochs=6, resume=True)
    assert same(outcome(tmp_path / "longer"), before)


def test_early_stopping_goes_on(tmp_path):
    options = {"epochs": 40, "patience": 3, "optimizer": partial(torch.optim.Adam, lr=0.1)}
    whole = train(tmp_path / "whole", **options)
    assert len(outcome(tmp_path / "whole")[0]) < 40
    with pytest.raises(Interrupted):
        train(tmp_path / "run", stop_after=12, **options)
    again = train(tmp_path / "run", resume=True, **options)
    assert_same(tmp_path / "whole", tmp_path / "run")
    assert same(dict(again.state_dict()), dict(whole.state_dict()))
    train(tmp_path / "run", resume=True, **options)
    assert_same(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 8}, ["batch_size", 8, 16]),
        ({"seed": 4}, ["seed", 4, 3]),
        ({"x": data(80)}, ["training", 80, 70]),
        ({"objective": BetaELBO}, ["'BetaELBO", "'ELBO"]),
        ({"objective": partial(ELBO, 2)}, ["num_particles=2", "num_particles=1"]),
        ({"clip_norm": 1.0}, ["clip_norm", "1.0", None]),
        ({"optimizer": torch.optim.RMSprop}, ["'RMSprop'", "'Adam'"]),
        ({"scheduler": partial(StepLR, step_size=1)}, ["'StepLR'", "'NoneType'"]),
    ],
)
def test_another_training_is_refused_and_nothing_is_lost(options, words, tmp_path):
    train(tmp_path / "run", epochs=1)
    before = outcome(tmp_path / "run")
    with refused(*words):
        train(tmp_path / "run", resume=True, **options)
    assert same(outcome(tmp_path / "run"), before)


def test_other_programs_are_refused(tmp_path):
    train(tmp_path / "run", epochs=1)
    pair = VAE((4,), latent_dim=3)
    with refused("'guide.encoder.layers.4.bias'", (4,), (6,)):
        pyrovae.fit(pair, data(), data(20), run=str(tmp_path / "run"), resume=True, **settings)


def test_resuming_where_there_is_nothing_begins(tmp_path):
    train(tmp_path / "whole")
    train(tmp_path / "new", resume=True)
    assert_same(tmp_path / "whole", tmp_path / "new")
    pair = VAE((4,), latent_dim=2)
    with refused("Run(path, resume=True)"):
        pyrovae.fit(pair, data(), run=Run(tmp_path / "other"), resume=True, **settings)
    with refused("resume", "Run(path, resume=True)"):
        pyrovae.fit(pair, data(), resume=True, **settings)


def test_every_so_many_epochs_one_is_kept_for_ever(tmp_path):
    train(tmp_path / "run", epochs=5, keep_every=2)
    assert {"epoch-00002", "epoch-00004", "epoch-00005"} <= set(checkpoints(tmp_path / "run" / "checkpoints"))
    pair = VAE((4,), latent_dim=2)
    pair.load_state_dict(load_weights(tmp_path / "run" / "checkpoints", "epoch-00002"))
    with refused("'epoch-00003'", "best", "last", "epoch-00002"):
        load_weights(tmp_path / "run" / "checkpoints", "epoch-00003")


def test_a_second_signal_ends_at_once(request):
    """It does what it did before: for Ctrl-C, a KeyboardInterrupt in the midst of a step."""
    handler = signal.default_int_handler
    before = signal.signal(signal.SIGINT, handler)  # what a shell runs in the background ignores it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    with Signals() as signals:
        signal.raise_signal(signal.SIGINT)
        assert signals.caught == signal.SIGINT
        with pytest.raises(KeyboardInterrupt) as stopped:
            signal.raise_signal(signal.SIGINT)
    assert not isinstance(stopped.value, Interrupted)
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_as_before_afterwards(number, tmp_path):
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Interrupted) as stopped:
        train(tmp_path / "run", stop_after=1, number=number)
    assert stopped.value.signal == number
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers


class Unspeakable(torch.optim.SGD):
    """An optimiser whose state is more than numbers."""

    def state_dict(self):
        return {**super().state_dict(), "device": Jittered()}


def test_a_state_that_could_not_be_read_back_is_refused_at_once(tmp_path):
    with refused("optimiser", "tensors"):
        train(tmp_path / "run", optimizer=partial(Unspeakable, lr=0.1))


@pytest.mark.parametrize(
    "options",
    [{"accumulate": 2}, {"ema": 0.9}, pytest.param({"nonfinite": "skip"}, marks=pytest.mark.slow), {"nonfinite": "rewind"}],
    ids=str,
)
def test_goes_on_with_what_fit_may_be_told(options, tmp_path):
    """Five batches an epoch, which are three steps of two."""
    whole = train(tmp_path / "whole", **options)
    for stop in (4, 10):
        folder = tmp_path / str(stop)
        with pytest.raises(Interrupted):
            train(folder, stop_after=stop, **options)
        again = train(folder, resume=True, **options)
        assert_same(tmp_path / "whole", folder)
        assert same(dict(again.state_dict()), dict(whole.state_dict()))


def test_data_that_draw_by_themselves_go_on_from_the_end_of_an_epoch(tmp_path):
    """Where torch's numbers begin anew, and NumPy's and Python's do not."""
    options = {"x": Jittered(), "keep_minutes": None}
    train(tmp_path / "whole", **options)
    kept, epoch = [], Checkpointer.end_epoch

    def copied(self, *args, **flags):
        epoch(self, *args, **flags)
        kept.append(shutil.copytree(tmp_path / "killed", tmp_path / f"copy-{len(kept)}"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpointer, "end_epoch", copied)
        train_once(tmp_path / "killed", **options)
    for folder in kept[:3:2]:
        train(folder, resume=True, **options)
        assert_same(tmp_path / "whole", folder)


def test_a_run_that_lost_its_checkpoints_is_not_begun_anew(tmp_path):
    train(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    (tmp_path / "run" / "checkpoints").mkdir()
    with refused(tmp_path / "run", "checkpoint", "--overwrite (overwrite=True)"):
        train(tmp_path / "run", resume=True)
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 4


def test_minutes_between_checkpoints(tmp_path, monkeypatch):
    """At a clock that goes on by a minute whenever it is looked at: every third step or so, and not every one."""
    now = itertools.count(0.0, 60.0)
    monkeypatch.setattr("pyrovae.training.checkpointing.monotonic", lambda: next(now))
    saved, save = [], Run.save
    monkeypatch.setattr(
        Run, "save", lambda self, place, *args, **flags: saved.append(place) or save(self, place, *args, **flags)
    )
    train(tmp_path / "run", epochs=2, keep_minutes=3.0)
    assert [place.batches for place in saved] == [3, 0, 3, 0]
