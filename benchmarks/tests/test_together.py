"""Contenders at once."""

from time import sleep

from benchmarks.measure import elapsed
from benchmarks.together import ways


def test_contenders_that_wait_take_half_as_long_at_once():
    def sleeps(steps: int) -> float:
        sleep(0.05 * steps)
        return float(steps)

    times = {name: elapsed(lambda work=work: work(4)) for name, work in ways([sleeps, sleeps]).items()}
    assert times["in turn"] >= 0.4
    assert times["at once"] < 0.35
