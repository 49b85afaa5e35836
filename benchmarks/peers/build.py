"""Another checkout of this library as a contender, in a process of its own, as one cannot hold two versions of a package.

The process takes ``pyrovae``, and ``benchmarks.peers.ours`` that goes with it, from the checkout, and the task from this
process. It is told over a pipe to do so many steps, and answers with the seconds by its own clock, and the loss.
"""

import os
import subprocess
import sys
import weakref
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.peers import build_server
from benchmarks.task import Task


class Build:
    """Training steps of the library that lies at a path, on as many threads as this process has.

    Its process ends with this object.

    Raises:
        ValueError: where the path is no checkout.
        RuntimeError: where the process ends before it answers; its reason is on standard error.
    """

    def __init__(self, path: str | Path, task: Task) -> None:
        self._root = Path(path).resolve()
        if not (self._root / "benchmarks/peers/ours.py").is_file():
            raise ValueError(f"{self._root} has no benchmarks/peers/ours.py: give the root of a checkout of pyrovae")
        self._process = _started(self._root)
        weakref.finalize(self, _end, self._process)
        with TemporaryDirectory() as folder:
            file = Path(folder, "task.pt")
            torch.save({field.name: getattr(task, field.name) for field in fields(task)}, file)
            self.source = Path(self._answer(f"{torch.get_num_threads()} {file}"))
        if not self.source.is_relative_to(self._root):
            raise RuntimeError(f"the process for {self._root} imported {self.source}")

    def __call__(self, steps: int) -> float:
        """Do so many steps and return the mean loss of a datum, in nats."""
        return self._steps(steps)[1]

    def seconds(self, steps: int) -> float:
        """Do so many steps and return the seconds that they took."""
        return self._steps(steps)[0]

    def _steps(self, number: int) -> tuple[float, float]:
        seconds, loss = self._answer(str(number)).split()
        return float(seconds), float(loss)

    def _answer(self, request: str) -> str:
        requests, answers = self._process.stdin, self._process.stdout
        if requests is None or answers is None:
            raise TypeError("the process has no pipes")
        requests.write(f"{request}\n")
        requests.flush()
        answer = answers.readline()
        if not answer:
            raise RuntimeError(f"the process for {self._root} ended with status {self._process.wait()}")
        return answer.strip()


def _started(root: Path) -> subprocess.Popen[str]:
    """The process, which looks for packages in the checkout first, and not where its own file lies."""
    command = [sys.executable, "-P", build_server.__file__]
    environment = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.Popen(command, cwd=root, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()  # closes the pipes too
