"""The meaning of K particles, by stock Pyro alone: K runs of the programs, one after another, at given draws."""

from collections.abc import Mapping
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from tests.wild.case import Case, Program

Draws = Mapping[str, Tensor]


def run(program: Program, case: Case, draws: Draws | None = None) -> Trace:
    """One run of a program, at these values of its sites where they are given, with every log density computed."""
    trace = poutine.trace(At(draws or {})(program)).get_trace(*case.args, **case.kwargs)
    trace.compute_log_prob()
    return trace


class At(Messenger):
    """Within it, sites that are not observed have these values; all else of them is as it is."""

    def __init__(self, draws: Draws) -> None:
        super().__init__()
        self.draws = draws

    def _pyro_sample(self, site: Any) -> None:
        if site["name"] in self.draws and not site["is_observed"]:
            site["value"], site["done"] = self.draws[site["name"]], True


def drawn(trace: Trace) -> dict[str, Tensor]:
    """The values of the sites that a run drew."""
    return {name: site["value"] for name, site in _sampled(trace) if not site["is_observed"]}


def _sampled(trace: Trace) -> list[tuple[str, Any]]:
    sites = [(name, site) for name, site in trace.nodes.items() if site["type"] == "sample"]
    subsample = "_Subsample"
    return [(name, site) for name, site in sites if type(site["fn"]).__name__ != subsample]


def draws_of_particle(guide: Trace, shapes: Mapping[str, Tensor], particle: int, particles: int) -> dict[str, Tensor]:
    """The values of one particle, of the shapes that a single run has, from those of all, ``(K, ..., B, *event)``."""
    return {name: _one(guide.nodes[name]["value"], single, particle, particles).detach() for name, single in shapes.items()}


def _one(value: Tensor, single: Tensor, particle: int, particles: int) -> Tensor:
    if value.dim() and value.numel() == particles * single.numel():
        return value.reshape(particles, *single.shape)[particle]
    return value.expand(particles, *value.shape[1:])[particle].expand(single.shape) if value.dim() > single.dim() else value


def log_weight(case: Case, draws: Draws) -> Tensor:
    r""":math:`\log p(x, z) - \log q(z \mid x)` of each datum at draws of the guide, one run of each program, ``(B,)``.

    An observed site of the guide is no density of a latent, and is no term.
    """
    guide = run(case.guide, case, draws)
    return log_joint(case, drawn(guide)) - _per_datum(case, guide, [name for name, _ in _sampled(guide) if name in draws])


def log_joint(case: Case, draws: Draws) -> Tensor:
    r""":math:`\log p(x, z)` of each datum at values of the latents, one run of the model, ``(B,)``."""
    model = run(case.model, case, draws)
    return _per_datum(case, model, [name for name, _ in _sampled(model) if name not in case.left_out])


def _per_datum(case: Case, trace: Trace, names: list[str]) -> Tensor:
    return sum((_datum_terms(case, trace.nodes[name]) for name in names), torch.zeros(case.size))


def _datum_terms(case: Case, site: Any) -> Tensor:
    """A site's log density, its scale and mask included, summed over all plates but the one over data."""
    if site["infer"].get("_deterministic"):
        return torch.zeros(case.size)
    dims = [frame.dim for frame in site["cond_indep_stack"] if frame.name == case.plate]
    if not dims:
        raise LookupError(f"site {site['name']!r} is outside the plate {case.plate!r}")
    dim = dims[0]
    log_prob = torch.as_tensor(site["log_prob"])
    shape = torch.broadcast_shapes(log_prob.shape, [case.size] + [1] * (-dim - 1), site["fn"].batch_shape)
    return log_prob.expand(shape).movedim(dim, -1).reshape(-1, case.size).sum(0)
