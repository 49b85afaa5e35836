"""Sequences: a deep Markov model of ragged ones, hidden Markov models as likelihoods, a random walk."""

import math

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.contrib.easyguide import EasyGuide
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from tests.wild.case import Case, Row, linear
from tests.wild.exact import over_grid, over_values

STEPS, KEYS, STATE, HIDDEN = 3, 4, 1, 3
LENGTHS = (3, 2, 1, 3)


class Emitter(nn.Module):
    """Probabilities of keys."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(linear(STATE, HIDDEN), nn.ReLU(), linear(HIDDEN, KEYS), nn.Sigmoid())

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)


class Transition(nn.Module):
    """A gate between a linear step and a step by a network."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Sequential(linear(STATE, HIDDEN), nn.ReLU(), linear(HIDDEN, STATE), nn.Sigmoid())
        self.propose = nn.Sequential(linear(STATE, HIDDEN), nn.ReLU(), linear(HIDDEN, STATE))
        self.loc, self.scale = linear(STATE, STATE), linear(STATE, STATE)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        gate, proposed = self.gate(z), self.propose(z)
        return (1 - gate) * self.loc(z) + gate * proposed, functional.softplus(self.scale(proposed.relu()))


class Combiner(nn.Module):
    """The state before and what is to come, joined."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.loc, self.scale = linear(STATE, HIDDEN), linear(HIDDEN, STATE), linear(HIDDEN, STATE)

    def forward(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        joined = 0.5 * (self.hidden(z).tanh() + h)
        return self.loc(joined), 0.3 + functional.softplus(self.scale(joined))


class DeepMarkov(nn.Module):
    """Sequences of several lengths: masks, a recurrent network over reversed sequences, a scale for annealing."""

    def __init__(self) -> None:
        super().__init__()
        self.emitter, self.transition, self.combiner = Emitter(), Transition(), Combiner()
        self.rnn = nn.RNN(KEYS, HIDDEN, nonlinearity="relu", batch_first=True)
        self.start, self.guide_start = nn.Parameter(torch.zeros(STATE)), nn.Parameter(torch.zeros(STATE))
        self.h_0 = nn.Parameter(torch.zeros(1, 1, HIDDEN))

    def model(self, x: Tensor, backward: Tensor, mask: Tensor, lengths: Tensor, annealing: float = 1.0) -> None:
        pyro.module("dmm", self)
        previous = self.start.expand(x.size(0), self.start.size(0))
        with pyro.plate("z_minibatch", len(x)):
            for t in pyro.markov(range(1, x.size(1) + 1)):
                loc, scale = self.transition(previous)
                with poutine.scale(scale=annealing):
                    z = pyro.sample(f"z_{t}", dist.Normal(loc, scale).mask(mask[:, t - 1 : t]).to_event(1))
                keys = dist.Bernoulli(self.emitter(z)).mask(mask[:, t - 1 : t]).to_event(1)
                pyro.sample(f"x_{t}", keys, obs=x[:, t - 1, :])
                previous = z

    def guide(self, x: Tensor, backward: Tensor, mask: Tensor, lengths: Tensor, annealing: float = 1.0) -> None:
        pyro.module("dmm", self)
        h = self.rnn(backward, self.h_0.expand(1, x.size(0), HIDDEN).contiguous())[0]
        h = turned(pad_packed_sequence(h, batch_first=True)[0] if isinstance(h, PackedSequence) else h, lengths)
        previous = self.guide_start.expand(x.size(0), self.guide_start.size(0))
        with pyro.plate("z_minibatch", len(x)):
            for t in pyro.markov(range(1, x.size(1) + 1)):
                loc, scale = self.combiner(previous, h[:, t - 1, :])
                with poutine.scale(scale=annealing):
                    z = pyro.sample(f"z_{t}", dist.Normal(loc, scale).mask(mask[:, t - 1 : t]).to_event(1))
                previous = z

    def log_p(self, x: Tensor, lengths: Tensor) -> Tensor:
        """The forward algorithm, the states gone through on a grid."""
        step = 0.1
        grid = torch.arange(-8.0, 8.0, step)[:, None]
        loc, scale = self.transition(grid)
        moves = dist.Normal(loc.T, scale.T).log_prob(grid) + math.log(step)  # to, from
        first = dist.Normal(*self.transition(self.start[None])).log_prob(grid)[:, 0] + math.log(step)
        seen = dist.Bernoulli(self.emitter(grid)[:, None, None]).log_prob(x).sum(-1)  # grid, datum, time
        return torch.stack([_forward(first, moves, seen[:, i, :n]) for i, n in enumerate(lengths.tolist())])


def _forward(first: Tensor, moves: Tensor, seen: Tensor) -> Tensor:
    state = first + seen[:, 0]
    for t in range(1, seen.shape[1]):
        state = (moves + state).logsumexp(1) + seen[:, t]
    return state.logsumexp(0)


def turned(x: Tensor, lengths: Tensor) -> Tensor:
    """Each sequence backward, its padding left where it is."""
    result = torch.zeros_like(x)
    for i, n in enumerate(lengths.tolist()):
        result[i, :n] = x[i, :n].flip(0)
    return result


def deep_markov(packed: bool = False) -> Case:
    pair, lengths = DeepMarkov(), torch.tensor(LENGTHS)
    mask = torch.arange(STEPS) < lengths[:, None]
    x = torch.bernoulli(torch.full((len(LENGTHS), STEPS, KEYS), 0.4)) * mask[..., None]
    backward = turned(x, lengths)
    if packed:
        backward = pack_padded_sequence(backward, lengths, batch_first=True, enforce_sorted=False)
    kwargs = {"backward": backward, "mask": mask, "lengths": lengths}
    case = Case(pair.model, pair.guide, (x,), len(x), kwargs, plate="z_minibatch", modules=(pair,))
    return case.with_exact(lambda: pair.log_p(x, lengths).detach())


STATES, TIMES, LATENT = 3, 5, 2


class HiddenMarkov(nn.Module):
    """A latent vector moves the means of a hidden Markov model with discrete states, which is the likelihood."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.means = linear(TIMES, 2 * LATENT), linear(LATENT, STATES)
        self.transition = nn.Parameter(torch.randn(STATES, STATES))

    def latent(self, x: Tensor) -> Tensor:
        return pyro.sample("z", dist.Normal(torch.zeros(x.shape[0], LATENT), 1.0).to_event(1))

    def by_distribution(self, x: Tensor) -> None:
        pyro.module("hmm", self)
        with pyro.plate("sequences", x.shape[0]):
            given_state = dist.Normal(self.means(self.latent(x)).unsqueeze(1), 1.0)
            first, moves = torch.zeros(STATES), self.transition.expand(1, STATES, STATES)
            pyro.sample("x", dist.DiscreteHMM(first, moves, given_state, duration=TIMES), obs=x)

    def by_hand(self, x: Tensor) -> None:
        """The states summed over in a loop that names axes from the left, its result a factor."""
        pyro.module("hmm", self)
        with pyro.plate("sequences", x.shape[0]):
            means, moves = self.means(self.latent(x)), self.transition.log_softmax(1)
            state = torch.full_like(means, -math.log(STATES))
            for t in range(x.shape[1]):
                state = (state.unsqueeze(2) + moves).logsumexp(dim=1) + dist.Normal(means, 1.0).log_prob(x[:, t : t + 1])
            pyro.factor("log_p", state.logsumexp(dim=1))

    def guide(self, x: Tensor) -> None:
        pyro.module("hmm", self)
        with pyro.plate("sequences", x.shape[0]):
            loc, log_scale = self.encoder(x).chunk(2, 1)
            pyro.sample("z", dist.Normal(0.2 * loc, (0.1 * log_scale).exp()).to_event(1))


