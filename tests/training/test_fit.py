import itertools
import math
from functools import partial
from importlib import import_module

import pyro
import pyro.distributions as dist
import pytest
import torch
from checks import refused, warned
from programs import LinearGaussian, gaussian_kl
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule
from torch import Tensor, nn
from user_network import Normalised

from pyrovae import ELBO, VAE, fit, log_weights
from pyrovae.data import Binarize, Digits, Split
from pyrovae.objectives import CUBO, TCVAE, BetaELBO
from pyrovae.runs import Run
from pyrovae.runs.checkpoint import load_into, load_training, load_weights
from pyrovae.training import EvaluationModeWarning
from pyrovae.training.progress import Progress
from pyrovae.training.steps import Steps
from pyrovae.training.unmoved_parameters import UnmovedParameterWarning

fitting = import_module("pyrovae.training.fit")  # `pyrovae.training.fit` is also its function
quiet = partial(fit, progress=False, compile=False)
sgd = partial(torch.optim.SGD, lr=0.1)


def vae(dim: int = 4) -> VAE:
    torch.manual_seed(0)
    return VAE((dim,), latent_dim=2)


def binary(number: int = 60, dim: int = 4) -> Tensor:
    return torch.rand(number, dim, generator=torch.Generator().manual_seed(1)).round()


def parameters(pair: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(pair.parameters()).detach().clone()


class Amortized(PyroModule):
    """A diagonal Gaussian guide whose means are linear in the data, as those of the exact posterior are."""

    def __init__(self, data_dim: int = 3, latent_dim: int = 2) -> None:
        super().__init__()
        self.loc = nn.Linear(data_dim, latent_dim)
        self.log_scale = nn.Parameter(torch.zeros(latent_dim))

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.loc(x), self.log_scale.exp()).to_event(1))


def test_reaches_the_maximum_of_a_known_likelihood(float64):
    """Probabilistic PCA from 1 to 2 dimensions reaches every Gaussian, and its posterior is in the guide's family."""
    x = LinearGaussian(2, 1).data(400)
    best = dist.MultivariateNormal(x.mean(0), torch.cov(x.T, correction=0)).log_prob(x).mean().item()
    model, guide = LinearGaussian(2, 1), Amortized(2, 1)
    nn.init.normal_(model.weight)
    optimizer = partial(torch.optim.Adam, lr=0.1)
    schedule = partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.985)
    objective = ELBO(10, analytic_kl=True)
    quiet((model, guide), x, objective=objective, epochs=300, batch_size=200, optimizer=optimizer, scheduler=schedule)
    reached = model.log_p(x).mean().item()
    assert best - 1e-3 < reached <= best
    assert ELBO(2000)(model, guide).measure(x).bound.mean().item() == pytest.approx(reached, abs=1e-3)


def test_same_seed_same_run_and_another_seed_another():
    def train(seed: int) -> Tensor:
        pair = vae()
        quiet(pair, binary(), epochs=2, batch_size=16, seed=seed)
        return parameters(pair)

    assert torch.equal(train(1), train(1))
    assert not torch.equal(train(1), train(2))


