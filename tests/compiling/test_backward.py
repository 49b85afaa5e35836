"""What lives in the backward pass alone, or in a buffer, is in a recording too: a step is the program's own."""

import warnings
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from checks import slow_but
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm
from torch.utils.checkpoint import checkpoint

from pyrovae import ELBO, fit
from pyrovae.runtime.batches import Columns
from pyrovae.training.steps import Steps
from pyrovae.training.unmoved_parameters import UnmovedParameterWarning

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning"),
]


class Reversed(torch.autograd.Function):
    """A reversal of the gradient, as adversarial training has it."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return -0.5 * grad


class Rounded(torch.autograd.Function):
    """Rounding whose gradient passes straight through."""

    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, grad):
        return grad


class Layer(nn.Module):
    """A layer of the encoder: what every case here changes."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class Reversing(Layer):
    def forward(self, x):
        return Reversed.apply(self.linear(x))


class Rounding(Layer):
    def forward(self, x):
        return Rounded.apply(3.0 * self.linear(x))


class Frozen(Layer):
    """Its weight has a hook that stops the gradient."""

    def __init__(self):
        super().__init__()
        self.linear.weight.register_hook(torch.zeros_like)


class Hooked(Layer):
    """A hook on a tensor turns the sign of its gradient."""

    def forward(self, x):
        h = self.linear(x)
        if h.requires_grad:
            h.register_hook(torch.neg)
        return h


class HookedModule(Layer):
    """A hook on a layer's whole backward pass."""

    def __init__(self):
        super().__init__()
        self.linear.register_full_backward_hook(lambda _, grads, __: tuple(0.1 * grad for grad in grads))
        self.before = nn.Linear(4, 4)

    def forward(self, x):
        return self.linear(self.before(x))


class Backbone(Layer):
    """A frozen part, run in inference mode."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(4, 4)

    def forward(self, x):
        with torch.inference_mode():
            h = self.backbone(x).tanh()
        return self.linear(h.clone())


class Detached(Layer):
    def forward(self, x):
        h = self.linear(x)
        return h + (h.round() - h).detach()


class NoGrad(Layer):
    def forward(self, x):
        with torch.no_grad():
            h = self.linear(x)
        return h + self.linear(x).tanh()


class Counting(Layer):
    """A buffer that every call replaces."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        self.count = self.count + 1
        return self.linear(x) / self.count


class Averaging(Layer):
    """A buffer that is replaced by an average of what is seen, and another that is changed in place."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long), persistent=False)

    def forward(self, x):
        h = self.linear(x)
        self.calls += 1
        self.mean = 0.9 * self.mean + 0.1 * h.detach().mean(tuple(range(h.dim() - 1)))
        return h - self.mean


class Expanded(Layer):
    """A buffer that nobody changes and that cannot be written to."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.full((1,), 0.7).expand(4))
        with torch.inference_mode():
            self.register_buffer("shift", torch.ones(4))

    def forward(self, x):
        return self.linear(x) * self.scale + self.shift.clone()


class Held(Layer):
    """A tensor that is neither parameter nor buffer, changed in place."""

    def __init__(self):
        super().__init__()
        self.seen = torch.zeros(4)

    def forward(self, x):
        with torch.no_grad():
            self.seen.mul_(0.5).add_(x.detach().mean(tuple(range(x.dim() - 1))))
        return self.linear(x) + self.seen


class Masking(Layer):
    """A buffer of truth values, and one of whole numbers."""

    def __init__(self):
        super().__init__()
        self.register_buffer("kept", torch.tensor([True, False, True, True]))
        self.register_buffer("order", torch.tensor([2, 0, 1, 3]))

    def forward(self, x):
        return self.linear(x)[..., self.order] * self.kept


class Tied(Layer):
    def __init__(self):
        super().__init__()
        self.other = nn.Linear(4, 4)
        self.other.weight = self.linear.weight

    def forward(self, x):
        return self.other(self.linear(x).tanh())


class Checkpointed(Layer):
    def forward(self, x):
        return checkpoint(lambda x: self.linear(x).tanh(), x, use_reentrant=False)


class Adapted(Layer):
    """A layer that ``torch.nn.utils`` changes."""

    def __init__(self, change):
        super().__init__()
        self.linear = change(self.linear)


class Recurrent(Layer):
    def __init__(self, cls):
        super().__init__()
        self.network = cls(1, 4, batch_first=True)

    def forward(self, x):
        return self.linear(self.network(x.unsqueeze(-1))[0][:, -1])


class Attending(Layer):
    """Attention followed by dropout."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, dropout=0.2, batch_first=True)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        x = x.unsqueeze(-2)
        return self.linear(self.dropout(self.attention(x, x, x)[0]).squeeze(-2))


class Turned(nn.Module):
    """A picture with its channels last, of whose normalisation torch expects another order than it gives."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm, self.convolution = nn.Linear(4, 12), nn.GroupNorm(1, 3), nn.Conv2d(3, 4, 2)

    def forward(self, x: Tensor) -> Tensor:
        pictures = self.linear(x).reshape(-1, 3, 2, 2).contiguous(memory_format=torch.channels_last)
        return self.convolution(self.norm(pictures)).reshape(x.shape)


