"""Random networks: five steps of training end with the same parameters and buffers, recorded or not, or are run eagerly."""

import os
import warnings
from collections import Counter
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from checks import slow_but
from compiling.test_backward import Counting, Reversed, Rounded
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

from pyrovae import ELBO, IWAE
from pyrovae.compiling.fallback import NotCompiledWarning
from pyrovae.engine.particles import ParticlesInTurnWarning
from pyrovae.runtime.batches import Columns
from pyrovae.training.steps import Steps
from pyrovae.training.unmoved_parameters import UnmovedParameterWarning

EXAMPLES = int(os.environ.get("PYROVAE_EXAMPLES", "100"))
"""How many networks are drawn where there is time."""
WIDTH = 4


class Function(nn.Module):
    """A function of a tensor as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Branch(nn.Module):
    """Its Python looks at a number."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else 0.5 * x


class Hook(nn.Module):
    """A hook on a tensor that is handed on."""

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            x.register_hook(lambda gradient: 0.5 * gradient)
        return 1.0 * x


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.linear, x, use_reentrant=False)


class Frozen(nn.Module):
    """A part without gradients, in inference mode or without a graph."""

    def __init__(self, context: Callable) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.context = context

    def forward(self, x: Tensor) -> Tensor:
        with self.context():
            h = self.linear(x)
        return x + h.clone()


def linear(change: Callable[[nn.Linear], nn.Module] = lambda layer: layer) -> nn.Module:
    return change(nn.Linear(WIDTH, WIDTH))


def backward_hooked(layer: nn.Linear) -> nn.Module:
    layer.register_full_backward_hook(lambda _, gradients, __: tuple(0.3 * value for value in gradients))
    return layer


def forward_hooked(layer: nn.Linear) -> nn.Module:
    layer.register_forward_hook(lambda _, __, output: output.sin())
    return layer


def weight_hooked(layer: nn.Linear) -> nn.Module:
    layer.weight.register_hook(lambda gradient: 0.1 * gradient)
    return layer


layers: dict[str, Callable[[], nn.Module]] = {
    "linear": linear,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "dropout": lambda: nn.Dropout(0.3),
    "batch norm": lambda: nn.BatchNorm1d(WIDTH),
    "batch norm, frozen": lambda: nn.BatchNorm1d(WIDTH).eval(),
    "layer norm": lambda: nn.LayerNorm(WIDTH),
    "noise": lambda: Function(lambda x: x + 0.1 * torch.randn_like(x)),
    "in place": lambda: Function(lambda x: (x * 1.0).mul_(0.7).add_(0.1)),
    "detached": lambda: Function(lambda x: x + (x.round() - x).detach()),
    "reversed": lambda: Function(Reversed.apply),
    "rounded": lambda: Function(lambda x: Rounded.apply(2.0 * x)),
    "counting": Counting,
    "hook": Hook,
    "hook on a weight": lambda: linear(weight_hooked),
    "hook on a backward pass": lambda: linear(backward_hooked),
    "hook on a forward pass": lambda: linear(forward_hooked),
    "checkpointed": Checkpointed,
    "without a graph": lambda: Frozen(torch.no_grad),
    "in inference mode": lambda: Frozen(torch.inference_mode),
    "weight norm": lambda: linear(parametrizations.weight_norm),
    "spectral norm": lambda: linear(parametrizations.spectral_norm),
    "pruned": lambda: linear(lambda layer: prune.l1_unstructured(layer, "weight", 0.5)),
    "branch": Branch,
}
guides = {
    "normal": lambda loc, scale: dist.Normal(loc, scale).to_event(1),
    "straight through": lambda loc, scale: dist.RelaxedBernoulliStraightThrough(torch.tensor(0.7), logits=loc).to_event(1),
}


class Pair:
    def __init__(self, encoder: list[str], decoder: list[str], guide: str) -> None:
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(3, WIDTH), *(self._build(name) for name in encoder), nn.Linear(WIDTH, 4))
        self.decoder = nn.Sequential(nn.Linear(2, WIDTH), *(self._build(name) for name in decoder), nn.Linear(WIDTH, 3))
        self.family = guides[guide]

    def _build(self, name: str) -> nn.Module:
        layer = layers[name]()
        return layer if name == "batch norm, frozen" else layer.train()

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            loc, scale = torch.zeros(2), torch.ones(2)
            z = pyro.sample("z", self.family(loc, scale))
            pyro.sample("x", dist.Normal(self.decoder(z), 0.5).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            loc, scale = self.encoder(x).chunk(2, -1)
            pyro.sample("z", self.family(loc, (0.3 * scale).exp()))

    def trained(self, objective, compile: bool) -> tuple[dict[str, Tensor], bool]:
        """All tensors after five steps, and whether they were recorded."""
        pyro.clear_param_store()
        x = torch.randn(20, 3, generator=torch.Generator().manual_seed(1))
        module = objective(self.model, self.guide)
        module.start(x[:4])
        torch.manual_seed(2)
        parameters = [value for value in module.parameters() if value.requires_grad]
        steps = Steps(module, torch.optim.SGD(parameters, lr=1e-2), batch_size=4, compile=compile)
        steps.walk(Columns(x))
        return {name: value.detach().clone() for name, value in module.state_dict().items()}, any(
            steps.gradient._fused.values()
        )


networks = st.lists(st.sampled_from(sorted(layers)), min_size=1, max_size=4)


@pytest.mark.parametrize("examples", slow_but(lambda number: number < EXAMPLES, [6, EXAMPLES]))
def test_recorded_training_is_eager_training(examples, float64, unfused):
    count = Counter()

    @settings(derandomize=True, deadline=None, max_examples=examples, phases=[Phase.generate])
    @given(networks, networks, st.sampled_from(sorted(guides)), st.sampled_from([ELBO, IWAE]), st.integers(1, 2))
    def check(encoder, decoder, guide, objective, particles):
        with warnings.catch_warnings():
            for category in (UnmovedParameterWarning, NotCompiledWarning, ParticlesInTurnWarning):
                warnings.simplefilter("ignore", category)
            (one, _), (other, recorded) = (
                Pair(encoder, decoder, guide).trained(objective(particles), compile=compile) for compile in (False, True)
            )
        count["recorded" if recorded else "eager"] += 1
        assert recorded == ("branch" not in encoder + decoder)
        for name, value in one.items():
            torch.testing.assert_close(
                value, other[name], rtol=1e-8, atol=1e-8, msg=lambda text, name=name: f"{name}: {text}"
            )

    check()
    print(dict(count))
    assert count["recorded"] > examples // 2
