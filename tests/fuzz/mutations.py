"""Bytes that are nearly what they should be: flipped, cut, doubled, spliced, and with the words of a format put in."""

from collections.abc import Callable, Sequence

import numpy as np

numbers = [bytes([value]) for value in (0, 1, 127, 128, 255)]
numbers += [
    value.to_bytes(size, "little", signed=True) for size in (2, 4, 8) for value in (-1, 0, 1, 2 ** (8 * size - 1) - 1)
]
numbers += [value.to_bytes(size, "big", signed=True) for size in (2, 4, 8) for value in (1, 2 ** (8 * size - 1) - 1)]
"""Numbers that readers stumble over, as they stand in binary files."""


def mutated(seeds: Sequence[bytes], words: Sequence[bytes], generator: np.random.Generator) -> bytes:
    """One of the seeds after one to eight changes."""
    content = bytearray(seeds[generator.integers(len(seeds))])
    for _ in range(generator.integers(1, 9)):
        change = _changes[generator.integers(len(_changes))]
        change(content, generator, words or numbers, seeds)
    return bytes(content)


Change = Callable[[bytearray, np.random.Generator, Sequence[bytes], Sequence[bytes]], None]


def _flip(content: bytearray, generator: np.random.Generator, words: Sequence[bytes], seeds: Sequence[bytes]) -> None:
    if content:
        content[generator.integers(len(content))] ^= 1 << generator.integers(8)


def _set(content: bytearray, generator: np.random.Generator, words: Sequence[bytes], seeds: Sequence[bytes]) -> None:
    number = numbers[generator.integers(len(numbers))]
    start = generator.integers(len(content) + 1)
    content[start : start + len(number)] = number


def _insert(content: bytearray, generator: np.random.Generator, words: Sequence[bytes], seeds: Sequence[bytes]) -> None:
    start = generator.integers(len(content) + 1)
    content[start:start] = words[generator.integers(len(words))]


def _replace(content: bytearray, generator: np.random.Generator, words: Sequence[bytes], seeds: Sequence[bytes]) -> None:
    start, stop = sorted(generator.integers(len(content) + 1, size=2))
    content[start : min(stop, start + 16)] = words[generator.integers(len(words))]


def _cut(content: bytearray, generator: np.random.Generator, words: Sequence[bytes], seeds: Sequence[bytes]) -> None:
    start, stop = sorted(generator.integers(len(content) + 1, size=2))
    del content[start : stop if generator.random() < 0.2 else min(stop, start + 8)]


def _double(content: bytearray, generator: np.random.Generator, words: Sequence[bytes], seeds: Sequence[bytes]) -> None:
    start, stop = sorted(generator.integers(len(content) + 1, size=2))
    content[start:start] = content[start : min(stop, start + 64)]


def _splice(content: bytearray, generator: np.random.Generator, words: Sequence[bytes], seeds: Sequence[bytes]) -> None:
    other = seeds[generator.integers(len(seeds))]
    start = generator.integers(len(content) + 1)
    content[start:] = other[generator.integers(len(other) + 1) :]


_changes: list[Change] = [_flip, _flip, _set, _insert, _replace, _cut, _double, _splice]
