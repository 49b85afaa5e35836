"""Traces of single runs of a model and its guide."""

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.guide import GuideMessenger
from pyro.poutine.replay_messenger import ReplayMessenger
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import prune_subsample_sites

from pyrovae.engine.sites import Site
from pyrovae.errors import InputError
from pyrovae.runtime.parameters import Program, owner


def replaying(program: Callable[..., Any], draws: Trace) -> Callable[..., Any]:
    """Make a program that draws the values of a trace."""
    return _Replay(draws)(program)


class _Replay(ReplayMessenger):
    """A replay that leaves each site its own ``infer``: a guide that runs the model keeps the prior of that run there."""

    def _pyro_sample(self, msg: Any) -> None:
        infer = msg["infer"]
        super()._pyro_sample(msg)
        msg["infer"] = infer


def traces_of_pair(model: Program, guide: Program, args: tuple, kwargs: dict) -> tuple[Trace, Trace]:
    """The traces of a single run of model and guide."""
    guide_trace = trace_of(guide, args, kwargs)
    model_trace = trace_of(replaying(model, guide_trace), args, kwargs)
    return prune_subsample_sites(model_trace), prune_subsample_sites(guide_trace)


def trace_of(program: Program, args: tuple, kwargs: dict) -> Trace:
    """Run a program once and return its trace, in which every plate has a size."""
    try:
        trace = poutine.trace(program).get_trace(*args, **kwargs)
        return _with_sizes(_without_observations(trace) if isinstance(owner(program), GuideMessenger) else trace)
    except InputError as error:  # Pyro has added a table of shapes to the message
        raise InputError(str(error).partition("\n")[0]) from error


def _without_observations(trace: Trace) -> Trace:
    """The trace of a guide that runs the model, without what the model observes."""
    for name in [name for name, site in trace.nodes.items() if site["type"] == "sample" and site["is_observed"]]:
        trace.remove_node(name)
    return trace


def _with_sizes(trace: Trace) -> Trace:
    """The trace, in which plates without a size have that of the largest site inside.

    Raises:
        InputError: where such a plate encloses a site that has one value for all.
    """
    sites: list[Site] = [site for site in trace.nodes.values() if site["type"] == "sample"]
    open_frames = {frame.name: frame for site in sites for frame in site["cond_indep_stack"] if frame.size == -1}
    for name, frame in open_frames.items():
        inside = [site for site in sites if frame in site["cond_indep_stack"]]
        sizes = [_size_along(site, frame.dim) for site in inside]
        sized = frame._replace(size=max(sizes), full_size=max(sizes))
        for site, size in zip(inside, sizes, strict=True):
            if size < sized.size and not site["is_observed"]:
                raise InputError(
                    f"latent site {site['name']!r} has one value for all {sized.size} data in plate {name!r}, "
                    f'which has no size; give it one, pyro.plate("{name}", len(x)), or draw a value for each datum'
                )
            site["cond_indep_stack"] = tuple(sized if each == frame else each for each in site["cond_indep_stack"])
    return trace


def _size_along(site: Site, dim: int) -> int:
    """Size of a site's batch along a dimension; 1 where it has no such dimension."""
    event_dim = site["fn"].event_dim
    shapes = site["fn"].batch_shape, torch.as_tensor(site["value"]).shape
    batch_shapes = shapes[0], shapes[1][: max(0, len(shapes[1]) - event_dim)]
    return max(shape[dim] if len(shape) >= -dim else 1 for shape in batch_shapes)
