r"""How much of an objective's gradient is signal, and how much is noise of its draws.

Which program a parameter belongs to is asked of autograd, not of names: a parameter is the model's where
:math:`\log p(x, z)` at stopped draws has a gradient for it, and the guide's where its draws or :math:`\log q(z \mid x)`
have one. So it is the same for modules, methods of one module, and functions with ``pyro.param`` and ``pyro.module``.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor, nn
from tqdm.auto import tqdm

from pyrovae.engine.call import Call
from pyrovae.engine.programs import PairLike, programs, takes_pair
from pyrovae.engine.stop_gradient_draws import stop_values
from pyrovae.errors import InputError
from pyrovae.internals.torch_internals import own_buffers
from pyrovae.objectives import Objective, ObjectiveModule
from pyrovae.runtime.batches import Batch, DataLike, as_batch
from pyrovae.runtime.parameters import Program, owner, same_random_numbers, seeing
from pyrovae.runtime.seeds import seeded

PROGRAMS = ("model", "guide", "shared", "unused")
"""Where a parameter is used: in one of the two programs, in both, or in neither."""


class GradientSummary(NamedTuple):
    r"""What the gradient of a group of parameters comes to.

    Attributes:
        size: the number of scalar parameters.
        norm: the norm of their mean gradient.
        variance: the mean of their variances.
        snr: the mean of their signal-to-noise ratios, those without a variance left out; NaN where none is left.
        constant: how many were left out, their gradient being the same at every draw.
    """

    size: int
    norm: float
    variance: float
    snr: float
    constant: int


@dataclass(frozen=True, eq=False)
class GradientStatistics:
    r"""Mean and variance of the gradient of an objective's loss on one batch, for every scalar parameter.

    The loss is what the objective's module returns: minus the bound (plus an upper one), summed over the batch, in nats.
    A parameter under a constraint counts by its unconstrained value, which is what an optimiser moves.

    Attributes:
        mean: :math:`\bar g`, float64, of the parameter's shape and on the CPU, by name. A name begins with the program that
            the parameter is used in: ``model.``, ``guide.``, ``shared.`` for both, ``unused.`` for neither.
        variance: the unbiased :math:`\hat\sigma^2(g)`, by the same names.
        objective: what is to be differentiated, such as ``IWAE(64, "dreg")``.
        num_samples: the number R of gradients drawn.
    """

    mean: dict[str, Tensor]
    variance: dict[str, Tensor]
    num_samples: int

    @property
    def snr(self) -> dict[str, Tensor]:
        r"""The signal-to-noise ratio :math:`|\bar g| / \hat\sigma(g)`, by name.

        Where the gradient is the same at every draw it is infinite, or NaN if that is 0.

        Source: Rainforth et al., Tighter Variational Bounds are Not Necessarily Better (arXiv:1802.04537), section 3.
        """
        return {name: mean.abs() / self.variance[name].sqrt() for name, mean in self.mean.items()}

    @property
    def floor(self) -> float:
        r"""The ratio that noise alone shows, :math:`E|\bar g| / \sigma(g) = \sqrt{2 / (\pi R)}` of normal g with mean 0."""
        return math.sqrt(2 / (math.pi * self.num_samples))

    @property
    def parameters(self) -> dict[str, GradientSummary]:
        """A summary of each parameter tensor, by name, those of the model first."""
        names = sorted(self.mean, key=lambda name: PROGRAMS.index(name.partition(".")[0]))
        return {name: self._summary([name]) for name in names}

    @property
    def programs(self) -> dict[str, GradientSummary]:
        """A summary of all parameters of the ``model``, all of the ``guide``, those ``shared``, and those ``unused``."""
        members = {program: [name for name in self.mean if name.startswith(f"{program}.")] for program in PROGRAMS}
        return {program: self._summary(names) for program, names in members.items() if names}

    def _summary(self, names: Sequence[str]) -> GradientSummary:
        mean, variance = (torch.cat([values[n].flatten() for n in names]) for values in (self.mean, self.variance))
        varies = variance > 0
        snr = (mean.abs() / variance.sqrt())[varies].mean().item()
        return GradientSummary(len(mean), mean.norm().item(), variance.mean().item(), snr, int((~varies).sum()))

    def __str__(self) -> str:
        rows = [*self.programs.items(), *self.parameters.items()]
        width = max(len("parameter"), *(len(name) for name, _ in rows))
        header = f"  {'parameter':<{width}}{'size':>10}{'|mean|':>12}{'variance':>12}{'SNR':>10}{'constant':>10}"
        lines = [
            f"  {name:<{width}}{row.size:>10,}{row.norm:>12.4g}{row.variance:>12.4g}{row.snr:>10.4f}{row.constant:>10,}"
            for name, row in rows
        ]
        split = len(self.programs)
        title = f"gradient of the loss by {self.num_samples:,} draws; noise alone would show an SNR of {self.floor:.4f}"
        return "\n".join([title, "", header, *lines[:split], "", *lines[split:]])


@takes_pair
def gradient_statistics(
    pair: PairLike,
    x: DataLike,
    objective: Objective,
    num_samples: int = 100,
    *,
    seed: int = 0,
    progress: bool = False,
) -> GradientStatistics:
    r"""Draw an objective's gradient on one batch again and again, and tell its mean from its noise.

    .. math::
        \bar g = \frac1R \sum_{r=1}^R g_r, \qquad
        \hat\sigma^2 = \frac1{R - 1} \sum_{r=1}^R (g_r - \bar g)^2, \qquad
        \mathrm{SNR} = \frac{|\bar g|}{\hat\sigma}, \qquad
        g_r = \nabla\, \mathrm{loss}(x; \varepsilon_r)

    for each scalar parameter, with fresh noise :math:`\varepsilon_r` at each of R draws. They are taken up one by one, so
    that memory does not grow with R. Groups of parameters are summarised by the mean of their signal-to-noise ratios.

    Modules run in the modes they are in, so that dropout that is on is part of the noise. Every draw finds their buffers,
    and the objective's, as they are, and leaves them so; so does it with ``.grad`` of the parameters.

    Args:
        pair: a ``VAE``, or the tuple ``(model, guide)`` of two Pyro programs with a plate over data, each called with ``x``.
        x: one batch, shape ``(B, *event_shape)``, where the programs are, or a mapping as :func:`pyrovae.fit` takes.
        num_samples: the number R of draws, at least 2.
        seed: where the noise starts; the caller's random generators stay as they were.
        progress: whether to show a progress bar over draws.

    Returns:
        :class:`GradientStatistics`; print it for a table.

    Raises:
        InputError: for fewer than two repeats; where no parameter can be trained; naming the parameter, where a gradient is
            not finite; and all that the objective raises on this pair.

    Source: Welford, Note on a Method for Calculating Corrected Sums of Squares and Products (Technometrics, 1962); Rainforth
    et al., Tighter Variational Bounds are Not Necessarily Better (arXiv:1802.04537), section 3, for the ratio.
    """
    model, guide = programs(pair)
    if not isinstance(objective, Objective):
        raise InputError(f"objective is {objective!r}; expected an objective, such as pyrovae.IWAE(50)")
    if num_samples < 2:
        raise InputError(f"num_samples is {num_samples}; a variance needs at least 2")
    module, batch = objective(model, guide), as_batch(x)
    with torch.enable_grad(), seeded(seed, batch.x.device):
        with _same_buffers(module):
            module.meet(batch)
        parameters = _trainable(module)
        names = _names(module, parameters, batch)
        moments = _Moments(sum(value.numel() for value in parameters), batch.x.device)
        for _ in tqdm(range(num_samples), disable=not progress):
            moments.add(_gradient(module, parameters, batch))
    statistics = GradientStatistics(
        _split(moments.mean, names, parameters), _split(moments.variance, names, parameters), num_samples
    )
    _require_finite(statistics.mean)
    return statistics


class _Moments:
    """Mean and variance of vectors that come one by one."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.count = 0
        self.mean = torch.zeros(size, dtype=torch.float64, device=device)
        self._squares = torch.zeros_like(self.mean)

    def add(self, vector: Tensor) -> None:
        """Take down one more, in Welford's way, which loses no digits where the mean is far from zero."""
        self.count += 1
        distance = vector - self.mean
        self.mean += distance / self.count
        self._squares += distance * (vector - self.mean)

    @property
    def variance(self) -> Tensor:
        return self._squares / (self.count - 1)


