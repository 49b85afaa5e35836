"""``pyrovae train``: train and evaluate a pair by a configuration, and keep it in a run folder.

``pyrovae train --resume RUN`` goes on with one that was stopped.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from pyrovae.cli.device import default_device
from pyrovae.cli.evaluation import report
from pyrovae.cli.resume import settings_to_resume
from pyrovae.cli.torchrun import joined, own_device
from pyrovae.data import Split
from pyrovae.errors import InputError
from pyrovae.experiment.build import Experiment, build, build_again
from pyrovae.experiment.load import read_config
from pyrovae.experiment.parser import Namespace, Parser, parse
from pyrovae.experiment.schema import experiment_parser
from pyrovae.experiment.unsaved_state import require_kept
from pyrovae.priors import Prior, Vamp
from pyrovae.runs import Run
from pyrovae.runs.split_record import check_same
from pyrovae.runtime.batches import as_data, batches
from pyrovae.runtime.processes import Processes
from pyrovae.training import fit


def main(argv: Sequence[str]) -> int:
    """Train and evaluate; every error of the input comes before the first write."""
    parser = experiment_parser()
    resume, trust = _asked(argv)
    config = settings_to_resume(parser, Path(resume), argv, trust) if resume else parse(parser, argv)
    device = own_device(default_device(config))
    with joined(device) as group:
        if group.restarted and _is_begun(parser, config):
            config = settings_to_resume(parser, Path(config.run), ["--resume", config.run], trust)
        _run(parser, config, device, writes=group.first)
    return 0


def _run(parser: Parser, config: Namespace, device: str, writes: bool) -> None:
    options = {"overwrite": config.overwrite, "resume": config.resume is not None}
    Run(config.run, **options)
    experiment = build(parser, config, config.trust if config.resume else None)
    if config.resume is not None:
        check_same(experiment.data, Path(config.run))
    train = experiment.data.train
    shown = next(batches(as_data(train.fixed_draw()), min(len(train), 4)))
    require_kept(experiment.vae, build_again(config, experiment.data.event_shape), shown)
    if config.start_at_mean:
        experiment.vae.start_at_mean(_mean(experiment.data.train))
    if config.start_prior_at_data:
        _start_prior(experiment.vae.model.prior, experiment.data.train, config.training.seed)
    run = Run(config.run, **options, config=_text_to_keep(parser, config), split=_split(experiment))
    _train(experiment, run, device)
    report(experiment.vae, experiment.data, run.path, **vars(config.evaluation), device=device, writes=writes)


def _asked(argv: Sequence[str]) -> tuple[str | None, list[str]]:
    """The run to go on with, if one is named, and the modules to trust."""
    words = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    words.add_argument("--resume")
    words.add_argument("--trust", action="append", default=[])
    asked, _ = words.parse_known_args(argv)
    return asked.resume, asked.trust


def _is_begun(parser: Parser, config: Namespace) -> bool:
    """Whether the run folder is of a training with these settings; what the first process found there is said by all."""
    begun = Path(config.run) / "config.yaml"
    found = config.resume is None and begun.is_file() and begun.read_text() == _text(parser, config)
    return Processes().gather(found)[0]


def _train(experiment: Experiment, run: Run, device: str) -> None:
    data, vae = experiment.data, experiment.vae
    settings = {**experiment.training, "device": device, "resume": run.resumes, "progress": Processes().rank == 0}
    print(f"{data}\ntraining on {device}")
    began = perf_counter()
    history = fit(vae, data.train, data.validation, objective=experiment.objective, run=run, **settings)
    print(
        f"{len(history.metrics)} epochs in {perf_counter() - began:.1f} s, the first step after "
        f"{history.seconds_to_first_step:.1f} s; the best validation bound was in epoch {history.best_epoch}, whose "
        "parameters are kept\n"
    )


def _mean(train: Split) -> Tensor:
    """The mean of the training data, of their observed numbers, over one draw of their binarisation."""
    total, count = 0.0, 0.0
    for batch in batches(as_data(train.fixed_draw()), 1000):
        observed = batch.given.get("mask", torch.ones_like(batch.x, dtype=torch.bool))
        total, count = total + batch.x.sum(0), count + observed.sum(0)  # where nothing was observed, x is 0
    return torch.as_tensor(total / torch.as_tensor(count).clamp_min(1))


def _start_prior(prior: Prior, train: Split, seed: int) -> None:
    """Let pseudo-inputs begin at training data, drawn at random."""
    if not isinstance(prior, Vamp):
        raise InputError(
            f"start_prior_at_data is true, and the prior is {type(prior).__name__}, which has no pseudo-inputs; take "
            "--model.prior Vamp, or leave it false"
        )
    if prior.components > len(train):
        raise InputError(
            f"the prior has {prior.components} pseudo-inputs, and there are {len(train)} training data to start them at; "
            f"take --model.prior.components {len(train)} or fewer, or --start_prior_at_data false"
        )
    chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[: prior.components]
    batch = next(batches(as_data(train.fixed_draw()), prior.components, order=chosen))
    prior.start_at(batch.x, batch.given.get("c"))


def _text(parser: Parser, config: Namespace) -> str:
    kept = config.clone()
    for name in ("config", "resume", "trust"):
        kept.pop(name, None)
    kept.overwrite = False
    return parser.dump(kept, skip_unset=False)


def _text_to_keep(parser: Parser, config: Namespace) -> str:
    """The text for ``config.yaml``, which stays as it is if a run goes on with the same settings."""
    if config.resume is None:
        return _text(parser, config)
    former = settings_to_resume(parser, Path(config.run), [], config.trust)
    same = _text(parser, former) == _text(parser, config)
    return read_config(Path(config.run)) if same else _text(parser, config)


def _split(experiment: Experiment) -> dict[str, np.ndarray]:
    return {**experiment.data.record(), "event_shape": np.array(experiment.data.event_shape)}
