"""Batches of data with draws of their latents and the terms of their weights."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from pyro.poutine.trace_struct import Trace

from pyrovae.engine.call import Call
from pyrovae.engine.pair import Pair
from pyrovae.engine.weights import LogWeights
from pyrovae.runtime.batches import Batch, Columns, batches
from pyrovae.runtime.memory import data_at_once


class Weighed(NamedTuple):
    """A batch, the guide's draws for it, and their weights."""

    batch: Batch
    draws: Trace
    weights: LogWeights


def weighed(
    pair: Pair, data: Columns, number: int, device: torch.device, max_rows: int | None, what: str
) -> Iterator[Weighed]:
    """Draw ``number`` latents a datum, batch by batch, at most ``max_rows`` draws times data in one pass if possible.

    Raises:
        InputError: where the pair cannot be weighed, where a weight is not a number, and where weights are not those of
            single data, of which ``what`` is made.
    """
    for batch in batches(data, data_at_once(max_rows, number), device=device):
        pair.meet(batch)
        with pair.opened() as programs:
            call = Call(*programs, (batch.x,), batch.given, number, pair.plates)
            draws = call.draw()
            weights = call.weigh(draws).with_proposal_density()
        weights.require_numbers()
        weights.require_densities(what)
        yield Weighed(batch, draws, weights)
