"""The number of threads that every contender computes with, jax's too.

Torch takes it at any time before it compiles, which writes it into the code. XLA makes its threads when jax is first asked
for a device, as many as the variable ``NPROC`` says. With 1, the CPU time in ``/proc/PID/task`` is that of a single thread;
with ``XLA_FLAGS=--xla_cpu_multi_thread_eigen=false`` it is still that of four, on two cores.
"""

import os
import sys

import torch


def use(threads: int) -> None:
    """Compute with so many threads, in this process.

    Raises:
        RuntimeError: where jax is imported already, as it may have made its threads.
    """
    if "jax" in sys.modules:
        raise RuntimeError("jax is imported already: choose the number of threads first")
    torch.set_num_threads(threads)
    os.environ["NPROC"] = str(threads)