def test_leaves_the_callers_random_numbers_alone():
    pair, before = vae(), torch.get_rng_state()
    quiet(pair, binary(), epochs=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_one_step_is_the_gradient_of_the_mean_bound(float64):
    """SGD, one batch, so many particles that little noise is left: the step is lr times the gradient of the mean ELBO."""
    pair, x = vae().double(), binary().double()
    before = parameters(pair)
    quiet(pair, x, epochs=1, batch_size=60, objective=ELBO(1000), optimizer=sgd)
    step = parameters(pair) - before
    copy = vae().double()
    (-log_weights(copy, x, num_samples=1000).total.mean()).backward()
    gradient = nn.utils.parameters_to_vector([value.grad for value in copy.parameters()])
    cosine = torch.dot(step, -0.1 * gradient) / step.norm() / (0.1 * gradient.norm())
    assert cosine > 0.999
    assert step.norm().item() == pytest.approx(0.1 * gradient.norm().item(), rel=0.02)


def test_metrics_are_means_over_data():
    pair, x = vae(), binary(50)
    with torch.no_grad():
        for value in pair.guide.parameters():
            value.zero_()
        for value in pair.model.parameters():
            value.zero_()
    still = partial(torch.optim.SGD, lr=1e-30)
    with pytest.warns(UnmovedParameterWarning):
        history = quiet(pair, x, x[:7], epochs=1, batch_size=16, optimizer=still, objective=ELBO(analytic_kl=True))
    metrics = history.metrics[0]
    scale = math.log(2)  # softplus(0)
    kl = 2 * (0.5 * (scale**2 - 1) - math.log(scale))
    for part in ("train", "validation"):
        assert metrics[f"{part}_reconstruction"] == pytest.approx(4 * math.log(0.5), rel=1e-6)
        assert metrics[f"{part}_kl"] == pytest.approx(kl, rel=1e-4)
        assert metrics[f"{part}_bound"] == pytest.approx(4 * math.log(0.5) - kl, rel=1e-4)


def test_keeps_the_best_epoch_and_stops_when_patience_is_over():
    pair, x = vae(), binary(20)
    wild = partial(torch.optim.SGD, lr=0.5)
    history = quiet(pair, x, 1 - x[:10], epochs=200, batch_size=20, optimizer=wild, patience=3)
    bounds = [epoch["validation_bound"] for epoch in history.metrics]
    assert len(bounds) < 200
    assert history.best_epoch == bounds.index(max(bounds)) + 1 == len(bounds) - 3
    again = vae()
    quiet(again, x, 1 - x[:10], epochs=history.best_epoch, batch_size=20, optimizer=wild)
    assert torch.equal(parameters(pair), parameters(again))


def test_an_upper_bound_is_lowered_and_its_best_epoch_the_lowest(float64):
    model, guide = LinearGaussian(2, 1).requires_grad_(False), Amortized(2, 1)
    x = model.data(200)
    far = gaussian_kl((guide.loc(x).detach(), torch.eye(1)), model.posterior(x)).mean()
    settings = {"epochs": 40, "batch_size": 200, "optimizer": partial(torch.optim.Adam, lr=0.05)}
    history = quiet((model, guide), x, x, objective=CUBO(2.0, 50), **settings)
    bounds = [epoch["validation_bound"] for epoch in history.metrics]
    assert history.best_epoch == bounds.index(min(bounds)) + 1
    assert bounds[0] - 0.1 > min(bounds) > model.log_p(x).mean()
    near = (guide.loc(x).detach(), (2 * guide.log_scale).exp().diag().detach())
    assert gaussian_kl(near, model.posterior(x)).mean() < 0.1 * far


def test_the_steps_of_a_warm_up_are_in_the_training_state_and_not_in_the_weights(tmp_path):
    pair, x = vae(), binary(40)
    fit(pair, x, epochs=3, batch_size=20, objective=BetaELBO(warmup=4), run=str(tmp_path / "run"))
    checkpoints = tmp_path / "run" / "checkpoints"
    assert load_training(checkpoints)["buffers"]["state.count"] == 6
    again = vae()
    load_into(again, load_weights(checkpoints), checkpoints)
    assert torch.equal(parameters(again), parameters(pair))


def test_parts_of_an_objective_are_among_the_metrics():
    pair = vae()
    history = quiet(pair, binary(), binary(20), epochs=1, batch_size=16, objective=TCVAE())
    last = history.metrics[-1]
    for part in ("train", "validation"):
        parts = [last[f"{part}_{name}"] for name in TCVAE.parts]
        assert sum(parts) == pytest.approx(last[f"{part}_kl"], abs=1e-4)
        assert all(parts)


def test_validation_noise_is_the_same_in_every_epoch():
    pair, x = vae(), binary()
    still = partial(torch.optim.SGD, lr=1e-30)
    with pytest.warns(UnmovedParameterWarning):
        history = quiet(pair, x, x, epochs=3, optimizer=still)
    assert len({epoch["validation_bound"] for epoch in history.metrics}) == 1
    assert len({epoch["train_bound"] for epoch in history.metrics}) == 3


def test_schedule_steps_once_an_epoch():
    pair = vae()
    halve = partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    history = quiet(pair, binary(), epochs=3, batch_size=16, scheduler=halve)
    assert [epoch["learning_rate"] for epoch in history.metrics] == [1e-3, 5e-4, 2.5e-4]


def test_dynamic_binarisation_is_drawn_anew_in_every_epoch():
    seen = []

    def model(x):
        seen.append(x.clone())
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=z * weight).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("loc", torch.zeros(1)), 1.0).to_event(1))

    weight = torch.ones(3)
    grey = Split(torch.full((40, 3), 0.5), None, torch.arange(40).numpy(), Binarize.parse("dynamic"))
    quiet((model, guide), grey, grey, epochs=2, batch_size=40)
    first, held_out, second, held_out_again = seen[-4:]
    assert not torch.equal(first, second)
    assert torch.equal(held_out, held_out_again)


