"""A few hundred mutated files for every reader, the same at each run; steered by coverage for a moment where that can be."""

from importlib.util import find_spec

import numpy as np
import pytest

from tests.fuzz.__main__ import guided
from tests.fuzz.mutations import mutated
from tests.fuzz.targets import reader, seeds, targets

slow = {"config": 40}
"""How many files a reader is handed that takes long for one."""


@pytest.mark.parametrize("name", targets)
def test_every_seed_is_read(name):
    with reader(name) as read:
        assert any(read(seed) for seed in seeds(name))


@pytest.mark.parametrize("name", targets)
def test_what_is_nearly_right_ends_in_nothing_but_an_input_error(name):
    generator = np.random.default_rng(0)
    with reader(name) as read:
        for _ in range(slow.get(name, 300)):
            content = mutated(seeds(name), targets[name].words, generator)
            try:
                read(content)
            except Exception as error:
                raise AssertionError(f"{name} cannot be read, and it is not said why: {content[:2000]!r}") from error


@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not installed")
def test_steered_by_coverage():
    found = guided("npy", 3)
    assert found.executions > 100
    assert not found.crashes