def hidden_markov(by_hand: bool = False) -> Case:
    pair = HiddenMarkov()
    model = pair.by_hand if by_hand else pair.by_distribution
    case = Case(model, pair.guide, (torch.randn(3, TIMES),), 3, plate="sequences", modules=(pair,))
    return case.with_exact(lambda: over_grid(case, "z", LATENT))


WALK = 2


class Walk(nn.Module):
    """A random walk seen through coins; the drift is a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.log_drift = nn.Parameter(torch.tensor(-0.2))
        self.encoder = linear(WALK, WALK)

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", x.shape[0]):
            z = 0.0
            for t in range(x.shape[1]):
                z = pyro.sample(f"state_{t}", dist.Normal(z, self.log_drift.exp()))
                pyro.sample(f"obs_{t}", dist.Bernoulli(logits=z), obs=x[:, t])

    def guide(self, x: Tensor) -> None:
        """One joint draw, unpacked by its place from the left into points."""
        pyro.module("walk", self)
        with pyro.plate("data", x.shape[0]):
            scale = torch.tensor([[0.9, 0.0], [0.4, 1.1]])
            joint = dist.MultivariateNormal(0.2 * self.encoder(x), scale_tril=scale)
            states = pyro.sample("states", joint, infer={"is_auxiliary": True})
            for t in range(WALK):
                pyro.sample(f"state_{t}", dist.Delta(states[:, t]))


class WalkGuide(EasyGuide):
    """The same by Pyro's helper for guides, all states in one group, or each a point."""

    def __init__(self, model, point: bool) -> None:
        super().__init__(model)
        self.point, self.encoder = point, linear(WALK, WALK)

    def guide(self, x: Tensor) -> None:
        pyro.module("walk_guide", self.encoder)
        if self.point:
            with self.plate("data", x.shape[0]):
                for t in range(WALK):
                    self.map_estimate(f"state_{t}")
            return
        group = self.group(match="state_[0-9]*")
        diagonal = pyro.param("diagonal", torch.full(group.event_shape, 0.6))
        factor = pyro.param("factor", 0.5 * torch.ones(*group.event_shape, 1))
        with self.plate("data", x.shape[0]):
            group.sample("states", dist.LowRankMultivariateNormal(0.2 * self.encoder(x), factor, diagonal))


def walk(how: str) -> Case:
    pair = Walk()
    guide = pair.guide if how == "unpacked" else WalkGuide(pair.model, point=how == "point")
    case = Case(pair.model, guide, (torch.bernoulli(torch.full((4, WALK), 0.5)),), 4, modules=(pair,))
    return case.with_exact(lambda: over_values(case, walks(case.size)))


def walks(size: int) -> list[tuple[dict[str, Tensor], float]]:
    step = 0.5
    axis = torch.arange(-6.0, 6.5, step)
    nodes = torch.cartesian_prod(*[axis] * WALK)
    return [({f"state_{t}": z[t].expand(size) for t in range(WALK)}, WALK * math.log(step)) for z in nodes]


ROWS = [
    Row("dmm, padded", deep_markov),
    Row("dmm, packed", lambda: deep_markov(packed=True), no_batches="backward"),
    Row("hmm, a distribution", hidden_markov),
    Row("hmm, summed by hand", lambda: hidden_markov(by_hand=True)),
    Row("random walk, a joint draw unpacked", lambda: walk("unpacked")),
    Row("random walk, EasyGuide's group", lambda: walk("group")),
    Row("random walk, EasyGuide's map_estimate", lambda: walk("point"), no_likelihood="state_0"),
]