def test_trains_plain_functions_with_their_modules_and_parameters(float64):
    decoder, encoder = nn.Linear(2, 3), nn.Linear(3, 2)

    def model(x):
        pyro.module("decoder", decoder)
        scale = pyro.param("scale", torch.tensor(2.0), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), scale).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(encoder(x), pyro.param("width", torch.tensor(0.5))).to_event(1))

    before = [value.detach().clone() for value in (*decoder.parameters(), *encoder.parameters())]
    x = LinearGaussian().data(100)
    history = quiet((model, guide), x, epochs=30, optimizer=partial(torch.optim.Adam, lr=1e-2))
    after = [*decoder.parameters(), *encoder.parameters()]
    assert all(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert history.metrics[-1]["train_bound"] > history.metrics[0]["train_bound"] + 0.5
    assert {*pyro.get_param_store()} == {"scale", "width"}
    assert pyro.param("scale") != 2.0
    trained = log_weights((model, guide), x, num_samples=500).total.mean().item()
    assert trained == pytest.approx(history.metrics[-1]["train_bound"], abs=0.5)


def test_names_the_parameters_that_the_first_step_did_not_move():
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(2, 4), nn.Linear(2, 4)

        def forward(self, z):
            return self.used(z)

    pair = VAE((4,), latent_dim=2, decoder=lambda *_: Idle())
    with warned("model.decoder.idle.weight", "requires_grad=False", category=UnmovedParameterWarning):
        quiet(pair, binary(), epochs=1)


class Exploding(nn.Module):
    """A decoder that gives ``bad`` from its third training step on."""

    def __init__(self, bad: float) -> None:
        super().__init__()
        self.linear, self.steps, self.bad = nn.Linear(2, 4), 0, bad

    def forward(self, z):
        self.steps += self.training and torch.is_grad_enabled()
        return self.linear(z) * (self.bad if self.steps > 2 else 1.0)


def test_a_loss_that_is_not_finite_stops_before_the_step_and_names_the_site(tmp_path):
    decoder = Exploding(math.nan)
    pair = VAE((4,), latent_dim=2, decoder=lambda *_: decoder)
    with refused("loss", "nan", "'x'", "model", "datum 0"):
        quiet(pair, binary(40), epochs=5, batch_size=20, run=str(tmp_path / "run"))
    assert all(value.isfinite().all() for value in pair.parameters())
    assert (tmp_path / "run" / "checkpoints" / "epoch-00001" / "weights.safetensors").is_file()


def test_a_gradient_that_is_not_finite_stops_too():
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 4)

        def forward(self, z):
            return (self.linear(z) * 0).sqrt()

    pair = VAE((4,), latent_dim=2, decoder=lambda *_: Root())
    with refused("gradient", "model.decoder.linear.weight"):
        quiet(pair, binary(), epochs=1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": 0}, ["epochs", 0, 1]),
        ({"batch_size": 0}, ["batch_size", 0, 1]),
        ({"patience": 3}, ["patience", "validation"]),
        ({"device": "cuda:99"}, ["device", "'cuda:99'", "'cpu'"]),
        ({"optimizer": partial(torch.optim.Adam, lr=-1.0)}, ["optimiser", -1.0]),
        (
            {"optimizer": torch.optim.LBFGS},
            ["LBFGS", "partial(torch.optim.Adam, lr=1e-3)"],
        ),
        ({"optimizer": lambda _: pyro.optim.Adam({"lr": 0.1})}, ["PyroOptim", "pyro.optim", "SVI"]),
    ],
)
def test_refuses_settings(settings, words, tmp_path):
    pair = vae()
    with refused(*words):
        quiet(pair, binary(), run=str(tmp_path / "run"), **settings)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("where", [3, 57])
