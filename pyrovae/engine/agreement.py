"""Check that particles that run at once have the densities and gradients of single runs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor, nn

from pyrovae.engine.call import Call
from pyrovae.engine.sites import density_sites, with_values
from pyrovae.engine.stacking import crowded, ranked
from pyrovae.engine.weights import LogWeights
from pyrovae.errors import InputError
from pyrovae.runtime.equivalence import GRADIENT, difference
from pyrovae.runtime.fixed_randomness import FixedRandomness
from pyrovae.runtime.rounding import is_close

OTHER = "has another density than in single runs"
"""The reason against runs at once that do not fail but have other densities."""
MOST_READS = 16
"""Number of reads that are tried one by one; of more, some are taken to matter."""
ROUNDING = 100.0
"""Factor by which rounding may move a density further than a change of the last bit of the draws does."""


def disagreement(call: Call, ranks: Mapping[str, int], parameters: list[nn.Parameter]) -> str | None:
    """The reason why the weights are not those of single runs; ``None`` where they are."""
    assert call.plates is not None
    try:
        draws = call.draw()
        with FixedRandomness() as fixed, torch.enable_grad():
            traces = call.observe(draws), call.propose(draws)
            at_once = call.compose(*traces)
        reads = fixed.reads if call.plates.particles == "together" else 0
        if reads and _may_read_draws(call) and _is_read(call, draws, at_once, reads):
            return "Python reads a number that depends on the draws"
    except Exception as error:  # whatever a program does that was not written for more than one run at a time
        return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    single = replace(call, plates=replace(call.plates, particles="in turn", reason=None))
    draws = ranked(draws, ranks, call.particles)
    if name := crowded(draws):
        return f"site {name!r} of the guide has more values than one run of it for each particle"
    with FixedRandomness(), torch.enable_grad():
        try:
            guide_trace = single.propose(draws)
        except InputError:  # a flow without an inverse, which knows the density of what it draws itself, of the same noise
            at_once, guide_trace = call.compose(traces[0], call.draw()), single.draw()
        one_by_one = single.compose(single.observe(draws), guide_trace)
        name = _differing(at_once, one_by_one)
        if name and _differing(at_once, one_by_one, _moved_by_rounding(single, draws, one_by_one)):
            return f"site {name!r} {OTHER}"
    return _only_at_once(at_once, single) or _other_gradient(at_once, one_by_one, parameters)


@torch.enable_grad()
def _other_gradient(at_once: LogWeights, one_by_one: LogWeights, parameters: list[nn.Parameter]) -> str | None:
    """What is wrong with the gradient of runs at once, where single runs have one."""

    def gradient(weights: LogWeights) -> dict[str, dict[int, Tensor | None]]:
        found = torch.autograd.grad(weights.total.sum(), parameters, retain_graph=True, allow_unused=True)
        return {GRADIENT: {k: None if value is None else value.to_dense().float() for k, value in enumerate(found)}}

    if not parameters or not one_by_one.total.requires_grad:
        return None
    try:
        expected = gradient(one_by_one)
    except RuntimeError:  # the program's own
        return None
    try:
        found = gradient(at_once)
    except RuntimeError as error:
        return f"its gradient fails: {next(iter(str(error).splitlines()), '')}"
    return None if difference(expected, found) is None else "its gradient is another than in single runs"


def _is_read(call: Call, draws: Trace, weights: LogWeights, reads: int) -> bool:
    """Whether a number that Python reads of a tensor decides a density, and not only whether the program raises an error."""
    for k in range(min(reads, MOST_READS)):
        try:
            with FixedRandomness(altered=k):
                again = call.compose(call.observe(draws), call.propose(draws))
        except Exception:  # the number guards against what is not there
            continue
        if _differing(again, weights):
            return True
    return reads > MOST_READS


def _may_read_draws(call: Call) -> bool:
    """Whether a program, mapped, gives Python a number that differs from particle to particle, or cannot be mapped."""
    assert call.plates is not None
    mapping = replace(call, plates=replace(call.plates, particles="mapped"))
    try:
        mapping.observe(mapping.draw())
    except Exception:  # of the number, or of whatever else stands in the way of an answer
        return True
    return False


def _differing(weights: LogWeights, others: LogWeights, moved: Sequence[Tensor] = ()) -> str | None:
    """A site whose densities differ by more than rounding can, or than they are ``moved`` by a change of the last bits."""
    terms = zip(weights.terms(), others.terms(), strict=True)
    for k, ((_, name, term), (_, _, other)) in enumerate(terms):
        if not is_close(term, other, ROUNDING * moved[k] if moved else 0.0):
            return name
    return None


def _moved_by_rounding(single: Call, draws: Trace, weights: LogWeights) -> list[Tensor]:
    """How far each density moves where the last bits of the draws do: far, where it cancels large numbers."""
    values = {site["name"]: site["value"] for site in density_sites(draws) if not site["is_observed"]}
    floats = {name: value for name, value in values.items() if value.is_floating_point()}
    nudged = with_values(draws, {name: value * (1.0 + torch.finfo(value.dtype).eps) for name, value in floats.items()})
    try:
        again = single.compose(single.observe(nudged), single.propose(nudged))
    except InputError:  # a flow without an inverse
        return []
    terms = zip(again.terms(), weights.terms(), strict=True)
    return [(term - other).abs() for (_, _, term), (_, _, other) in terms]


def _only_at_once(weights: LogWeights, single: Call) -> str | None:
    """A site whose density is not a number, and is one in runs that draw for themselves."""
    if not any(term.isnan().any() for _, _, term in weights.terms()):
        return None
    draws = single.draw()
    fresh = {name: term for _, name, term in single.weigh(draws).terms()}
    lost = (name for _, name, term in weights.terms() if term.isnan().any() and not fresh[name].isnan().any())
    name = next(lost, None)
    return None if name is None else f"the density of site {name!r} is NaN, where single runs give a number"
