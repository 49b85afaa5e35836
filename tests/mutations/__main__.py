"""Put each fault into a copy of the library, run the tests that must find it, and say which survive.

python -m tests.mutations                 all: half an hour
python -m tests.mutations 3 17            two of them, by number
python -m tests.mutations --root FOLDER   with the tests of another checkout
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.mutations.mutations import MUTATIONS, Mutation

HERE = Path(__file__).parents[2]
COPIED = ("pyrovae", "tests", "configs", "pyproject.toml")
OUTCOMES = {0: "survived", 1: "killed"}
"""What the exit status of pytest says; another is an error in the tests themselves."""
SECONDS = 1800
"""After which a run is ended that a fault makes endless."""


def main() -> int:
    """Print a line for each fault; the status is the number that were not killed."""
    asked = argparse.ArgumentParser("tests.mutations", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    asked.add_argument("number", nargs="*", type=int, default=range(len(MUTATIONS)), help="which; all if none is named")
    asked.add_argument("--root", type=Path, default=HERE, help="the checkout whose tests and library are copied")
    words = asked.parse_args()
    missed = 0
    with copied(words.root) as root:
        for number in words.number:
            outcome = outcome_of(MUTATIONS[number], root)
            missed += outcome != "killed"
            print(f"{number:3} {outcome:9} {MUTATIONS[number].text}", flush=True)
    print(f"{len(words.number) - missed} of {len(words.number)} killed")
    return missed


@contextmanager
def copied(root: Path) -> Iterator[Path]:
    """A temporary folder with the library and its tests."""
    with TemporaryDirectory() as folder:
        for name in COPIED:
            copy = shutil.copytree if (root / name).is_dir() else shutil.copy
            copy(root / name, Path(folder) / name)
        yield Path(folder)


def outcome_of(mutation: Mutation, root: Path) -> str:
    """What the tests say of one fault: killed, survived, or an exit status that is neither."""
    path = file_of(mutation.text, root / "pyrovae")
    content = path.read_text()
    path.write_text(content.replace(mutation.text, mutation.wrong))
    try:
        status = tested(root, files_of(mutation.tests, root / "tests"))
    finally:
        path.write_text(content)
    return OUTCOMES.get(status, f"error {status}")


def tested(root: Path, files: list[Path]) -> int:
    """The exit status of the tests in these files, as they are run by default, up to the first that fails."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *map(str, files)]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    try:
        return subprocess.run(command, cwd=root, timeout=SECONDS, **silent).returncode
    except subprocess.TimeoutExpired:
        return 1


def file_of(text: str, package: Path) -> Path:
    """The file that holds the text, which must stand once in the library.

    Raises:
        ValueError: where it does not.
    """
    found = [path for path, content in sources(package).items() for _ in range(content.count(text))]
    if len(found) != 1:
        raise ValueError(f"{text!r} stands {len(found)} times in the library; expected once: say it anew in mutations.py")
    return found[0]


@cache
def sources(package: Path) -> dict[Path, str]:
    """The library as it is without a fault."""
    return {path: path.read_text() for path in sorted(package.rglob("*.py"))}


def files_of(ends: tuple[str, ...], tests: Path) -> list[Path]:
    """The files of tests whose paths end so.

    Raises:
        ValueError: where there is none.
    """
    found = [path for end in ends for path in sorted(tests.rglob("test_*.py")) if str(path).endswith(f"/{end}")]
    if len(found) < len(ends):
        raise ValueError(
            f"there are {len(found)} files of tests that end with {', '.join(ends)}: say them anew in mutations.py"
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
