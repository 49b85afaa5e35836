"""Training leaves programs as they were written, modes, buffers and state, and says before it begins what would fail."""

from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from checks import refused, warned
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.utils.checkpoint import checkpoint

import pyrovae
from pyrovae import ELBO, IWAE
from pyrovae.compiling.fallback import NotCompiledWarning
from pyrovae.engine.particles import ParticlesInTurnWarning
from pyrovae.training import EvaluationModeWarning


class Pair:
    """A pair of functions whose encoder has a layer that a test is about."""

    def __init__(self, layer: nn.Module | None = None, size: int = 4) -> None:
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4) if layer is None else layer, nn.Linear(size, 4))
        self.decoder = nn.Linear(2, 4)
        self.x = torch.randn(8, 4)

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            loc, scale = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))

    def fit(self, **settings):
        given = {"data": self.x, "epochs": 1, "batch_size": 8, "progress": False, **settings}
        return pyrovae.fit((self.model, self.guide), given.pop("data"), **given)


uses = {
    "SVI with Trace_ELBO": lambda pair: SVI(
        pair.model,
        pair.guide,
        pyro.optim.Adam({"lr": 1e-3}),
        Trace_ELBO(),  # pyright: ignore
    ).step(pair.x),
    "SVI": lambda pair: SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 1e-3}), ELBO()).step(pair.x),
    "the loss": lambda pair: ELBO()(pair.model, pair.guide)(pair.x),
    "log_weights": lambda pair: pyrovae.log_weights(pair, pair.x),
    "fit": lambda pair: pair.fit(),
    "fit, recorded": lambda pair: pair.fit(compile=True),
    "compile": lambda pair: pyrovae.compile(ELBO()(pair.model, pair.guide))(pair.x),
}


@pytest.mark.parametrize("use", uses.values(), ids=uses)
def test_a_batch_is_counted_once(use, unfused):
    pair = Pair()
    use(pair)
    assert pair.encoder[1].num_batches_tracked == 1


class TestModes:
    def test_a_frozen_layer_stays_frozen_and_is_named_once(self):
        pair = Pair()
        pair.encoder[1].eval()
        with warned("others.0.1", "train()", category=EvaluationModeWarning) as told:
            pair.fit(epochs=2, validation=pair.x)
        assert len(told) == 1
        assert pair.encoder[1].num_batches_tracked == 0
        assert [part.training for part in pair.encoder] == [True, False, True]

    def test_where_all_of_it_is_in_evaluation_mode_all_of_it_trains(self):
        pair = Pair()
        pair.encoder.eval(), pair.decoder.eval()
        pair.fit()
        assert pair.encoder[1].num_batches_tracked == 1
        assert not pair.encoder.training

    def test_the_remedy_of_an_estimator_that_runs_a_guide_twice_can_be_followed(self):
        pair = Pair(nn.Dropout(0.5))
        with refused("eval()", 'estimator="reparameterized"'):
            pair.fit(objective=IWAE(2, "stl"))
        pair.encoder[1].eval()
        with pytest.warns(EvaluationModeWarning):
            pair.fit(objective=IWAE(2, "stl"))


class Counting(nn.Module):
    """A layer that counts its calls, in Python."""

    def __init__(self, matters: bool) -> None:
        super().__init__()
        self.calls = 0
        self._matters = matters

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x / self.calls if self._matters else x


class Replacing(nn.Module):
    """A layer that keeps an average in a plain attribute, and replaces it."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.zeros(4)

    def forward(self, x: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return x - self.mean


class TestWhatPythonRemembers:
    @pytest.mark.parametrize(
        ("layer", "named"), [(Counting(True), "Counting.calls"), (Replacing(), "Replacing.mean")], ids=["number", "tensor"]
    )
    def test_it_is_no_recordings_to_know(self, layer, named, unfused):
        with warned(named, "buffer", category=NotCompiledWarning):
            Pair(layer).fit(compile=True)

    def test_a_number_that_does_not_matter_is_no_hindrance(self, unfused):
        layer = Counting(False)
        Pair(layer).fit(compile=True)
        assert layer.calls == 0  # a recording has no Python


class Several(nn.Module):
    """Fails on a single row, as batch normalisation does."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.shape[-2] == 1:
            raise ValueError("more than one row, please")
        return x


