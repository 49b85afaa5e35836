"""Contenders at once."""

from threading import Barrier

from benchmarks.together import at_once, in_turn


def test_contenders_at_once_meet():
    barrier = Barrier(2, timeout=60)

    def meets(steps: int) -> float:
        barrier.wait()
        return float(steps)

    assert at_once([meets, meets], 4) == [4, 4]


def test_contenders_in_turn_end_before_the_next_begins():
    calls = []

    def noted(name: str, steps: int) -> float:
        calls.append(name)
        return float(steps)

    assert in_turn([lambda steps: noted("one", steps), lambda steps: noted("other", steps)], 4) == [4, 4]
    assert calls == ["one", "other"]
