"""Torch kept quiet while it records and compiles: no warnings that users cannot act on, no sources kept for ever."""

import linecache
import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from pyrovae.compiling.inductor_internals import LOGGER, compiled_modules
from pyrovae.internals.torch_internals import sources_of_graphs

_talkative = ("torch.utils.cpp_extension", LOGGER)
"""Loggers that warn of a missing CUDA, and of operators without a shortcut."""


@contextmanager
def torch_undisturbed() -> Iterator[None]:
    """Silence torch about its own deprecated functions and about what users cannot change."""
    with warnings.catch_warnings(), ExitStack() as stack:
        for name in _talkative:
            stack.enter_context(_quiet(logging.getLogger(name)))
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", ".*_flat_weights.*", UserWarning)  # torch's own recurrent networks
        warnings.filterwarnings("ignore", ".*complex operators.*", UserWarning)  # they are computed as they would be eagerly
        warnings.filterwarnings("ignore", "TF32 acceleration on top of oneDNN", UserWarning)  # said where it is turned off
        warnings.filterwarnings("ignore", "TensorFloat32 tensor cores", UserWarning)  # the precision is its user's choice
        yield


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def sources_forgotten() -> Iterator[None]:
    """Make torch forget the sources of graphs that are made meanwhile, which it would keep for ever."""
    sources, modules = sources_of_graphs(), compiled_modules()
    before, number = set(sources), len(modules)
    try:
        yield
    finally:
        for name in set(sources) - before:
            sources.pop(name, None)
            linecache.cache.pop(name, None)
        del modules[number:]
