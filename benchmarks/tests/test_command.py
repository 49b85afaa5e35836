"""The command line."""

import sys
from importlib import import_module

import pytest

from benchmarks.__main__ import main, measurements


def test_help_names_every_measurement(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--help"])
    with pytest.raises(SystemExit, match="0"):
        main()
    shown = capsys.readouterr().out
    assert all(name in shown for name in measurements)


@pytest.mark.parametrize("name", measurements)
def test_every_measurement_can_be_run(name):
    assert callable(import_module(f"benchmarks.{name}").run)
