"""Other processes that compute meanwhile, as on a laptop or a server that others use.

    with busy(1, "products"):
        ...

``products`` multiply matrices in torch on all cores, as another training does; ``loops`` are plain Python, each on one core.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection


def products() -> Callable[[], object]:
    """A product of matrices on all cores, some milliseconds."""
    import torch  # here, so that loops start sooner

    torch.set_num_threads(os.cpu_count() or 1)
    matrix = torch.rand(512, 512)
    return lambda: matrix @ matrix


def loops() -> Callable[[], object]:
    """A loop in Python, some milliseconds."""
    return lambda: sum(number * number for number in range(50_000))


kinds: dict[str, Callable[[], Callable[[], object]]] = {"products": products, "loops": loops}


@contextmanager
def busy(number: int, kind: str) -> Iterator[list[int]]:
    """Run so many processes of a kind, whose ids it gives, until it is left."""
    with ExitStack() as stack:
        yield [stack.enter_context(_process(kind)) for _ in range(number)]


@contextmanager
def _process(kind: str) -> Iterator[int | None]:
    context = get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_compute, args=(kind, send), daemon=True)
    process.start()
    try:
        send.close()  # else its end is not noticed
        receive.recv()
        yield process.pid
    finally:
        process.kill()
        process.join()


def _compute(kind: str, started: Connection) -> None:
    """Compute until it is killed, or the process that started it was."""
    parent, work = parent_process(), kinds[kind]()
    work()
    started.send(None)
    while parent is not None and parent.is_alive():
        work()
