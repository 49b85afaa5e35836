"""Copies of modules' buffers, which a run may write to."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from pyrovae.internals.torch_internals import own_buffers
from pyrovae.runtime.parameters import seeing


@contextmanager
def writing_to_copies(module: nn.Module) -> Iterator[None]:
    """Let modules, those within this one and those called meanwhile, write to copies of their buffers."""
    kept: dict[nn.Module, dict[str, Tensor | None]] = {}

    def lend(called: nn.Module) -> None:
        """Put copies in the place of a module's buffers, once."""
        for part in called.modules():
            if part not in kept:
                kept[part] = dict(own_buffers(part))
                own_buffers(part).update({name: value.clone() for name, value in kept[part].items() if value is not None})

    lend(module)
    try:
        with seeing(lend):
            yield
    finally:
        for part, buffers in kept.items():
            own_buffers(part).update(buffers)