class TestBeforeAnythingMoves:
    def assert_untouched(self, pair: Pair, words: list[object], **settings) -> None:
        before = [value.clone() for value in (*pair.encoder.state_dict().values(), *pair.decoder.parameters())]
        with refused(*words):
            pair.fit(**settings)
        after = [*pair.encoder.state_dict().values(), *pair.decoder.parameters()]
        assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))

    @pytest.mark.parametrize("compile", [False, True], ids=["eager", "recorded"])
    @pytest.mark.parametrize("objective", [ELBO(estimator="stl"), IWAE(5, "dreg")], ids=["stl", "dreg"])
    def test_dropout_that_a_head_hides_at_the_beginning(self, objective, compile):
        pair = Pair(nn.Dropout())
        nn.init.zeros_(pair.encoder[2].weight)
        self.assert_untouched(pair, ["guide", "eval()", 'estimator="reparameterized"'], objective=objective, compile=compile)

    @pytest.mark.parametrize("layer", [None, Several()], ids=["batch norm", "a network"])
    def test_a_last_batch_of_one(self, layer):
        self.assert_untouched(Pair(layer), [1, 9, "more", "batch_size"], data=torch.randn(9, 4))

    @pytest.mark.parametrize(
        "scheduler",
        [
            lambda made: lr_scheduler.OneCycleLR(made, 0.1, total_steps=3),
            lambda made: lr_scheduler.LambdaLR(made, lambda epoch: [1.0, 0.5, 0.2, 0.1][epoch]),
        ],
        ids=["it ends", "its function fails"],
    )
    def test_a_schedule_that_ends_before_the_training(self, scheduler):
        self.assert_untouched(Pair(), ["schedule", 4, 9], scheduler=scheduler, epochs=9)

    @pytest.mark.parametrize(
        "scheduler",
        [
            lambda made: lr_scheduler.OneCycleLR(made, 0.1, total_steps=3),
            lambda made: lr_scheduler.ReduceLROnPlateau(made),
            lambda made: lr_scheduler.SequentialLR(
                made, [lr_scheduler.ConstantLR(made), lr_scheduler.ExponentialLR(made, 0.9)], [2]
            ),
        ],
        ids=["one cycle", "plateau", "two"],
    )
    def test_a_schedule_that_lasts(self, scheduler):
        rates = [epoch["learning_rate"] for epoch in Pair().fit(scheduler=scheduler, epochs=3).metrics]
        made = torch.optim.Adam(nn.Linear(1, 1).parameters(), lr=1e-3)
        scheduler(made)
        assert rates[0] == made.param_groups[0]["lr"]

    def test_an_optimiser_of_sparse_gradients(self):
        self.assert_untouched(Pair(), ["SparseAdam", "partial(torch.optim.Adam, lr=1e-3)"], optimizer=torch.optim.SparseAdam)

    def test_a_sparse_gradient(self):
        class Looked(nn.Module):
            def __init__(self):
                super().__init__()
                self.table = nn.Embedding(3, 4, sparse=True)

            def forward(self, x):
                return self.table((x[..., 0] > 0).long())

        self.assert_untouched(Pair(Looked()), ["others.0.1.table.weight", "sparse=False"])

    @pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
    @pytest.mark.filterwarnings("ignore::pyrovae.evaluation.ImportanceSamplingWarning")
    @pytest.mark.parametrize("compile", [False, True], ids=["eager", "recorded"])
    def test_checkpoints_that_need_backward(self, compile):
        class Again(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return checkpoint(torch.tanh, x, use_reentrant=True)

        pair = Pair(Again())
        self.assert_untouched(pair, ["use_reentrant=True", "checkpoint(..., use_reentrant=False)"], compile=compile)
        ELBO()(pair.model, pair.guide)(pair.x).backward()
        assert pyrovae.log_likelihood(pair, pair.x, 10).log_p.shape == (8,)

    def test_a_hook_that_no_step_would_call(self):
        pair = Pair()
        pair.decoder.weight.register_post_accumulate_grad_hook(lambda _: None)
        self.assert_untouched(pair, ["others.1.weight", "register_hook"])

    def test_layers_without_a_shape(self):
        pair = Pair(nn.LazyLinear(4))
        with refused("network(x)"):
            pair.fit()
        vae = pyrovae.VAE((4,), latent_dim=2, encoder=lambda *_: nn.LazyLinear(4))
        with refused("LazyLinear", "network(x)"):
            pyrovae.fit(vae, pair.x.sigmoid(), epochs=1, progress=False)
        pair.encoder(pair.x)
        pair.fit()


@pytest.mark.filterwarnings("ignore::pyrovae.evaluation.ImportanceSamplingWarning")
def test_an_autocast_around_it_is_without_effect():
    def fitted() -> list[Tensor]:
        pair = Pair(nn.Tanh())
        pair.fit(epochs=2)
        found = pyrovae.log_likelihood(pair, pair.x, 50)
        return [found.log_p, *pair.encoder.parameters()]

    plain = fitted()
    with torch.autocast("cpu", torch.bfloat16):
        assert all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(plain, fitted(), strict=True))