class Flattened(Turned):
    """The same, and a view of it that is none where the numbers lie in the order that is expected."""

    def forward(self, x: Tensor) -> Tensor:
        pictures = self.linear(x).reshape(-1, 3, 2, 2).contiguous(memory_format=torch.channels_last)
        return self.norm(pictures).permute(0, 2, 3, 1).reshape(len(pictures), 12)[:, ::3].reshape(x.shape)


cases = {
    **{cls.__name__: cls for cls in (Reversing, Rounding, Frozen, Hooked, HookedModule, Backbone, Detached, NoGrad)},
    **{
        cls.__name__: cls
        for cls in (Counting, Averaging, Expanded, Held, Masking, Tied, Checkpointed, Attending, Turned, Flattened)
    },
    "weight_norm, old": lambda: Adapted(weight_norm),
    "weight_norm": lambda: Adapted(parametrizations.weight_norm),
    "spectral_norm, old": lambda: Adapted(spectral_norm),
    "spectral_norm": lambda: Adapted(parametrizations.spectral_norm),
    "pruned": lambda: Adapted(lambda layer: prune.l1_unstructured(layer, "weight", 0.5)),
    "LSTM": lambda: Recurrent(nn.LSTM),
    "GRU": lambda: Recurrent(nn.GRU),
    "LSTM with dropout": lambda: Recurrent(partial(nn.LSTM, num_layers=2, dropout=0.2)),
    "compiled": lambda: torch.compile(nn.Linear(4, 4), backend="aot_eager"),
}


class Encoder(nn.Module):
    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer
        self.last = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        loc, scale = self.last(self.layer(x).tanh()).chunk(2, -1)
        return loc, scale.exp()


class Pair:
    """A model, and a guide whose encoder has the layer."""

    def __init__(self, make) -> None:
        torch.manual_seed(0)
        self.encoder, self.decoder = Encoder(make()), nn.Linear(2, 4)
        self.x = torch.randn(10, 4)

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2, dtype=x.dtype), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 0.5).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(*self.encoder(x)).to_event(1))

    def trained(self, compile: bool, particles: int = 1) -> dict[str, Tensor]:
        """All tensors after two epochs of two batches of four and one of two."""
        pyro.clear_param_store()
        module = ELBO(particles)(self.model, self.guide)
        module.start(self.x[:4])
        torch.manual_seed(1)
        parameters = [value for value in module.parameters() if value.requires_grad]
        steps = Steps(module, torch.optim.SGD(parameters, lr=1e-2), batch_size=4, compile=compile)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnmovedParameterWarning)  # some of them are frozen
            for _ in range(2):
                steps.walk(Columns(self.x))
        assert steps.gradient.compile == compile
        held = {f"held {name}": value for name, value in vars(self.encoder.layer).items() if isinstance(value, Tensor)}
        return {
            name: value.detach().clone()
            for name, value in [*module.named_parameters(), *module.named_buffers(), *held.items()]
        }


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor], atol: float = 1e-10) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=0, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


twins = {
    *("GRU", "LSTM with dropout", "weight_norm, old", "spectral_norm, old", "pruned"),
    *("Turned", "Rounding", "NoGrad", "compiled"),
}
"""Cases that are near to LSTM, weight_norm, spectral_norm, Flattened, Reversing and Backbone, or in test_others too."""


@pytest.mark.parametrize("name", slow_but(lambda name: name not in twins, cases))
def test_a_recorded_step_is_an_eager_step(name, unfused):
    assert_same(Pair(cases[name]).trained(False), Pair(cases[name]).trained(True))


@pytest.mark.slow  # as training/test_steps.py has fused ones
@pytest.mark.parametrize("name", ["Reversing", "Frozen", "Counting", "Attending", "Turned"])
def test_a_fused_step_is_an_eager_step(name):
    assert_same(Pair(cases[name]).trained(False), Pair(cases[name]).trained(True))


def test_a_buffer_that_an_evaluation_replaces_is_taken_over(unfused):
    states = []
    for compile in (False, True):
        pair = Pair(Counting)
        fit(pair, pair.x, pair.x, epochs=2, batch_size=4, compile=compile, progress=False)
        states.append(pair.encoder.state_dict())
    assert_same(*states)
    assert states[1]["layer.count"] > 6  # of training; and of evaluation


single = ["LSTM", "GRU", "Held"]


@pytest.mark.parametrize("name", slow_but(lambda name: name not in twins, single))
def test_in_single_precision(name, unfused):
    assert_same_in_single_precision(name)


@pytest.mark.parametrize("name", single)
@pytest.mark.slow
def test_in_single_precision_fused(name):
    assert_same_in_single_precision(name)


def assert_same_in_single_precision(name):
    torch.set_default_dtype(torch.float32)
    assert_same(Pair(cases[name]).trained(False), Pair(cases[name]).trained(True), atol=1e-4)


@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRU, nn.RNN])
def test_dropout_between_recurrent_layers_keeps_particles_at_once(cls):
    pair = Pair(lambda: Recurrent(partial(cls, num_layers=2, dropout=0.2)))
    module = ELBO(2)(pair.model, pair.guide)
    module.start(pair.x[:4])
    assert module.plates.particles != "in turn"


def test_looks_run_what_torch_compiles_as_it_was_written():
    compiled = []

    def backend(graph, _):
        compiled.append(graph)
        return graph.forward

    pair = Pair(lambda: torch.compile(nn.Linear(4, 4), backend=backend))
    ELBO(2)(pair.model, pair.guide).start(pair.x[:4])
    assert not compiled
    pair.encoder(pair.x)
    assert compiled
