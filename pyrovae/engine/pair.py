"""A pair of programs as one torch module: its parameters, wherever they are kept, and its log importance weights."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from pyrovae.engine.call import Call
from pyrovae.engine.coupling import require_uncoupled
from pyrovae.engine.log_weights import weigh
from pyrovae.engine.plates import Plates
from pyrovae.engine.plates_cache import PlatesCache
from pyrovae.engine.validation import check_pair
from pyrovae.engine.weights import LogWeights
from pyrovae.errors import InputError
from pyrovae.runtime.batches import Batch
from pyrovae.runtime.parameters import Program, as_parameters, owner, parameter_store, seeing


class Pair(nn.Module):
    """A model and its guide, with the parameters of both.

    The parameters are those of the two programs where these are modules, or methods of one. Those that plain functions
    keep in ``pyro.param`` and ``pyro.module`` statements join at :meth:`start`, so call it, or the module, once before you
    hand ``parameters()`` to an optimiser. ``unknown`` then names the classes of networks that the programs call without
    having named them to Pyro: their parameters are not among these.
    """

    def __init__(self, model: Program, guide: Program) -> None:
        super().__init__()
        self.model = model
        self.guide = guide
        self.plates: Plates | None = None
        self.stored = nn.ParameterDict()
        self._constraints: dict[str, Any] = {}
        self.others = nn.ModuleList()
        self.unknown: list[str] = []
        self._plates_cache = PlatesCache()
        self._adopt(owner(program) for program in (model, guide))

    def weigh(self, particles: int, *args: Any, **kwargs: Any) -> LogWeights:
        """The log weights of ``particles`` draws a datum, without a look at the numbers."""
        with self.opened() as (model, guide):
            return weigh(model, guide, args, kwargs, particles, self.plates)

    def check(self, *args: Any, **kwargs: Any) -> None:
        """Run the pair once with validation on: every error of :func:`pyrovae.engine.validation.find_plates`."""
        with self.opened() as (model, guide):
            check_pair(model, guide, *args, **kwargs)

    def meet(self, batch: Batch, mixed: bool = False) -> None:
        """Make the pair ready for a batch, and require that each datum has weights of its own.

        Args:
            batch: the data.
            mixed: whether networks may mix the data of a batch, whose weights are then theirs together.

        Raises:
            InputError: where the data plate holds other data than the batch, and where a network that does not train mixes
                the data of a batch.
        """
        if self.ready(batch.x, **batch.given) and self.plates is not None:
            require_every_datum(self.plates, len(batch))
            if len(batch) > 1 and len(batch) in batch.x.shape[1:]:
                self._require_first_axis(batch.rows(slice(1, None)))
            mixed |= getattr(owner(self.guide), "each_by_itself", False)
            if not mixed and len(batch) > 1 and not any(part.training for part in self._plates_cache.modules):
                with self.opened() as (model, guide):
                    others = torch.tensor([1, *range(1, len(batch))], device=batch.x.device)
                    call = Call(model, guide, (batch.x,), batch.given, 1, self.plates)
                    changed = batch.rows(others)
                    other = replace(call, args=(changed.x,), kwargs=changed.given)
                    require_uncoupled(call, other, self._plates_cache.modules)

    def _require_first_axis(self, fewer: Batch) -> None:
        """Raise an InputError where the data plate does not shrink with the batch, being over another axis."""
        with self.opened() as (model, guide):
            try:
                found = check_pair(model, guide, fewer.x, **fewer.given)
            except Exception:  # a pair that takes batches of one size only is no pair whose plate is over another axis
                return
        require_every_datum(found, len(fewer))

    def ready(self, *args: Any, **kwargs: Any) -> bool:
        """Start the pair once, and look again how particles run if the shape of the arguments could change it.

        Returns:
            Whether it looked.
        """
        if self.plates is None:
            self.start(*args, **kwargs)
            return True
        known = self._plates_cache.known(args, kwargs)
        if known is None:
            with self.opened() as (model, guide):
                self.plates = self._plates_cache.at(model, guide, args, kwargs)
            return True
        self.plates = known
        return False

    def start(self, *args: Any, **kwargs: Any) -> None:
        """Run the pair once to find its plates and its ``pyro.param`` statements; the first call does it by itself."""
        self._plates_cache = PlatesCache()
        store = parameter_store(self.model, self.guide)
        with _modules_called() as called, _Entered() as entered, store as (model, guide):
            self.plates = self._plates_cache.at(model, guide, args, kwargs)
        values = {value for _, value in entered.values}
        self._adopt(module for module in called if _trained(module) and _trained(module) <= values)
        mine = set(self.parameters()) - set(self.stored.parameters())
        left = {name: value for name, value in entered.values if value not in mine}
        state = as_parameters(left)
        self._constraints = state["constraints"]
        kept = {name: value for name, value in left.items() if isinstance(value, nn.Parameter)} | state["params"]
        self.stored = nn.ParameterDict({_key(name): value for name, value in kept.items()})
        known = set(self.parameters())
        self.unknown = sorted({type(module).__name__ for module in called if not _trained(module) <= known})

    def _adopt(self, modules: Iterable[Any]) -> None:
        """Make the parameters of modules that the programs run, without being them, parameters of this one."""
        for module in modules:
            if isinstance(module, nn.Module) and module not in set(self.modules()):
                self.others.append(module)

    def resting(self) -> dict[str, nn.Module]:
        """The parts of the networks that are in evaluation mode where a whole network is not, by name."""
        networks = [each for each in (self.model, self.guide, *self.others) if isinstance(each, nn.Module)]
        if not any(each.training for each in networks):
            return {}
        parts = {part for each in networks for part in each.modules()}
        return {name: part for name, part in self.named_modules() if part in parts and not part.training}

    def train_but(self, resting: dict[str, nn.Module]) -> None:
        """Put all networks into training mode, but for some that stay in evaluation mode."""
        self.train()
        for part in resting.values():
            part.training = False

    def opened(self) -> AbstractContextManager[tuple[Program, Program]]:
        """The two programs, to be run within, on the parameters of this module."""
        params = {name: self.stored[_key(name)] for name in self._constraints}
        return parameter_store(self.model, self.guide, {"params": params, "constraints": self._constraints})


def require_every_datum(plates: Plates, expected: int) -> None:
    """Raise an InputError where the data plate holds other data than the batch."""
    if plates.size != expected:
        raise InputError(
            f"plate {plates.data!r} holds {plates.size} data where the batch has {expected} on its first axis; each datum "
            f'needs weights of its own: use pyro.plate("{plates.data}", len(x)), without subsampling, over data whose first '
            "axis counts them"
        )


class _Entered(Messenger):
    """The unconstrained values of all ``pyro.param`` statements meanwhile, with their names."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[tuple[str, Tensor]] = []

    def _pyro_post_param(self, msg: Any) -> None:
        value = msg["value"]
        self.values.append((msg["name"], value.unconstrained() if hasattr(value, "unconstrained") else value))


@contextmanager
def _modules_called() -> Iterator[list[nn.Module]]:
    """The modules that are called meanwhile, the outer before the inner."""
    called: list[nn.Module] = []
    with seeing(called.append):
        yield called


def _trained(module: nn.Module) -> set[nn.Parameter]:
    return {value for value in module.parameters() if value.requires_grad}


def _key(name: str) -> str:
    """A name of Pyro's store as a name of torch's, in which a full stop parts modules."""
    return f"param:{name}".replace(".", ":")
