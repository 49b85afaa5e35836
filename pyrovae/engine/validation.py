"""Validation of a pair of programs by running it: its data plate, how its particles run, and every error on the way."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pyro
import torch
from pyro.util import check_site_shape
from torch import nn

from pyrovae.engine.call import Call
from pyrovae.engine.densities import density_of
from pyrovae.engine.plates import Plates, data_frame, locate_plates
from pyrovae.engine.programs import PairLike, programs, takes_pair
from pyrovae.engine.run_modes import with_run_mode
from pyrovae.engine.sites import Site, density_sites, latent_sites, observed_sites
from pyrovae.engine.supports import require_same_measure, require_support
from pyrovae.engine.traces import traces_of_pair
from pyrovae.engine.weights import weights_of_traces
from pyrovae.errors import InputError
from pyrovae.runtime.module_state import reached
from pyrovae.runtime.parameters import Program, same_random_numbers
from pyrovae.runtime.precision import computing_in


@takes_pair
def find_plates(pair: PairLike, *args: Any, **kwargs: Any) -> Plates:
    """Find the data plate by one run with Pyro's validation on, and, by a few more runs, how particles run.

    Random generators, parameters and buffers are left as they were.

    Raises:
        InputError: for sites outside the data plate, for sites that one program has and the other lacks, for data
            outside the support of their distribution, and for several plates that could be the data plate.
    """
    model, guide = programs(pair)
    with _leaving_no_trace(model, guide, args, kwargs) as modules:
        plates, ranks = _plates_and_ranks(model, guide, args, kwargs)
        return with_run_mode(Call(model, guide, args, kwargs, 2, plates), ranks, modules)


def find_plates_again(model: Program, guide: Program, args: tuple, kwargs: dict, plates: Plates) -> Plates:
    """Find the plates for arguments of another shape, without a look at the numbers in them."""
    alone, plain = same_random_numbers(*args, *kwargs.values()), pyro.validation_enabled(False)
    with torch.no_grad(), alone, plain, computing_in("highest"), reached(model, guide) as modules:
        sites = [site for trace in traces_of_pair(model, guide, args, kwargs) for site in density_sites(trace)]
        found = replace(plates, size=data_frame(sites[0], plates.data).size)
        return with_run_mode(Call(model, guide, args, kwargs, 2, found), _ranks(sites), modules)


def check_pair(model: Program, guide: Program, *args: Any, **kwargs: Any) -> Plates:
    """Raise every error of :func:`find_plates` by one run of the pair, without finding out how particles run."""
    with _leaving_no_trace(model, guide, args, kwargs):
        return _plates_and_ranks(model, guide, args, kwargs)[0]


@contextmanager
def _leaving_no_trace(model: Program, guide: Program, args: tuple, kwargs: dict) -> Iterator[list[nn.Module]]:
    """Collect the modules that a pair reaches, and leave generators and buffers as they were; errors name the site."""
    alone = same_random_numbers(*args, *kwargs.values())
    with torch.no_grad(), alone, computing_in("highest"), reached(model, guide) as modules:
        try:
            yield modules
        except InputError:
            raise
        except ValueError:
            _name_the_site(model, guide, args, kwargs)
            raise


def _plates_and_ranks(model: Program, guide: Program, args: tuple, kwargs: dict) -> tuple[Plates, dict[str, int]]:
    """The plates, and the number of dimensions that the value of each site has in a single run."""
    with pyro.validation_enabled(True):
        model_trace, guide_trace = traces_of_pair(model, guide, args, kwargs)
        require_support(observed_sites(model_trace))
        plates = locate_plates(model_trace, guide_trace)
        for site in latent_sites(model_trace, guide_trace):
            require_same_measure(site, guide_trace.nodes[site["name"]])
        for site in [*density_sites(model_trace), *density_sites(guide_trace)]:
            site["log_prob"] = density_of(site)
            check_site_shape(site, plates.nesting)
    sites = [*density_sites(model_trace), *density_sites(guide_trace)]
    return replace(plates, size=data_frame(sites[0], plates.data).size), _ranks(sites)


def _ranks(sites: list[Site]) -> dict[str, int]:
    return {site["name"]: len(site["fn"].batch_shape) + site["fn"].event_dim for site in sites}


def _name_the_site(model: Program, guide: Program, args: tuple, kwargs: dict) -> None:
    """Raise an InputError where data or weights are to blame for an error of torch's validation, which names no site."""
    with pyro.validation_enabled(False):
        model_trace, guide_trace = traces_of_pair(model, guide, args, kwargs)
        drawn = [site for site in latent_sites(model_trace, guide_trace) if not site["value"].isnan().any()]
        require_support([*observed_sites(model_trace), *drawn])
        weights_of_traces(model_trace, guide_trace, 1, locate_plates(model_trace, guide_trace)).require_numbers()
