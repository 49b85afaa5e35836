"""Timings in turn, their ratios, and the tables."""

from time import sleep

import pytest
import torch

from benchmarks.measure import Settings, compare, interleaved, machine, measurement, ratio, version


def test_a_ratio_pairs_the_blocks_of_a_round():
    slow_then_fast = measurement("one", [4.0, 1.0, 2.0]), measurement("other", [2.0, 0.5, 1.0])
    assert ratio(*slow_then_fast) == 2


def test_times_are_those_of_one_step():
    calls = []

    def work(steps: int) -> None:
        calls.append(steps)
        sleep(0.002 * steps)

    times = interleaved({"one": work, "other": work}, rounds=3, steps=5)
    assert calls == [5] * 6
    assert all(0.002 <= time < 0.02 for measured in times.values() for time in measured.times)


def test_a_block_lasts_about_as_long_as_asked():
    times = interleaved({"one": lambda steps: sleep(0.002 * steps)}, rounds=1, seconds=0.05)
    assert 5 <= times["one"].number_per_run <= 25


def test_a_contender_in_another_process_is_timed_by_its_own_clock():
    class Elsewhere:
        def __call__(self, steps: int) -> float:
            return 0.0

        def seconds(self, steps: int) -> float:
            return 0.25 * steps

    assert interleaved({"one": Elsewhere()}, rounds=2, steps=4)["one"].times == [0.25, 0.25]


@pytest.mark.parametrize("markdown", [False, True])
def test_the_table_shows_the_ratio_to_ours_and_who_is_absent(capsys, markdown):
    times = {"pyrovae": measurement("pyrovae", [0.001]), "peer": measurement("peer", [0.002])}
    settings = Settings(torch.device("cpu"), markdown=markdown)
    compare(settings, "title", times, notes={"loss": {"peer": "9.9"}}, absent={"other": "not installed"})
    cells = [line.strip("| ").replace("|", " ").split() for line in capsys.readouterr().out.splitlines()]
    assert ["pyrovae", "1.00", "0.00", "1.000"] in cells
    assert ["peer", "2.00", "0.00", "0.500", "9.9"] in cells
    assert ["other", "not", "installed"] in cells


def test_the_machine_is_named_with_its_versions():
    assert f"torch {version('torch')}" in machine(Settings(torch.device("cpu")))