def test_refuses_grey_pixels_wherever_they_are(where, tmp_path):
    pair, x = vae(), binary()
    x[where, 1] = 0.37
    with refused(1, "Bernoulli, {0, 1}", 0.37):
        quiet(pair, x, batch_size=8, run=str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


class Counted(LinearGaussian):
    """It notes how many data it is shown, and may refuse other numbers than one."""

    def __init__(self, only: int | None = None) -> None:
        super().__init__(3, 2)
        self.only, self.seen = only, []

    def forward(self, x: Tensor) -> None:
        self.seen.append(len(x))
        if len(x) != (self.only or len(x)):
            raise TypeError(f"made for {self.only} data")
        super().forward(x)


def test_programs_are_shown_many_data_at_once_before_they_are_trained(monkeypatch):
    monkeypatch.setattr("pyrovae.training.dry_run.AT_ONCE", 3 * 25)
    model = Counted()
    quiet((model, Amortized()), LinearGaussian().data(60), epochs=1, batch_size=20)
    look = [20] * 6  # of programs in training, and of their gradient, which were looked at in evaluation before
    assert model.seen[-12:] == [25, 25, 10, *look, 20, 20, 20]
    quiet((model, Amortized()), LinearGaussian().data(60), epochs=1, batch_size=30)
    assert model.seen[-4:] == [30, 30, 30, 30]


def test_a_program_may_be_made_for_one_size_of_batch():
    model = Counted(only=20)
    assert len(quiet((model, Amortized()), LinearGaussian().data(60), epochs=2, batch_size=20).metrics) == 2
    with pytest.raises(TypeError, match="made for 20 data"):
        quiet((model, Amortized()), LinearGaussian().data(50), epochs=1, batch_size=20)


def test_refuses_data_of_another_shape_or_kind():
    pair = vae()
    with refused((60, 5), "(*batch, 4)"):
        quiet(pair, binary(dim=5))
    with refused("data", "list", "Split"):
        quiet(pair, [1, 2])
    with refused("data", "empty"):
        quiet(pair, torch.zeros(0, 4))


def test_reads_data_sets_that_are_not_held_in_memory():
    class Stream(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 60

        def __getitem__(self, index: int) -> Tensor:
            return binary()[index]

    streamed, held = vae(), vae()
    quiet(streamed, Stream(), epochs=2, batch_size=16)
    quiet(held, binary(), epochs=2, batch_size=16)
    torch.testing.assert_close(parameters(streamed), parameters(held))


def test_a_batch_of_all_data_keeps_their_order_for_guides_with_parameters_for_each():
    """As AutoNormal is; smaller batches would give each datum the parameters of another."""
    model = LinearGaussian()
    x = model.data(40)
    guide = AutoNormal(model)
    with refused("AutoNormal", "batch_size=40"):
        quiet((model, guide), x, batch_size=20)
    optimizer = partial(torch.optim.Adam, lr=0.05)
    model.requires_grad_(False)
    history = quiet((model, guide), x, epochs=300, batch_size=40, optimizer=optimizer)
    gap = model.log_p(x).mean().item() - ELBO(500)(model, guide).measure(x).bound.mean().item()
    assert 0.0 < gap < 0.3
    assert history.metrics[0]["train_bound"] < history.metrics[-1]["train_bound"]


def test_a_step_does_not_grow_with_the_scale_of_a_subsampled_plate(float64):
    """A plate over 1,000 data of which each batch holds 10 weighs the batch by 100; the mean over data does not."""

    def step(size: int) -> Tensor:
        weight = nn.Parameter(torch.ones(1))

        def model(x):
            pyro.param("weight", weight)
            with pyro.plate("data", size, subsample=torch.arange(len(x))):
                z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(z + pyro.param("weight"), 1.0).to_event(1), obs=x)

        def guide(x):
            with pyro.plate("data", size, subsample=torch.arange(len(x))):
                pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))

        pyro.clear_param_store()
        quiet((model, guide), torch.zeros(10, 1), epochs=1, batch_size=10, optimizer=partial(torch.optim.SGD, lr=0.1))
        return pyro.param("weight").detach() - 1.0

    torch.testing.assert_close(step(1000), step(10))


@pytest.mark.parametrize("training", [True, False])
def test_statistics_come_from_training_steps_only_and_modes_are_put_back(training):
    pair = VAE((4,), latent_dim=2, encoder=Normalised)
    pair.train(training)
    quiet(pair, binary(60), binary(20), epochs=1, batch_size=20)
    norm = pair.guide.encoder.norm
    assert norm.num_batches_tracked == 3
    assert all(module.training == training for module in pair.modules())
    outside = binary(60)
    outside[5, 0] = 0.3
    before = norm.running_mean.clone()
    with refused("'x'", "Bernoulli, {0, 1}", 0.3):
        quiet(pair, outside, epochs=1)
    assert torch.equal(norm.running_mean, before)


