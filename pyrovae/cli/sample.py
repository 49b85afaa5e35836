"""``pyrovae sample RUN``: new data from a trained run, as an array and as a picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jsonargparse import ActionYesNo, ArgumentParser
from jsonargparse.typing import PositiveInt

from pyrovae.cli.parse import parse
from pyrovae.cli.report import are_pictures, draw, generate
from pyrovae.errors import InputError
from pyrovae.plots import samples
from pyrovae.training import load


def main(argv: Sequence[str]) -> int:
    """Draw new data."""
    parser = ArgumentParser(prog="pyrovae sample", exit_on_error=False, allow_abbrev=False, description=__doc__)
    parser.add_argument("run", type=str, help="The run folder.")
    parser.add_argument("--number", type=PositiveInt, default=64, help="How many to draw.")
    parser.add_argument("--seed", type=int, default=0, help="The seed of the draws.")
    parser.add_argument(
        "--output", type=str | None, default=None, help="The file of the array; RUN/samples.npz if not given."
    )
    parser.add_argument("--overwrite", action=ActionYesNo, default=False, help="Replace a former file.")
    asked = parse(parser, argv)
    output = _with_suffix(Path(asked.output or Path(asked.run) / "samples.npz"))
    picture = output.with_suffix(".png")
    vae = load(asked.run)
    event_shape = vae.model.likelihood.event_shape
    drawable = are_pictures(event_shape)
    _check_free([output, picture] if drawable else [output], asked.overwrite)
    with torch.random.fork_rng():
        torch.manual_seed(asked.seed)
        x, mean = generate(vae, asked.number)
    np.savez_compressed(output, x=x.numpy(), mean=mean.numpy())
    print(f"{asked.number} draws of x, and the mean of p(x | z) of each: {output}")
    if drawable:
        draw(picture, lambda ax: samples(mean, ax))
        print(f"the means as pictures: {picture}")
    else:
        print(f"left out: pictures, because data of shape {event_shape} are none")
    return 0


def _with_suffix(path: Path) -> Path:
    """The path as NumPy writes it."""
    return path if path.suffix == ".npz" else path.with_name(f"{path.name}.npz")


def _check_free(paths: list[Path], overwrite: bool) -> None:
    if not paths[0].parent.is_dir():
        raise InputError(f"{paths[0].parent} is no folder; expected one to write {paths[0].name} in: make it first")
    for path in paths:
        if path.exists() and not overwrite:
            raise InputError(f"{path} exists; name another file with --output, or replace it with --overwrite")