def _gradient(module: ObjectiveModule, parameters: Sequence[nn.Parameter], batch: Batch) -> Tensor:
    """One draw of the gradient, flattened, with 0 where the loss does not depend on a parameter."""
    with _same_buffers(module):
        loss = module(batch.x, **batch.given)
    found = torch.autograd.grad(loss, parameters, allow_unused=True) if loss.requires_grad else [None] * len(parameters)
    parts = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
    return torch.cat([part.flatten() for part in parts])


def _trainable(module: nn.Module) -> list[nn.Parameter]:
    found = [value for value in module.parameters() if value.requires_grad]
    if not found:
        raise InputError("no parameter of the pair requires a gradient; call requires_grad_(True) on what is to be trained")
    return found


def _split(flat: Tensor, names: Sequence[str], parameters: Sequence[nn.Parameter]) -> dict[str, Tensor]:
    pieces = flat.cpu().split([value.numel() for value in parameters])
    return {name: piece.view(value.shape) for name, piece, value in zip(names, pieces, parameters, strict=True)}


def _require_finite(means: Mapping[str, Tensor]) -> None:
    for name, mean in means.items():
        if not mean.isfinite().all():
            number = int((~mean.isfinite()).sum())
            raise InputError(
                f"the gradient of {name} is not finite in {number} of {mean.numel()} places; look at the weights of this "
                "batch with pyrovae.log_weights((model, guide), x), or move the parameters to where they are finite"
            )


