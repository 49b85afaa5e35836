"""One training a folder."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from checks import refused

from pyrovae.runs.lock import Lock

hold = """
import sys, time, types
from pathlib import Path
import pyrovae
sys.modules["pyrovae.runs"] = package = types.ModuleType("pyrovae.runs")  # without what else is in it, which takes seconds
package.__path__ = [str(Path(pyrovae.__file__).parent / "runs")]
from pyrovae.runs.lock import Lock
lock = Lock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of ``tmp_path``."""
    process = subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def write(folder, **content):
    (folder / "lock.json").write_text(json.dumps(content))


def test_a_second_training_is_refused_and_the_first_named(holder, tmp_path):
    with refused(tmp_path, "process", holder.pid):
        Lock(tmp_path).acquire()
    assert json.loads((tmp_path / "lock.json").read_text())["process"] == holder.pid


def test_the_lock_of_a_killed_process_is_free(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # it is still in the table of processes
    taken = Lock(tmp_path)
    taken.acquire()
    taken.check()
    taken.release()
    assert not (tmp_path / "lock.json").exists()


@pytest.mark.parametrize("process", [1, 4_000_000])
def test_a_live_lock_is_not_taken_whatever_clock_and_process_number_say(process, holder, tmp_path):
    """As seen from another name space of processes with the same host name, or from a host whose clock is ahead."""
    write(tmp_path, host="elsewhere", process=process)
    for name in (".lock", "lock.json"):
        os.utime(tmp_path / name, (0, 0))
    holder.send_signal(signal.SIGSTOP)
    with refused(tmp_path, "process", process, "elsewhere"):
        Lock(tmp_path).acquire()


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", "\xff"])
def test_a_holder_that_cannot_be_read(content, holder, tmp_path):
    (tmp_path / "lock.json").write_text(content, encoding="latin-1")
    with refused(tmp_path, "process"):
        Lock(tmp_path).acquire()


def test_the_same_process_does_not_train_twice_in_a_folder(tmp_path):
    first = Lock(tmp_path)
    first.acquire()
    with refused(tmp_path, "process", os.getpid()):
        Lock(tmp_path).acquire()
    first.release()
    Lock(tmp_path).acquire()


def test_what_a_process_left_is_no_lock(tmp_path):
    """A folder that was copied while it was written, or the file of an earlier version."""
    write(tmp_path, host="here", process=os.getpid(), began="5", id="0")
    (tmp_path / ".lock").touch()
    Lock(tmp_path).acquire()


@pytest.mark.parametrize("replaced", [False, True])
def test_who_lost_the_folder_finds_out_and_gives_back_nothing_of_another(replaced, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    held = Lock(folder)
    held.acquire()
    folder.rename(tmp_path / "aside")
    if replaced:
        folder.mkdir()
        other = Lock(folder)
        other.acquire()
    with refused(".lock", "gone"):
        held.check()
    held.release()
    if replaced:
        other.check()
        assert (folder / "lock.json").exists()
    shutil.rmtree(tmp_path / "aside")


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / ".lock").mkdir()
    with refused(".lock", "Is a directory"):
        Lock(tmp_path).acquire()
