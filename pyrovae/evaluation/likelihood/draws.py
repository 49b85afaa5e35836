"""Log weights of many data, drawn in pieces of one shape, so that the programs are recorded once."""

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from pyrovae.compiling.fallback import recorded, require_agreement
from pyrovae.compiling.fusion import fuse
from pyrovae.compiling.recording import Recording
from pyrovae.engine.pair import Pair
from pyrovae.engine.proposal import PROOF, require_proposal
from pyrovae.engine.weights import LogWeights
from pyrovae.errors import InputError
from pyrovae.evaluation.likelihood.defensive import FEWEST, DefensiveMixture
from pyrovae.runtime.batches import Batch, Columns, batches
from pyrovae.runtime.equivalence import VALUE, Outcome, difference
from pyrovae.runtime.memory import keep_freed_memory, rows_in_cache, rows_that_fit, together
from pyrovae.runtime.parameters import Program, keeps_places, same_random_numbers
from pyrovae.runtime.precision import Precision, computing_in
from pyrovae.runtime.seeds import GeneratorState


class Draws:
    """A source of ``number`` log weights of each datum, within the memory that ``max_rows`` and ``max_weights`` set.

    Attributes:
        discrete_dimensions: how many observed numbers one datum has, where all are discrete; known once some were drawn.
        discrete_latents: whether a latent of the model is discrete.

    Args:
        model: the model.
        guide: its proposal.
        data: the data.
        number: of draws a datum.
        device: where the programs run.
        compile: whether to record and fuse them.
        max_rows: the most draws times data of one run of the programs; as many as caches or a CUDA device hold if None.
        max_weights: the most weights that are held together. Both are exceeded where an automatic guide has parameters for
            each datum by its place, and all data must go together.
        defensive: whether to draw from the guide mixed with a wider one and with the prior.
        order: which of the data to take, and in which order; all as they are stored if None.

    Raises:
        InputError: where the pair, or the first of the data, cannot be weighed.
    """

    def __init__(
        self,
        model: Program,
        guide: Program,
        data: Columns,
        number: int,
        device: torch.device,
        compile: bool,
        max_rows: int | None,
        max_weights: int,
        defensive: bool = False,
        order: Tensor | None = None,
    ) -> None:
        self.number = number
        self._length = len(data) if order is None else len(order)
        self._batches = partial(batches, data, order=order, device=device)
        self._pair = Pair(model, guide)
        fewest = FEWEST if defensive else 1
        rows = max_rows or rows_in_cache(device, next(self._batches(1)).x.numel())
        most = rows // max(fewest, together(device, number))
        self._batch_size = _even(self._length, max(1, min(max_weights // number, most)))
        if keeps_places(guide):
            self._batch_size = self._length
        first = next(self.batches())
        self._pair.meet(first)
        proof = max(2, min(PROOF, rows // self._batch_size))
        weights = self._pair.weigh(proof, first.x, **first.given)
        require_proposal(weights, "log p(x)")
        self.discrete_latents = weights.discrete_latents
        self._mixture = DefensiveMixture(self._pair, first) if defensive else None
        self.discrete_dimensions: int | None = None
        if max_rows is None and device.type == "cuda":
            rows = rows_that_fit(device, lambda: self._pair.weigh(4, first.x, **first.given).total.numel())
        self._at_once = _even(number, max(fewest, rows // self._batch_size))
        if self._pair.plates is not None and self._pair.plates.particles == "in turn" and not defensive:
            self._at_once = 1  # single runs, which can be recorded, and more of them together would be no faster
        self._weigh: Callable[[Batch], Tensor] = self._checked
        self._compile = compile
        keep_freed_memory(device)

    @property
    def number_of_batches(self) -> int:
        """Number of batches that the data make."""
        return math.ceil(self._length / self._batch_size)

    def batches(self) -> Iterator[Batch]:
        """Yield the data in batches, in their order."""
        return self._batches(self._batch_size)

    def log_weights(self, batch: Batch) -> Tensor:
        """Draw the log weights of a batch, shape ``(number, len(batch))``, float64.

        Raises:
            InputError: for a weight that is not a number, and where weights are not densities of single data.
        """
        filled = batch.filled_up(self._batch_size)
        if self._compile:
            self._weigh = recorded(lambda: self._fused(filled), lambda: self._try(filled)) or self._checked
            self._compile = False
        pieces = math.ceil(self.number / self._at_once)
        weights = torch.empty(pieces * self._at_once, self._batch_size, dtype=torch.float64, device=batch.x.device)
        noise = GeneratorState(batch.x.device)
        for rows in weights.split(self._at_once):
            rows.copy_(self._weigh(filled))
        if self._mixture is not None:  # the parts lie in a row, and what is left out must be of all of them alike
            rows.copy_(rows[torch.randperm(len(rows), device=rows.device)])
        weights = weights[: self.number, : len(batch)]
        if weights.isnan().any():
            self._name_the_site(filled, noise)
        return weights

    @torch.no_grad()
    def rounding(self, batch: Batch, precision: Precision) -> Tensor:
        """Measure the error in log p(x) of each datum, at the same noise, of networks that compute in ``precision``.

        Of as many draws as are made together.
        """
        found = []
        for each in ("highest", precision):
            with same_random_numbers(batch.x), computing_in(each):
                found.append(self._drawn(batch).total.double().logsumexp(0))
        return found[1] - found[0]

    def _drawn(self, batch: Batch) -> LogWeights:
        """Draw once, eagerly, as many as are drawn together, and weigh them."""
        if self._mixture is not None:
            return self._mixture.weigh(self._at_once, batch)
        return self._pair.weigh(self._at_once, batch.x, **batch.given).with_proposal_density()

    def _checked(self, batch: Batch) -> Tensor:
        weights = self._drawn(batch)
        weights.require_densities("the log likelihood")
        self.discrete_dimensions = weights.discrete_dimensions
        return weights.total

    def _fused(self, batch: Batch) -> Callable[[Batch], Tensor]:
        recording = Recording(lambda *tensors: [self._checked(batch.with_tensors(*tensors))], self._pair, batch.tensors)
        own = [tensor.detach() for tensor in recording.tensors]
        fused = fuse(lambda *inputs: recording(inputs[: len(own)], *inputs[len(own) :]), [*own, *batch.tensors])

        def weigh(batch: Batch) -> Tensor:
            return fused(*own, *batch.tensors)[0]

        def tried(weigh: Callable[[Batch], Tensor]) -> Outcome:
            with same_random_numbers(batch.x):
                return {VALUE: {"log weights": weigh(batch)}}

        require_agreement(lambda: difference(tried(self._checked), tried(weigh)))
        return weigh

    def _try(self, batch: Batch) -> None:
        """Draw eagerly once, for the programs' errors."""
        with same_random_numbers(batch.x):
            self._checked(batch)

    def _name_the_site(self, batch: Batch, noise: GeneratorState) -> None:
        """Draw again what was not a number, and raise the InputError that says where it comes from."""
        noise.restore()
        for _ in range(math.ceil(self.number / self._at_once)):
            self._drawn(batch).require_numbers()
        raise InputError("a weight is NaN, and was a number when it was drawn again eagerly; pass compile=False")


def _even(total: int, most: int) -> int:
    """Compute the size of pieces, at most ``most``, that fill ``total`` with the least left over."""
    return math.ceil(total / math.ceil(total / most))
