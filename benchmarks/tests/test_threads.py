"""The number of threads, by the CPU time of each."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import benchmarks
from benchmarks import threads

SCRIPT = """
import json, sys
from pathlib import Path
from benchmarks import threads
threads.use(int(sys.argv[1]))
import torch
from benchmarks.peers.jax_by_hand import jitted
from benchmarks.task import made_up, mlp_task

def ticks():
    tasks = {path.name: (path / "stat").read_text().rpartition(")")[2].split() for path in Path("/proc/self/task").iterdir()}
    return {name: int(fields[11]) + int(fields[12]) for name, fields in tasks.items()}

run = jitted(mlp_task(512, 1, made_up(1024)[0]))
run(20)
before = ticks()
run(20)
print(json.dumps([torch.get_num_threads(), [after - before.get(name, 0) for name, after in ticks().items()]]))
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="this system does not show the time of each thread")
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.slow  # on a busy machine the threads that compile have a share of the time
def test_torch_and_jax_compute_with_as_many_threads(number):
    pytest.importorskip("jax")
    command = [sys.executable, "-c", SCRIPT, str(number)]
    done = subprocess.run(command, cwd=Path(benchmarks.__file__).parents[1], check=True, text=True, stdout=subprocess.PIPE)
    of_torch, of_jax = json.loads(done.stdout)
    busiest = max(of_jax) / sum(of_jax)
    assert of_torch == number
    assert busiest > 0.9 if number == 1 else busiest < 0.8


def test_a_number_that_comes_too_late_for_jax_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", sys)
    with pytest.raises(RuntimeError, match="imported already"):
        threads.use(1)
