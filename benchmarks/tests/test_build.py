"""Another checkout as a contender."""

import math
from pathlib import Path

import pytest

import benchmarks
from benchmarks.peers.build import Build
from benchmarks.peers.ours import recorded
from benchmarks.task import Task, made_up, mlp_task

here = Path(benchmarks.__file__).parents[1]


@pytest.fixture(scope="module")
def task() -> Task:
    return mlp_task(20, 1, made_up(100)[0])


def test_a_build_trains_as_this_one_in_a_process_that_ends_with_it(task):
    build = Build(here, task)
    assert build.source == here / "pyrovae/__init__.py"
    assert build(20) == pytest.approx(recorded(task)(20), rel=0.02)
    assert 0 < build.seconds(2) < math.inf
    process = build._process
    assert process.poll() is None
    del build
    assert process.poll() is not None


def test_a_folder_that_is_no_checkout_is_refused(task, tmp_path):
    with pytest.raises(ValueError, match="root of a checkout"):
        Build(tmp_path, task)


def test_a_build_that_cannot_be_imported_is_an_error(task, tmp_path):
    (tmp_path / "benchmarks/peers").mkdir(parents=True)
    (tmp_path / "benchmarks/peers/ours.py").write_text("recorded = None\n")
    with pytest.raises(RuntimeError, match="ended with status 1"):
        Build(tmp_path, task)