def test_a_schedule_that_watches_the_validation_bound():
    pair, x = vae(), binary(20)
    plateau = partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0, factor=0.5, threshold=0.0)
    wild = partial(torch.optim.SGD, lr=0.5)
    history = quiet(pair, x, 1 - x[:10], epochs=12, batch_size=20, optimizer=wild, scheduler=plateau)
    bounds = [epoch["validation_bound"] for epoch in history.metrics]
    rates = [epoch["learning_rate"] for epoch in history.metrics]
    best, rate = -math.inf, 0.5
    for bound, used in zip(bounds, rates, strict=True):
        assert used == rate
        rate, best = (rate, bound) if bound > best else (rate / 2, best)
    assert rates[-1] < 0.5


def test_a_validation_bound_that_is_not_finite_names_the_site():
    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z) * (1.0 if x.max() < 5 else math.inf), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("loc", torch.ones(1)), 0.1).to_event(1))

    decoder, held_out = nn.Linear(1, 2), torch.zeros(20, 2)
    held_out[3] = 9.0
    with refused("loss", "inf", "'x'", "model", "-inf"):
        quiet((model, guide), torch.zeros(20, 2), held_out, epochs=2)


def test_a_warm_up_from_zero_is_no_reason_to_warn():
    pair = vae()
    warm_up = partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda epoch: min(1.0, epoch / 3))
    history = quiet(pair, binary(), epochs=2, scheduler=warm_up)
    assert [epoch["learning_rate"] for epoch in history.metrics] == pytest.approx([0.0, 1e-3 / 3])


def test_a_network_that_pyro_is_not_told_of_is_named():
    told, untold = nn.Linear(4, 2), nn.Linear(2, 4)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=untold(z)).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", told)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(told(x), 1.0).to_event(1))

    with warned("Linear", "pyro.module", "requires_grad=False", category=UnmovedParameterWarning):
        quiet((model, guide), binary(), epochs=1)


def test_numpy_arrays_are_taken_in_torchs_precision():
    pair = vae()
    history = quiet(pair, binary().double().numpy(), epochs=1)
    assert repr(history).startswith("History(1 epochs, the best 1; the last: epoch 1, train_bound -")
    with refused("MLP", "torch.uint8", "x.to(torch.float32)"):
        quiet(pair, binary().to(torch.uint8), epochs=1)


@pytest.mark.parametrize("objective", [ELBO, "IWAE"])
def test_an_objective_is_made_before(objective):
    pair = vae()
    with refused("objective", "pyrovae.IWAE(5)"):
        quiet(pair, binary(), objective=objective)


def test_run_folder_must_be_free(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    with refused(tmp_path / "run", "--resume (resume=True)", "--overwrite (overwrite=True)"):
        Run(tmp_path / "run")
    with refused(tmp_path / "run", "thesis.tex"):
        Run(tmp_path / "run", overwrite=True)
    (tmp_path / "file").touch()
    with refused(tmp_path / "file"):
        Run(tmp_path / "file")


@pytest.mark.cuda
def test_trains_on_cuda():
    data, pair = Digits(binarize="dynamic"), VAE((8, 8), latent_dim=2)
    history = quiet(pair, data.train, data.validation, epochs=3, device="cuda")
    assert history.metrics[-1]["validation_bound"] > history.metrics[0]["validation_bound"]
    assert next(pair.parameters()).is_cuda


def test_compiled_training_is_eager_training(float64, unfused):
    """The whole run: validation, the best epoch, a schedule, a stream of data."""
    settings = {"epochs": 4, "batch_size": 16, "scheduler": partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)}

    def train(compile: bool, wrap) -> tuple[Tensor, list[dict[str, float]]]:
        pair = vae()
        history = fit(pair, wrap(binary()), binary(35), compile=compile, progress=False, **settings)
        assert math.isfinite(history.seconds_to_first_step)
        return parameters(pair), [{k: v for k, v in epoch.items() if k != "seconds"} for epoch in history.metrics]

    for wrap in (lambda x: x, torch.utils.data.TensorDataset):
        (eager, metrics), (fused, fused_metrics) = (train(compile, wrap) for compile in (False, True))
        torch.testing.assert_close(eager, fused, rtol=0, atol=1e-10)
        for one, other in zip(metrics, fused_metrics, strict=True):
            assert one == pytest.approx(other, abs=1e-9)