class Remembering(nn.Module):
    """A layer with a state that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.words = ["one"]

    def get_extra_state(self) -> list[str]:
        return self.words

    def set_extra_state(self, state: list[str]) -> None:
        self.words = state

    def forward(self, x: Tensor) -> Tensor:
        return x


class Holding(nn.Module):
    """A layer with a buffer of some kind."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("held", value)

    def forward(self, x: Tensor) -> Tensor:
        return x


class TestWhatARunFolderHolds:
    @pytest.mark.parametrize(
        ("layer", "words"),
        [
            (Remembering(), ["'others.0.1._extra_state'", "list"]),
            (Holding(torch.ones(2).to_sparse()), ["'others.0.1.held'", "torch.sparse_coo"]),
            (Holding(torch.ones(2, dtype=torch.complex128)), ["'others.0.1.held'", "torch.complex128"]),
        ],
        ids=["extra state", "sparse", "complex"],
    )
    def test_another_kind_is_refused_before_training(self, layer, words, tmp_path):
        pair = Pair(layer)
        before = pair.decoder.weight.clone()
        with refused(*words, "buffer"):
            pair.fit(run=tmp_path / "run")
        assert torch.equal(pair.decoder.weight, before)

    def test_without_a_folder_it_trains(self):
        layer = Remembering()
        pair = Pair(layer)
        pair.fit(validation=pair.x, epochs=2)
        assert layer.words == ["one"]


class Handing(nn.Module):
    """Its Python takes all numbers of a tensor, and sees what it would never be told again."""

    def __init__(self, take) -> None:
        super().__init__()
        self.take = take

    def forward(self, x: Tensor) -> Tensor:
        return x * (1.0 + float(np.sum(self.take(x.detach())) > 0))


@pytest.mark.parametrize("take", [Tensor.tolist, Tensor.numpy, np.asarray], ids=["tolist", "numpy", "an array"])
def test_numbers_that_are_handed_to_python_are_not_recorded(take, unfused):
    with warned("Python", "test_as_written.py", "self.take(x.detach())", category=NotCompiledWarning):
        Pair(Handing(take)).fit(compile=True)


@pytest.mark.parametrize("use", ["fit, recorded", "compile"])
def test_a_gradient_that_is_not_the_programs_is_seen(use, monkeypatch):
    def turned(graph, inputs, options):
        return lambda *inputs: [None if value is None else -value for value in graph(*inputs)]

    monkeypatch.setattr(torch._inductor, "compile", turned)
    with warned("others.0.0.weight", "gradient", category=NotCompiledWarning):
        uses[use](Pair())


@pytest.mark.filterwarnings("ignore::pyrovae.training.UnmovedParameterWarning")
def test_particles_run_in_turn_where_at_once_they_have_no_gradient():
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 4)

        def forward(self, z):
            return checkpoint(self.linear, z, use_reentrant=False).softmax(1)  # of a single run's last axis

    pair = Pair(nn.Tanh())
    pair.decoder = Checkpointed()
    with warned(2, "mapped", "gradient", category=ParticlesInTurnWarning):
        loss = ELBO(2)(pair.model, pair.guide)(pair.x)
    assert all(value.isfinite().all() for value in torch.autograd.grad(loss, [*pair.decoder.parameters()]))


def test_what_all_data_share_is_a_partial_argument(unfused, float64):
    """The neighbours in a graph, say: what fits, and what is estimated, is as with programs that have them within."""
    neighbours = torch.eye(4).roll(1, 0)
    found = []
    for within in (True, False):
        pair = Pair(nn.Identity())
        x = pair.x

        def model(x: Tensor, neighbours: Tensor | None = None, pair: Pair = pair) -> None:
            pair.model(x)

        def guide(x: Tensor, neighbours: Tensor = neighbours, pair: Pair = pair) -> None:
            pyro.module("encoder", pair.encoder)
            with pyro.plate("data", len(x)):
                loc, scale = pair.encoder(x @ neighbours).chunk(2, -1)
                pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))

        programs = (
            (model, guide) if within else (partial(model, neighbours=neighbours), partial(guide, neighbours=neighbours))
        )
        history = pyrovae.fit(programs, x, epochs=2, batch_size=4, compile=True, progress=False)
        estimate = pyrovae.log_likelihood(programs, x, 200, compile=True)
        found.append([history.metrics[-1]["train_bound"], *estimate.log_p])
    assert found[0] == pytest.approx(found[1], abs=1e-10)
