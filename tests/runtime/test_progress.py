"""A bar that appears when a call has taken long."""

import pytest

from pyrovae.runtime import progress
from pyrovae.runtime.progress import progress_bar


@pytest.mark.parametrize("wanted", [True, False])
def test_what_is_soon_done_shows_nothing(capsys, wanted):
    assert [*progress_bar(range(3), total=3, progress=wanted)] == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


def test_what_takes_longer_shows_a_bar_on_stderr(capsys, monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 0.0)
    assert [*progress_bar(range(3), total=3, progress=True)] == [0, 1, 2]
    with progress_bar(total=2, progress=True) as bar:
        bar.update(2)
    out, err = capsys.readouterr()
    assert out == ""
    assert "3/3" in err
    assert "2/2" in err
    assert [*progress_bar(range(3), total=3, progress=False)] == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_one_of_several_processes_shows_it(capsys, monkeypatch):
    class Second:
        rank = 1

    monkeypatch.setattr(progress, "DELAY", 0.0)
    monkeypatch.setattr(progress, "Processes", Second)
    assert [*progress_bar(range(3), total=3, progress=True)] == [0, 1, 2]
    assert capsys.readouterr().err == ""
