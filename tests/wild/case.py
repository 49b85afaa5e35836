"""What a row of the table is: one pair of programs as a stranger writes it, with what is known of its answers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from pyro.infer import Trace_ELBO
from torch import Tensor, nn

Program = Callable[..., Any]
Loss = Callable[..., float]


def trace_elbo(model: Program, guide: Program) -> Loss:
    """Stock Pyro's loss of one particle."""
    return lambda *args, **kwargs: Trace_ELBO().loss(model, guide, *args, **kwargs)


@dataclass(frozen=True)
class Case:
    """A pair of programs and one batch that both are called with.

    Attributes:
        model: the model, as its author wrote it.
        guide: its guide.
        args: what both are called with.
        kwargs: what both are called with, by name.
        size: the number of data B.
        plate: the name of the plate over data.
        modules: the networks that the programs reach.
        exact: gives log p(x) of each datum, shape ``(B,)``.
        stock: makes stock Pyro's loss; None where stock Pyro has none that means the same.
        left_out: names of the model's sites that are no term of a weight.
    """

    model: Program
    guide: Program
    args: tuple
    size: int
    kwargs: dict[str, Any] = field(default_factory=dict)
    plate: str = "data"
    modules: tuple[nn.Module, ...] = ()
    exact: Callable[[], Tensor] | None = None
    stock: Callable[[Program, Program], Loss] | None = trace_elbo
    left_out: tuple[str, ...] = ()

    def with_exact(self, exact: Callable[[], Tensor]) -> "Case":
        """The case with log p(x) known, which is a question in evaluation mode."""

        def evaluated() -> Tensor:
            with self.evaluating():
                return exact()

        return replace(self, exact=evaluated)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Within it, all networks are in evaluation mode."""
        modes = [(part, part.training) for module in self.modules for part in module.modules()]
        for part, _ in modes:
            part.training = False
        yield
        for part, mode in modes:
            part.training = mode

    @property
    def data(self) -> Any:
        """The batch as one hands it to ``fit`` and ``log_likelihood``: x alone, or a mapping of what goes with it."""
        return {"x": self.args[0], **self.kwargs} if self.kwargs else self.args[0]


@dataclass(frozen=True)
class Row:
    """A case by its name, built anew by each who asks.

    Attributes:
        name: what it is.
        build: makes the case, from the random numbers as they are.
        refused: a word of the message of ``log_weights``, where it must refuse the pair.
        no_likelihood: a word of the message of ``log_likelihood``, where the guide has no density.
        no_batches: a word of the message of all that go through data batch by batch, where these cannot be.
        num_samples: draws a datum for log p(x).
    """

    name: str
    build: Callable[[], Case]
    refused: str | None = None
    no_likelihood: str | None = None
    no_batches: str | None = None
    num_samples: int = 1500

    def __str__(self) -> str:
        return self.name


def linear(columns: int, rows: int, size: float = 0.7) -> nn.Linear:
    """A linear layer whose weights are of the size that keeps posteriors near their prior."""
    layer = nn.Linear(columns, rows)
    with torch.no_grad():
        layer.weight.mul_(size * columns**0.5).clamp_(-1, 1)
    return layer
