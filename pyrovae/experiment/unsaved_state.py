"""Check that a run folder holds all that its networks compute with, so that none of it is drawn anew."""

from torch import Tensor, nn

from pyrovae.engine.pair import Pair
from pyrovae.errors import InputError
from pyrovae.internals.torch_internals import unsaved_buffers
from pyrovae.runtime.batches import Batch
from pyrovae.runtime.equivalence import VALUE, difference
from pyrovae.runtime.eval_mode import evaluating
from pyrovae.runtime.module_state import attributes
from pyrovae.runtime.seeds import seeded
from pyrovae.vae import VAE


def require_kept(vae: VAE, again: VAE, batch: Batch) -> None:
    """Raise an InputError where a pair, built again and given the parameters and buffers that a run keeps, is another one.

    Args:
        vae: the pair.
        again: what the same configuration builds with other random numbers; it gets the parameters and buffers.
        batch: data to weigh both on.
    """
    again.load_state_dict(vae.state_dict())
    found = [{VALUE: {"log weights": _weights(each, batch)}} for each in (vae, again)]
    if difference(*found) is None:
        return
    modules = dict(again.named_modules())
    drawn = [
        f"{name}.{key} of {type(part).__name__}"
        for name, part in vae.named_modules()
        for key, value in _unkept(part).items()
        if not _is_same(value, _unkept(modules[name]).get(key))
    ]
    raise InputError(
        "built again with the parameters and buffers that a run folder keeps, the networks compute something else, so that "
        f"they keep something beside them that is drawn when they are made: {', '.join(drawn) or 'it was not found'}; make "
        "it a buffer: register_buffer(name, tensor)"
    )


def _weights(vae: VAE, batch: Batch) -> Tensor:
    with seeded(0, batch.x.device), evaluating(vae.model, vae.guide):
        pair = Pair(vae.model, vae.guide)
        pair.ready(batch.x, **batch.given)
        return pair.weigh(1, batch.x, **batch.given).total.detach()


def _unkept(part: nn.Module) -> dict[str, object]:
    """Tensors and numbers of a module that a run folder does not keep."""
    return {**attributes(part), **unsaved_buffers(part)}


def _is_same(value: object, other: object) -> bool:
    if isinstance(value, Tensor) and isinstance(other, Tensor):
        return difference({"": {"": value}}, {"": {"": other}}) is None
    return value == other