@pytest.mark.parametrize(("epochs", "compiles"), [(2, False), (7, True)])
def test_only_runs_that_are_long_enough_are_compiled_unasked(epochs, compiles, monkeypatch):
    monkeypatch.setattr(fitting, "WORTHWHILE", 20)
    asked = []
    monkeypatch.setattr(
        fitting, "Steps", lambda *args, compile, **rest: asked.append(compile) or steps(*args, compile=False, **rest)
    )
    pair, steps = vae(), Steps
    fit(pair, binary(), epochs=epochs, batch_size=16, progress=False)
    assert asked == [compiles]


def test_validation_follows_a_program_whose_python_changes(float64, monkeypatch, unfused):
    """As a warm-up's weight may: once training has noticed, validation does not use what was recorded either."""
    monkeypatch.setattr("pyrovae.training.compiled_gradient.CHECK_EVERY", 1)

    def train(compile: bool) -> list[float]:
        pyro.clear_param_store()
        torch.manual_seed(0)
        decoder, now = nn.Linear(2, 3), {"weight": 1.0}

        def model(x):
            pyro.module("decoder", decoder)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(now["weight"] * decoder(z), 1.0).to_event(1), obs=x)

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(pyro.param("loc", torch.zeros(2)), 1.0).to_event(1))

        def rate(epoch: int) -> float:
            now["weight"] = 1.0 + epoch
            return 1.0

        schedule = partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=rate)
        x = torch.ones(8, 3)
        history = fit((model, guide), x, x, epochs=3, batch_size=4, scheduler=schedule, compile=compile, progress=False)
        return [epoch["validation_bound"] for epoch in history.metrics]

    eager = train(False)
    with warned("recorded", "buffer", "number"):
        assert train(True) == pytest.approx(eager, abs=1e-9)


@pytest.mark.parametrize(("delay", "shown"), [(60.0, False), (0.0, True)])
def test_the_bar_is_shown_in_runs_that_take_longer_than_its_delay(delay, shown, monkeypatch, capsys):
    monkeypatch.setattr("pyrovae.training.loop.BAR_DELAY", delay)
    fit(vae(), binary(), epochs=2, compile=False)
    assert ("2/2" in capsys.readouterr().err) == shown


def test_the_bar_is_shown_within_an_epoch_that_takes_longer(monkeypatch, capsys):
    """At a clock that goes on by a second whenever it is looked at."""
    seen, now = [], itertools.count(0.0, 1.0)
    monkeypatch.setattr("tqdm.std.time", lambda: next(now))
    advance = Progress.advance
    monkeypatch.setattr(Progress, "advance", lambda *args: advance(*args) or seen.append(capsys.readouterr().err))
    fit(vae(), binary(), epochs=1, batch_size=10, compile=False)
    shown = [" 0/1 " in said for said in seen]
    assert len(shown) == 6
    assert not shown[0]
    assert all(shown[2:])


def test_warnings_are_of_the_line_that_calls():
    pair, network = vae(), nn.Linear(2, 4)
    pair.model.decoder.layers[0].eval()

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=network(z)).to_event(1), obs=x)

    with pytest.warns(EvaluationModeWarning) as evaluated:
        quiet(pair, binary(), epochs=1)
    with pytest.warns(UnmovedParameterWarning, match="which are not trained") as unknown:
        quiet((model, pair.guide), binary(), epochs=1)
    assert [evaluated[0].filename, unknown[0].filename] == [__file__, __file__]


def test_the_first_batch_of_data_that_are_read_is_shown_before_anything_moves():
    vae, x = VAE((4,), 2), torch.bernoulli(torch.full((20, 4), 0.5))
    before = [value.detach().clone() for value in vae.parameters()]
    with refused("'x'", 0.37):
        fit(vae, x, torch.utils.data.TensorDataset(torch.full((6, 4), 0.37)), epochs=1, batch_size=5, progress=False)
    assert all(torch.equal(now, then) for now, then in zip(vae.parameters(), before, strict=True))
