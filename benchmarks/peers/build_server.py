"""The process of :mod:`benchmarks.peers.build`, whose ``benchmarks`` and ``pyrovae`` are those of another checkout.

The first line of its input is the number of threads and the file of the task, and the first of its answers where ``pyrovae``
lies; every other line is a number of steps, and its answer the seconds that they took, and their mean loss.
"""

import os
import sys
from time import perf_counter

import torch


def main() -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever else is printed is no answer
    threads, _, file = sys.stdin.readline().strip().partition(" ")
    torch.set_num_threads(int(threads))
    import pyrovae
    from benchmarks.peers.ours import recorded
    from benchmarks.task import Task

    run = recorded(Task(**torch.load(file, weights_only=False)))
    print(pyrovae.__file__, file=answers)
    for line in sys.stdin:
        began = perf_counter()
        loss = run(int(line))
        print(perf_counter() - began, loss, file=answers)


if __name__ == "__main__":
    main()
