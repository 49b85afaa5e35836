"""Processes that compute meanwhile, and are gone afterwards."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

import pytest

import benchmarks
from benchmarks.busy import busy, kinds

SCRIPT = """
from time import sleep
from benchmarks.busy import busy

if __name__ == "__main__":
    with busy(1, "loops") as numbers:
        print(*numbers, flush=True)
        sleep(600)
"""


@pytest.mark.parametrize("kind", kinds)
def test_processes_are_gone_afterwards(kind):
    with busy(2, kind) as numbers:
        assert all(map(alive, numbers))
    assert not any(map(alive, numbers))


def test_processes_are_gone_after_an_error():
    started: list[int] = []

    def failing() -> None:
        with busy(1, "loops") as numbers:
            started.extend(numbers)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert len(started) == 1
    assert not any(map(alive, started))


def test_processes_end_where_the_one_that_started_them_is_killed(tmp_path):
    file = tmp_path / "measure.py"
    file.write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(Path(benchmarks.__file__).parents[1])}
    with subprocess.Popen([sys.executable, str(file)], env=environment, text=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        number = int(process.stdout.readline())
        assert alive(number)
        process.send_signal(signal.SIGKILL)
    deadline = monotonic() + 60
    while alive(number) and monotonic() < deadline:
        sleep(0.1)
    assert not alive(number)


def alive(number: int) -> bool:
    """Whether there is such a process that has not ended."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{number}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
