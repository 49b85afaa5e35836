"""``pyrovae sample RUN``: draw new data from a trained run, as an array and as a picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyrovae.cli.drawing import draw
from pyrovae.cli.figures import are_pictures
from pyrovae.cli.generation import generate, labels_in_turn
from pyrovae.cli.output_path import require_folder
from pyrovae.errors import InputError
from pyrovae.experiment import load
from pyrovae.experiment.parser import ActionYesNo, NonNegativeInt, Parser, PositiveInt, add_trust, make_parser, parse
from pyrovae.plots import samples
from pyrovae.runs.atomic_files import told
from pyrovae.runs.results import add_results
from pyrovae.vae import VAE

Label = NonNegativeInt | None  # pyright: ignore[reportOperatorIssue]


def main(argv: Sequence[str]) -> int:
    """Draw new data from a run, and write them."""
    asked = parse(_parser(), argv)
    output = _with_suffix(Path(asked.output or Path(asked.run) / "samples.npz"))
    picture = output.with_suffix(".png")
    vae = load(asked.run, trust=asked.trust)
    event_shape = vae.model.likelihood.event_shape
    drawable = are_pictures(event_shape)
    _check_free([output, picture] if drawable else [output], asked.overwrite)
    with torch.random.fork_rng():
        torch.manual_seed(asked.seed)
        labels = _labels(vae, asked.number, asked.label)
        x, mean = generate(vae, asked.number, labels)
    drawn = {"x": x, "mean": mean} if labels is None else {"x": x, "mean": mean, "labels": labels}
    with told(output):
        np.savez_compressed(output, **{name: value.numpy() for name, value in drawn.items()})  # pyright: ignore
    add_results(Path(asked.run), output)
    print(f"{asked.number} draws of x, and the mean of p(x | z) of each: {output}")
    if drawable:
        draw(picture, lambda ax: samples(mean, ax))
        add_results(Path(asked.run), picture)
        print(f"the means as pictures: {picture}")
    else:
        print(f"left out: pictures, because data of shape {event_shape} are none")
    return 0


def _parser() -> Parser:
    parser = make_parser("pyrovae sample", __doc__)
    parser.add_argument("run", type=str, help="The run folder.")
    parser.add_argument("--number", type=PositiveInt, default=64, help="How many to draw.")
    parser.add_argument(
        "--label", type=Label, default=None, help="The label of a conditional model; all in turn if not given."
    )
    parser.add_argument("--seed", type=int, default=0, help="The seed of the draws.")
    parser.add_argument(
        "--output", type=str | None, default=None, help="The file of the array; RUN/samples.npz if not given."
    )
    parser.add_argument("--overwrite", action=ActionYesNo, default=False, help="Replace a former file.")
    add_trust(parser)
    return parser


def _labels(vae: VAE, number: int, label: int | None) -> Tensor | None:
    """The labels to draw for, if the model is conditioned on any."""
    classes = None if vae.context_shape is None else vae.context_shape[0]
    if label is None:
        return labels_in_turn(vae, number)
    if classes is None or label >= classes:
        known = "is not conditioned on labels" if classes is None else f"knows labels 0 to {classes - 1}"
        raise InputError(f"--label is {label}, and the model {known}; leave it out, or name one of those")
    return torch.full((number,), label)


def _with_suffix(path: Path) -> Path:
    """The path as NumPy writes it."""
    return path if path.suffix == ".npz" else path.with_name(f"{path.name}.npz")


def _check_free(paths: list[Path], overwrite: bool) -> None:
    require_folder(paths[0])
    for path in paths:
        if path.exists() and not overwrite:
            raise InputError(f"{path} exists; name another file with --output, or replace it with --overwrite")
