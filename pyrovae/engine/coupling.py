"""Densities of a datum that depend on the other data of its batch."""

import torch
from pyro.poutine.util import prune_subsample_sites
from torch import nn

from pyrovae.engine.call import Call
from pyrovae.engine.shapes import data_place
from pyrovae.engine.sites import density_sites, with_values
from pyrovae.errors import InputError
from pyrovae.runtime.fixed_randomness import FixedRandomness
from pyrovae.runtime.module_state import reached
from pyrovae.runtime.parameters import same_random_numbers
from pyrovae.runtime.perturbation import perturbed
from pyrovae.runtime.rounding import is_close


def require_uncoupled(call: Call, other: Call, modules: list[nn.Module]) -> None:
    """Raise an InputError where the densities of a datum depend on what else is in its batch.

    Args:
        call: of the pair on a batch.
        other: of the pair on the batch with the second datum in the place of the first.
        modules: the networks that the pair calls.
    """
    plates = call.plates
    assert plates is not None
    with same_random_numbers(*call.args, *call.kwargs.values()), reached(call.model, call.guide):
        draws = call.draw()
    values = {}
    for site in density_sites(prune_subsample_sites(draws)):
        if not site["is_observed"]:
            value, place = torch.as_tensor(site["value"]), data_place(site, plates)
            rest = value.narrow(place, 1, value.shape[place] - 1)
            values[site["name"]] = torch.cat([rest.narrow(place, 0, 1), rest], place)
    found = []
    for each, drawn in ((other, with_values(draws, values)), (call, draws)):  # programs may remember a call
        alone = same_random_numbers(*each.args, *each.kwargs.values())
        with perturbed(modules), FixedRandomness(), alone, reached(call.model, call.guide):
            try:
                found.append(each.compose(each.observe(drawn), each.propose(drawn)))
            except InputError:  # a flow without an inverse
                return
    others, weights = found
    for (_, name, term), (_, _, changed) in zip(weights.terms(), others.terms(), strict=True):
        if not is_close(term[:, 1:], changed[:, 1:]):
            raise InputError(
                f"the density of site {name!r} of a datum depends on the other data of its batch; expected one that depends "
                "on that datum alone: let networks attend and normalise within a datum, along an axis that is counted from "
                "the right (batch_first=True for attention)"
            )
