"""Measure this library beside its peers.

    python -m benchmarks --quick              every measurement, small: minutes
    python -m benchmarks step --root data     one, on MNIST
    python -m benchmarks --device cuda --markdown
    python -m benchmarks step --threads 1     on so many threads, torch and jax
    python -m benchmarks step --beside 1      while another process computes products on all cores
    python -m benchmarks step --beside 2 --load loops
    python -m benchmarks step --build ../before --build .

A build is another checkout of this library, in a process of its own beside the contenders of this one; a change is the ratio
of two builds.

A measurement is a file of this folder with a function ``run(settings)``, and its name in ``measurements`` below.
"""

import argparse
import ast
import os
import warnings
from dataclasses import fields
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch

from benchmarks import threads
from benchmarks.busy import busy, kinds
from benchmarks.measure import Settings, machine

measurements = (
    "step",
    "profile",
    "programs",
    "particles",
    "runs",
    "bounds",
    "priors",
    "gradients",
    "likelihood",
    "products",
    "annealing",
    "coverage",
    "tolerance",
    "evaluations",
    "memory",
    "scaling",
    "precision",
    "stream",
    "startup",
    "survival",
    "processes",
    "together",
)


def main() -> None:
    """Run what the command line names, everything if it names nothing."""
    asked = _parser().parse_args()
    threads.use(asked.threads)
    warnings.filterwarnings("ignore", category=FutureWarning)
    with busy(asked.beside, asked.load):
        print(f"{machine(_settings(asked))}{f'; beside {asked.beside} of {asked.load}' * (asked.beside > 0)}", flush=True)
        for name in measurements if "all" in asked.measurement else asked.measurement:
            import_module(f"benchmarks.{name}").run(_settings(asked))


def _settings(asked: argparse.Namespace) -> Settings:
    names = (field.name for field in fields(Settings))
    return Settings(**{name: getattr(asked, name) for name in names})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("benchmarks", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("measurement", nargs="*", choices=[*measurements, "all"], default="all", help=_first_lines())
    parser.add_argument("--device", type=torch.device, default="cpu", help="where everything runs: cpu or cuda")
    parser.add_argument("--quick", action="store_true", help="a small setting, to see that all works")
    parser.add_argument("--root", default=os.environ.get("PYROVAE_DATA"), help="the folder that holds MNIST/raw")
    parser.add_argument("--markdown", action="store_true", help="tables as Markdown")
    parser.add_argument("--keep", help="a folder in which results of hours are kept, to go on from")
    parser.add_argument("--run", help="the folder of a trained run of configs/mnist_iwae.yaml, to measure")
    parser.add_argument("--build", action="append", dest="builds", default=[], help="another checkout (step, together)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="the number that torch and jax use")
    parser.add_argument("--beside", type=int, default=0, help="the number of other processes that compute meanwhile")
    parser.add_argument("--load", choices=kinds, default="products", help="theirs: products on all cores, or Python loops")
    return parser


def _first_lines() -> str:
    return "\n".join(f"{name:10} {_first_line(name)}" for name in measurements).replace("%", "%%")  # argparse formats it


def _first_line(name: str) -> str:
    """The first line of a measurement's docstring, without importing it."""
    spec = find_spec(f"benchmarks.{name}")
    text = Path(spec.origin).read_text() if spec and spec.origin else ""
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]


if __name__ == "__main__":
    main()
