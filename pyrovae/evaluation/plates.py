"""The data plate of a pair, found in a store of the pair's own."""

from pyrovae.batches import Batch
from pyrovae.parameters import Program, parameter_store
from pyrovae.weights import Plates, find_plates


def plates_of(model: Program, guide: Program, batch: Batch) -> Plates:
    """Run the pair once on a batch and find its plates (:func:`pyrovae.weights.find_plates`)."""
    with parameter_store(model, guide) as (model, guide):
        return find_plates(model, guide, batch.x, **batch.given)
