"""Partitions of data into parts: fixed by a seed, disjoint and covering."""

from typing import NamedTuple

import numpy as np

from pyrovae.errors import InputError


class Partition(NamedTuple):
    """The indices of the data in each part, int64."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def by_fractions(size: int, validation: float, test: float, seed: int) -> Partition:
    """Shuffle ``size`` data and give the parts their fractions; the rest is for training.

    Raises:
        InputError: for a fraction outside (0, 1), for a part without data, and for a negative seed.
    """
    for part, fraction in [("validation", validation), ("test", test)]:
        if not 0 < fraction < 1:
            raise InputError(f"{part} is {fraction:g}; expected a fraction between 0 and 1: pass for instance 0.1")
    counts = round(size * validation), round(size * test)
    return _cut(_shuffled(size, seed), *counts, f"validation={validation:g} and test={test:g}")


def with_official_test(size: int, test: int, validation: int, seed: int) -> Partition:
    """Shuffle ``size`` data, set ``validation`` of them aside, and append ``test`` data that come after them as they are.

    Raises:
        InputError: for a part without data, and for a negative seed.
    """
    order = np.concatenate([_shuffled(size, seed), size + np.arange(test)])
    return _cut(order, validation, test, f"validation={validation}")


def _shuffled(size: int, seed: int) -> np.ndarray:
    if seed < 0:
        raise InputError(f"split_seed is {seed}; expected zero or more: pass another seed")
    return np.random.default_rng(seed).permutation(size)


def _cut(order: np.ndarray, validation: int, test: int, cause: str) -> Partition:
    """Cut off the last ``test``, and the last ``validation`` before them."""
    train = len(order) - validation - test
    if min(train, validation, test) < 1:
        raise InputError(
            f"{cause} split {len(order)} data into train={train}, validation={validation} and test={test}; expected at "
            f"least one in each: change the sizes of the parts, or pass more data"
        )
    return Partition(*np.split(order, [train, train + validation]))
