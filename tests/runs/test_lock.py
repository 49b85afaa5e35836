"""One training a folder."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from pyrovae import InputError
from pyrovae.runs import lock
from pyrovae.runs.lock import Lock

hold = """
import sys, time
from pathlib import Path
from pyrovae.runs.lock import Lock
Lock(Path(sys.argv[1])).acquire()
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


def test_a_second_training_is_refused_and_the_first_named(holder, tmp_path):
    with pytest.raises(InputError, match=f"is being trained by process {holder.pid} on "):
        Lock(tmp_path).acquire()
    assert json.loads((tmp_path / "lock.json").read_text())["process"] == holder.pid


def test_the_lock_of_a_killed_process_is_stale(holder, tmp_path):
    """Also while nobody has waited for it, and it is still in the table of processes."""
    holder.send_signal(signal.SIGKILL)
    time.sleep(0.5)
    taken = Lock(tmp_path)
    taken.acquire()
    taken.check()
    taken.release()
    assert not (tmp_path / "lock.json").exists()


def test_a_process_that_sleeps_is_alive(holder, tmp_path):
    holder.send_signal(signal.SIGSTOP)
    os.utime(tmp_path / "lock.json", (0, 0))
    with pytest.raises(InputError, match="is being trained"):
        Lock(tmp_path).acquire()


def test_the_same_process_does_not_train_twice_in_a_folder(tmp_path):
    first = Lock(tmp_path)
    first.acquire()
    with pytest.raises(InputError, match="is being trained"):
        Lock(tmp_path).acquire()
    first.release()
    Lock(tmp_path).acquire()


def write(folder, **content):
    (folder / "lock.json").write_text(json.dumps(content))


def test_a_number_that_another_process_has_now(tmp_path):
    write(tmp_path, host=lock.socket.gethostname(), process=os.getppid(), began="long ago", id="0")
    Lock(tmp_path).acquire()


@pytest.mark.parametrize(("seconds", "alive"), [(lock.SILENCE - 60, True), (lock.SILENCE + 60, False)])
def test_on_another_host_silence_tells(seconds, alive, tmp_path):
    write(tmp_path, host="elsewhere", process=1, began="5", id="0")
    os.utime(tmp_path / "lock.json", (time.time() - seconds,) * 2)
    if alive:
        with pytest.raises(InputError, match="by process 1 on elsewhere"):
            Lock(tmp_path).acquire()
    else:
        Lock(tmp_path).acquire()


def test_a_lock_that_cannot_be_read_is_held_until_it_is_silent(tmp_path):
    (tmp_path / "lock.json").write_text("")
    with pytest.raises(InputError, match=r"remove .*lock.json"):
        Lock(tmp_path).acquire()
    os.utime(tmp_path / "lock.json", (0, 0))
    Lock(tmp_path).acquire()


def test_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.05)
    held = Lock(tmp_path)
    held.acquire()
    os.utime(held.path, (0, 0))
    for _ in range(100):
        if held.path.stat().st_mtime > 0:
            break
        time.sleep(0.05)
    assert held.path.stat().st_mtime > 0
    held.release()


def test_who_lost_the_lock_finds_out_and_does_not_give_back_what_is_another_s(tmp_path):
    held = Lock(tmp_path)
    held.acquire()
    write(tmp_path, host="elsewhere", process=7, began="5", id="0")
    with pytest.raises(InputError, match="is that of process 7 on elsewhere now: this training writes no more"):
        held.check()
    held.release()
    assert (tmp_path / "lock.json").exists()
    (tmp_path / "lock.json").unlink()
    with pytest.raises(InputError, match=r"lock.json is gone"):
        held.check()
