"""Limits on what is held in memory at a time, keyword arguments of every function that draws."""

from collections.abc import Callable

import torch

MAX_ROWS = 2**12
"""Largest draws times data of one run of the programs on a CPU, whose caches hold no more."""
MAX_NUMBERS = 3 * 2**19
"""Largest count of numbers of the data, repeated for each draw, in one run on a CPU: 2,000 data of MNIST."""
MAX_WEIGHTS = 2**20
"""Largest number of log weights held at a time, of 8 bytes and a few copies each."""
TOGETHER = 100
"""Draws of a datum in one run of the programs, where there are as many: what depends on the datum alone, as the encoder's
output, is computed once for them."""
KEPT = 2**25 - 2**16
"""Size in bytes of the largest block of memory that glibc can keep when it is freed, less than 32 MiB."""


def together(device: torch.device, number: int) -> int:
    """The smallest number of draws of a datum in one run of the programs, so that many data go together."""
    return 1 if device.type == "cuda" else min(number, TOGETHER)


def rows_in_cache(device: torch.device, numbers: int) -> int:
    """Draws times data of one run of the programs on a CPU, by the count of numbers in a datum."""
    return MAX_ROWS if device.type == "cuda" else max(1, min(MAX_ROWS, MAX_NUMBERS // max(1, numbers)))


def data_at_once(max_rows: int | None, number: int) -> int:
    """Compute how many data of ``number`` draws each one pass of the programs takes; at least one."""
    return max(1, (max_rows or MAX_ROWS) // number)


def keep_freed_memory(device: torch.device) -> None:
    """Let glibc keep the memory that one run of the programs frees, for the next run.

    It keeps twice the largest block that it has seen freed, and returns all else to the system, which costs a page fault
    for every 4 KiB that are used again: as much time as the products take. Elsewhere this changes nothing.
    """
    if device.type == "cpu":
        torch.empty(KEPT, dtype=torch.uint8)


def rows_that_fit(device: torch.device, run: Callable[[], int]) -> int:
    """Draws times data of one run of the programs that take at most half of a CUDA device's free memory.

    Args:
        device: the CUDA device where they run.
        run: runs them once, to measure their need, and returns on how many rows.
    """
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    rows = run()
    bytes_a_row = max(1, (torch.cuda.max_memory_allocated(device) - before) // rows)
    most = torch.cuda.mem_get_info(device)[0] // 2 // bytes_a_row
    return 2 ** max(0, min(most, MAX_WEIGHTS).bit_length() - 1)
