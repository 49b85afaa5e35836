"""Dreams, as in wake-sleep: data drawn from the model, with the latents that made them."""

from dataclasses import replace
from typing import Any

import pyro.distributions as dist
import torch
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from pyrovae.compiling.recording_context import is_recording
from pyrovae.engine.call import Call
from pyrovae.engine.sites import Site, density_sites
from pyrovae.engine.stop_gradient_programs import StopGradient, keeping_buffers
from pyrovae.errors import InputError


def dream(call: Call) -> tuple[Call, Trace]:
    """Replace each datum of a batch by one drawn from the model, and trace the guide at the latents that made it.

    Raises:
        InputError: where the model does not observe just what it is called with, where it adds a ``pyro.factor``, and where
            the guide draws something beside the latents.
    """
    call = replace(call, particles=1)
    with torch.no_grad():
        dreamt = keeping_buffers(call).simulate()
    drawn = {site["name"]: site for site in density_sites(prune_subsample_sites(dreamt))}
    observed = [site for site in drawn.values() if site["infer"].get("was_observed")]
    _require_simple(observed, call.args)
    x = observed[0]["value"].reshape(call.args[0].shape)
    if x.dtype != call.args[0].dtype:
        x = x.to(call.args[0].dtype)
    awake = replace(call, args=(x, *call.args[1:]), guide=StopGradient(call.guide, parameters=False))
    draws = awake.propose(dreamt)
    for site in density_sites(prune_subsample_sites(draws)):
        if site["name"] not in drawn:
            raise InputError(
                f"the guide draws {site['name']!r}, which is not a latent site of the model, so that its density at what "
                "the model dreams is not known; take an objective that dreams nothing, such as ELBO, IWAE or VIMCO"
            )
    return awake, draws


def _require_simple(observed: list[Site], args: tuple) -> None:
    names = ", ".join(repr(site["name"]) for site in observed)
    if len(observed) != 1 or isinstance(observed[0]["fn"], dist.Unit):
        raise InputError(
            f"the model observes {names}; expected one observed site and no pyro.factor, so that what the model draws there "
            "can be handed to the guide"
        )
    x, seen = (args or [None])[0], observed[0]["infer"]["obs"]
    if seen is not x and not _is_same(seen, x):
        raise InputError(
            f"the model observes at {names} something else than its argument x; expected x itself, which its draws replace "
            "where they are handed to the guide: pyro.sample(..., obs=x)"
        )


def _is_same(seen: Any, x: Any) -> bool:
    """Whether two tensors are the same numbers, or of the same shape where there are no numbers to look at."""
    if not isinstance(seen, Tensor) or not isinstance(x, Tensor) or seen.shape != x.shape:
        return False
    return is_recording() or torch.equal(seen, x)
