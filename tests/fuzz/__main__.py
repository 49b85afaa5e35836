"""``python -m tests.fuzz TARGET --seconds N``: hand a reader mutated files, and report every end but an InputError.

Where atheris is installed (``pip install -e ".[fuzz]"``) it steers by coverage; else mutations are drawn at random.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
import traceback
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple


class Result(NamedTuple):
    """What fuzzing came to: files that were read, seconds that it took, and a text for each crash."""

    executions: int
    seconds: float
    crashes: list[str]


def guided(name: str, seconds: int, keep: Path | None = None) -> Result:
    """Fuzz in a process that atheris steers."""
    with tempfile.TemporaryDirectory(prefix="fuzz-guided-") as folder:
        folder = Path(keep or folder)
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "tests.fuzz.guided", name, str(seconds), str(folder)]
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        count = re.findall(r"^#(\d+)|stat::number_of_executed_units: (\d+)", done.stderr, re.MULTILINE)
        crashes = [path.read_text() for path in sorted(folder.glob("crash-*.txt"))]
        if done.returncode:
            crashes.append(f"the process ended with {done.returncode}:\n{done.stderr[-4000:]}")
        return Result(
            max((int(number) for pair in count for number in pair if number), default=0), time.monotonic() - began, crashes
        )


def at_random(name: str, seconds: float) -> Result:
    """Fuzz in this process."""
    import numpy as np

    from tests.fuzz.mutations import mutated
    from tests.fuzz.targets import reader, seeds, targets

    generator, crashes, executions = np.random.default_rng(), {}, 0
    known, began = seeds(name), time.monotonic()
    with reader(name) as read:
        while time.monotonic() < began + seconds:
            executions += 1
            try:
                read(mutated(known, targets[name].words, generator))
            except Exception as error:
                place = traceback.extract_tb(error.__traceback__)[-1]
                crashes.setdefault((type(error), place.filename, place.lineno), traceback.format_exc())
    return Result(executions, time.monotonic() - began, [*crashes.values()])


def main() -> int:
    """Fuzz one target, or all in turn; the exit status says whether anything crashed."""
    from tests.fuzz.targets import targets

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=[*targets, "all"])
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--random", action="store_true", help="draw at random, also where atheris is installed")
    parser.add_argument("--keep", type=Path, help="a folder for the files that crash a reader")
    asked = parser.parse_args()
    steered, crashed = find_spec("atheris") is not None and not asked.random, False
    for name in targets if asked.target == "all" else [asked.target]:
        keep = asked.keep and asked.keep / name
        found = guided(name, asked.seconds, keep) if steered else at_random(name, asked.seconds)
        print(f"{name}: {found.executions:,} executions in {found.seconds:.0f} s, {len(found.crashes)} crashes", flush=True)
        print("\n".join(found.crashes), end="", flush=True)
        crashed |= bool(found.crashes)
    return int(crashed)


if __name__ == "__main__":
    sys.exit(main())
