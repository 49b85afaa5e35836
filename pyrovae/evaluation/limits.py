"""How much is held in memory at a time; every function that draws takes these as keyword arguments."""

from collections.abc import Callable

import torch

MAX_ROWS = 2**12
"""Draws times data of one run of the programs on a CPU: more of them leave its caches."""
MAX_WEIGHTS = 2**20
"""Log weights held at a time, of 8 bytes and a few copies each: as many data are taken together as this allows."""
_TRIAL_ROWS = 2**10


def rows_that_fit(device: torch.device, run: Callable[[int], object]) -> int:
    """Draws times data of one run of the programs, so many that they take half of a CUDA device's free memory.

    Args:
        device: where they run.
        run: runs them on about so many rows, by which their need is measured.
    """
    if device.type != "cuda":
        return MAX_ROWS
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run(_TRIAL_ROWS)
    bytes_a_row = max(1, (torch.cuda.max_memory_allocated(device) - before) // _TRIAL_ROWS)
    free = torch.cuda.mem_get_info(device)[0]
    return max(_TRIAL_ROWS, min(free // 2 // bytes_a_row, MAX_WEIGHTS))