def _names(module: ObjectiveModule, parameters: Sequence[nn.Parameter], batch: Batch) -> list[str]:
    """The program that each parameter is used in, and what it is called there; unique."""
    users = _users(module, parameters, batch)
    outside = {value: name.removeprefix("stored.param:") for name, value in module.named_parameters()}
    called = outside | _statements(users.traces) | _inside(module)
    names = [f"{users.of(value)}.{called[value]}" for value in parameters]
    counts = Counter(names)
    return [f"{name} ({outside[p]})" if counts[name] > 1 else name for name, p in zip(names, parameters, strict=True)]


def _inside(module: ObjectiveModule) -> dict[nn.Parameter, str]:
    """The names of parameters within the modules that the two programs are, or are methods of."""
    owners = [owner(program) for program in (module.guide, module.model)]
    return {value: name for part in owners if isinstance(part, nn.Module) for name, value in part.named_parameters()}


def _statements(traces: Sequence[Trace]) -> dict[Any, str]:
    """The names that ``pyro.param`` and ``pyro.module`` statements give to unconstrained values."""
    nodes = [(name, node["value"]) for trace in traces for name, node in trace.nodes.items() if node["type"] == "param"]
    return {getattr(value, "unconstrained", lambda value=value: value)(): name.replace("$$$", ".") for name, value in nodes}


class _Users(NamedTuple):
    """The parameters that model and guide use, those of the modules that they are, and their traces."""

    used: tuple[set[nn.Parameter], set[nn.Parameter]]
    owned: tuple[set[nn.Parameter], set[nn.Parameter]]
    traces: tuple[Trace, Trace]

    def of(self, parameter: nn.Parameter) -> str:
        """One of ``PROGRAMS``; a parameter that neither uses counts as its owner's, if that is one of them alone."""
        places = _holding(parameter, self.used)
        if places:
            return places[0] if len(places) == 1 else "shared"
        places = _holding(parameter, self.owned)
        return places[0] if len(places) == 1 else "unused"


def _holding(parameter: nn.Parameter, sets: tuple[set[nn.Parameter], set[nn.Parameter]]) -> list[str]:
    return [program for program, found in zip(("model", "guide"), sets, strict=True) if parameter in found]


def _users(module: ObjectiveModule, parameters: Sequence[nn.Parameter], batch: Batch) -> _Users:
    """Run the pair once, and ask autograd which parameters the densities of either, and the guide's draws, come from."""
    with same_random_numbers(batch.x), _same_buffers(module), module.opened() as (model, guide):
        call = Call(model, guide, (batch.x,), batch.given, 1, module.plates)
        draws = call.draw()
        observed = call.observe(stop_values(draws))
        weights = call.compose(observed, draws)
    values = [site["value"] for site in draws.nodes.values() if site["type"] == "sample"]
    used = _sources([weights.log_joint], parameters), _sources([weights.log_proposal, *values], parameters)
    return _Users(used, (_owned(module.model), _owned(module.guide)), (observed, draws))


def _owned(program: Program) -> set[nn.Parameter]:
    module = owner(program)
    return set(module.parameters()) if isinstance(module, nn.Module) else set()


def _sources(outputs: Sequence[Any], parameters: Sequence[nn.Parameter]) -> set[nn.Parameter]:
    """The parameters that differentiable ones among these depend on."""
    alive = [output.sum() for output in outputs if isinstance(output, Tensor) and output.requires_grad]
    if not alive:
        return set()
    found = torch.autograd.grad(torch.stack(alive).sum(), parameters, allow_unused=True, retain_graph=True)
    return {value for value, gradient in zip(parameters, found, strict=True) if gradient is not None}


@contextmanager
def _same_buffers(module: nn.Module) -> Iterator[None]:
    """Let modules, those within this one and those called meanwhile, write to copies of their buffers."""
    kept: dict[nn.Module, dict[str, Tensor | None]] = {}

    def lend(called: nn.Module) -> None:
        """Put copies in the place of a module's buffers, once."""
        for part in called.modules():
            if part not in kept:
                kept[part] = dict(own_buffers(part))
                own_buffers(part).update({name: value.clone() for name, value in kept[part].items() if value is not None})

    lend(module)
    try:
        with seeing(lend):
            yield
    finally:
        for part, buffers in kept.items():
            own_buffers(part).update(buffers)
