import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from checks import assert_says, refused, slow_but
from cli.conftest import drawing_left_out
from runs import reseal

from pyrovae import VAE, load, log_weights
from pyrovae.cli import main, rate_distortion_file
from pyrovae.cli.evaluated_data import fingerprint
from pyrovae.cli.reopened import reopen
from pyrovae.cli.train import _mean
from pyrovae.data import Array, Digits
from pyrovae.evaluation import LogLikelihood, inference_gaps
from pyrovae.runs import checkpoint
from pyrovae.runtime.batches import as_batch, as_data

configs = Path(__file__).parents[2] / "configs"
real = [*sorted(path.stem for path in configs.glob("*mnist*.yaml")), "fashion"]
small = [
    *("--config", str(configs / "digits.yaml"), "--training.epochs", "2", "--evaluation.num_samples", "100"),
    *("--model.encoder.hidden", "[8]", "--model.decoder.hidden", "[8]", "--model.latent_dim", "3"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["train", *small, "--run", str(path)]) == 0
    return path


@pytest.fixture
def run(trained, tmp_path_factory):
    """A run of each test's own, for commands write into it."""
    return Path(shutil.copytree(trained, tmp_path_factory.mktemp("runs") / "digits"))


def refusal(capsys, *argv: str) -> str:
    """The one message of a command that must refuse."""
    assert main(argv) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("pyrovae: ")
    return lines[0]


def test_help_is_quick_because_nothing_heavy_is_imported():
    heavy = "{'torch', 'numpy', 'jsonargparse'}"
    script = f"import sys; from pyrovae.cli import main; main(['--help']); sys.exit(bool({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "pyrovae train --config configs/digits.yaml" in done.stdout


def test_version_and_no_command(capsys):
    assert main(["--version"]) == 0
    assert main([]) == 0
    assert "usage: pyrovae" in capsys.readouterr().out


def test_train_writes_what_it_says(run):
    files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    figures = {"loss_curve", "reconstructions", "samples", "latent_map", "bound_against_particles"}
    assert {f"figures/{name}.png" for name in figures} < files
    assert {
        "config.yaml",
        "split.npz",
        "metrics.jsonl",
        "summary.json",
        "log_likelihood.nc",
        "checkpoints/index.json",
    } < files
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
    summary = json.loads((run / "summary.json").read_text())
    estimate = LogLikelihood.from_netcdf(run / "log_likelihood.nc")
    assert summary["log p(x)"] == pytest.approx(estimate.mean)
    assert summary["ELBO"] <= summary["IWAE-5"] <= summary["IWAE-50"] <= summary["log p(x)"]
    assert summary["test data"] == len(estimate.log_p) == 270


def test_the_split_is_on_record(run):
    with np.load(run / "split.npz", allow_pickle=False) as record:
        indices = np.concatenate([record[part] for part in ("train", "validation", "test")])
        assert sorted(indices) == list(range(1797))
        assert tuple(record["event_shape"]) == (8, 8)


def test_config_has_every_default_and_trains_again_to_the_bit(run, tmp_path, undrawn):
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["training"]["optimizer"]["init_args"]["betas"] == [0.9, 0.999]
    assert main(["train", "--config", str(run / "config.yaml"), "--run", str(tmp_path / "again")]) == 0
    ours, again = (checkpoint.load_weights(path / "checkpoints", "last") for path in (run, tmp_path / "again"))
    assert all(torch.equal(ours[name], again[name]) for name in ours)


def test_load_rebuilds_the_pair(run):
    vae = load(run)
    weights = checkpoint.load_weights(run / "checkpoints")
    assert not vae.training
    assert all(torch.equal(value, weights[name]) for name, value in vae.state_dict().items())
    assert log_weights(vae, torch.rand(5, 8, 8), num_samples=3).total.shape == (3, 5)


def test_evaluate_again(run, capsys, undrawn):
    assert main(["evaluate", str(run), "--num_samples", "60", "--limit", "20"]) == 0
    said = capsys.readouterr().out
    assert "60" in said
    assert "summary.json" in said
    assert ".lock" not in said
    assert json.loads((run / "summary.json").read_text())["test data"] == 20


class TestEvaluateToATolerance:
    def evaluate(self, run: Path, *argv: str) -> tuple[LogLikelihood, dict]:
        assert main(["evaluate", str(run), "--limit", "12", *argv]) == 0
        return LogLikelihood.from_netcdf(run / "log_likelihood.nc"), json.loads((run / "summary.json").read_text())

    def test_the_table_the_estimates_and_the_summary_say_what_was_reached(self, run, capsys, undrawn):
        found, summary = self.evaluate(run, "--tolerance", "0.2", "--level", "0.9", "--budget", "90000", "--refine", "2")
        effort = found.effort
        assert (effort.tolerance, effort.level) == (0.2, 0.9)
        assert (effort.evaluations <= 90_000).all()
        assert "log p(x) of 12 data to ±0.2 at 90%, in nats" in capsys.readouterr().out
        assert summary["tolerance"] == 0.2
        assert summary["level of the tolerance"] == 0.9
        assert summary["share within the tolerance"] == effort.share_met
        assert summary["median draws"] == np.median(effort.draws)
        assert summary["median evaluations"] == np.median(effort.evaluations)
        assert "importance samples" not in summary
        assert "amortization gap" in summary
        assert main(["report", str(run)]) == 0

    def test_a_run_is_configured_with_one_that_the_command_line_overrides(self, tmp_path, undrawn):
        run = tmp_path / "run"
        configured = ["--evaluation.tolerance", "0.3", "--evaluation.level", "0.8", "--evaluation.limit", "12"]
        assert main(["train", *small, *configured, "--run", str(run)]) == 0
        assert yaml.safe_load((run / "config.yaml").read_text())["evaluation"]["tolerance"] == 0.3
        first = LogLikelihood.from_netcdf(run / "log_likelihood.nc")
        assert (first.effort.tolerance, first.effort.level) == (0.3, 0.8)
        again, _ = self.evaluate(run)
        assert np.array_equal(again.log_p, first.log_p)
        closer, _ = self.evaluate(run, "--tolerance", "0.2")
        assert (closer.effort.tolerance, closer.effort.level) == (0.2, 0.8)
        drawn, summary = self.evaluate(run, "--num_samples", "60")
        assert drawn.effort is None
        assert summary["importance samples"] == drawn.num_samples == 60
        assert self.evaluate(run, "--proposal", "mixture")[0].defensive.all()

    @pytest.mark.parametrize(
        ("argv", "words"),
        [
            (["--tolerance", "0.1", "--num_samples", "60"], ["--tolerance", 0.1, "--num_samples", 60]),
            (["--tolerance", "0.1", "--proposal", "auto"], ["--tolerance", 0.1, "--proposal", "auto"]),
            (["--level", "0.9"], ["--level", 0.9, "--tolerance 0.1"]),
            (["--budget", "3", "--num_samples", "60"], ["--budget", 3, "--tolerance 0.1"]),
            (["--tolerance", "0"], ["'tolerance'", "v>0.0"]),
            (["--tolerance", "inf"], ["'tolerance'", "v<inf"]),
            (["--tolerance", "0.1", "--level", "1"], ["'level'", "v<1"]),
        ],
    )
    def test_what_does_not_go_together_is_refused(self, run, argv, words, capsys):
        assert_says(refusal(capsys, "evaluate", str(run), *argv), *words)


def test_sample(run, tmp_path, capsys):
    output = tmp_path / "new.npz"
    assert main(["sample", str(run), "--number", "5", "--output", str(output)]) == 0
    with np.load(output) as drawn:
        assert drawn["x"].shape == drawn["mean"].shape == (5, 8, 8)
        assert not np.array_equal(drawn["x"], drawn["mean"])
    assert output.with_suffix(".png").is_file()
    assert_says(refusal(capsys, "sample", str(run), "--output", str(output)), output, "--output", "--overwrite")
    assert main(["sample", str(run), "--number", "5", "--output", str(output), "--overwrite"]) == 0


def test_sample_repeats_by_its_seed(run, tmp_path):
    def draw(name: str, seed: int) -> np.ndarray:
        argv = ["--number", "5", "--seed", str(seed), "--output", str(tmp_path / f"{name}.npz")]
        assert main(["sample", str(run), *argv]) == 0
        return np.load(tmp_path / f"{name}.npz")["x"]

    first, again, other = draw("first", 1), draw("again", 1), draw("other", 2)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_sample_overwrites_neither_file_unasked(run, tmp_path, capsys):
    argv = ["sample", str(run), "--number", "5", "--output"]
    (tmp_path / "new.png").write_text("a photograph")
    assert_says(refusal(capsys, *argv, str(tmp_path / "new")), "new.png", "--output", "--overwrite")
    assert (tmp_path / "new.png").read_text() == "a photograph"
    assert not (tmp_path / "new.npz").exists()
    assert main([*argv, str(tmp_path / "v1.2")]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.png", "v1.2.npz", "v1.2.png"]
    assert_says(refusal(capsys, *argv, str(tmp_path / "v1.2")), "v1.2.npz", "--output", "--overwrite")
    assert_says(refusal(capsys, *argv, str(tmp_path / "absent" / "new")), tmp_path / "absent", "folder")


def train_array(folder: Path, shape: tuple[int, ...], *argv: str) -> Path:
    """A run on noise of that shape, kept in ``x.npy``."""
    np.save(folder / "x.npy", np.random.default_rng(0).random(shape))
    data = ["--data", "Array", "--data.path", str(folder / "x.npy"), "--run", str(folder / "run")]
    assert main(["train", *small, *data, *argv]) == 0
    return folder / "run"


@pytest.mark.parametrize("event_shape", [pytest.param((2, 6, 6), marks=pytest.mark.slow), (5,), (2, 3, 4, 4)])
def test_what_is_no_picture_is_left_out(event_shape, tmp_path, capsys):
    path = train_array(tmp_path, (40, *event_shape))
    written = capsys.readouterr().out
    for name in ("reconstructions", "samples"):
        assert f"left out: {name}, because data of shape {event_shape} are no pictures" in written
    of_anything = {"loss_curve", "bound_against_particles", "latent_map", "kl_per_dimension", "aggregate_posterior"}
    assert {file.stem for file in (path / "figures").iterdir()} == of_anything
    assert main(["sample", str(path)]) == 0
    assert f"left out: pictures, because data of shape {event_shape} are none" in capsys.readouterr().out
    assert not (path / "samples.png").exists()


@pytest.mark.parametrize("number", [1, 4])
def test_few_test_data(number, tmp_path, capsys):
    path = train_array(tmp_path, (20, 4, 4), "--data.test", str(number / 20))
    written = capsys.readouterr().out
    assert f"left out: latent_map, because it needs at least 5 test data and there are {number}" in written
    assert not (path / "figures" / "latent_map.png").exists()
    assert (path / "figures" / "reconstructions.png").exists()
    assert (re.search("active units +unknown", written) is not None) == (number == 1)


def test_one_latent_dimension_and_few_labelled_data(tmp_path, capsys):
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).random((6, 4, 4)), labels=np.arange(6))
    argv = ["--data", "Array", "--data.path", str(tmp_path / "x.npz"), "--data.validation", "0.2"]
    assert main(["train", *small, *argv, "--model.latent_dim", "1", "--run", str(tmp_path / "run")]) == 0
    written = capsys.readouterr().out
    assert "left out: latent_map, because latent space has one dimension" in written
    assert "kNN accuracy" not in written


def test_the_table_is_printed_before_anything_is_drawn(run, capsys, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pyrovae.cli.drawing.draw", full)
    assert main(["evaluate", str(run), "--num_samples", "60", "--limit", "5"]) == 2
    said = capsys.readouterr()
    assert "active units" in said.out
    assert_says(said.err, os.strerror(errno.ENOSPC))


def test_evaluate_limit_and_seed(run, undrawn):
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["evaluation"]["limit"] = 7
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    reseal(run)

    def evaluate(*argv: str) -> LogLikelihood:
        assert main(["evaluate", str(run), "--num_samples", "60", *argv]) == 0
        return LogLikelihood.from_netcdf(run / "log_likelihood.nc")

    assert [len(evaluate(*limit).log_p) for limit in ([], ["--limit", "11"], ["--limit", "all"])] == [7, 11, 270]
    first, again, other = (evaluate("--seed", seed).log_p for seed in "112")
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_evaluate_refuses_what_is_no_limit(run, capsys):
    for limit in ("0", "null", "some"):
        assert_says(refusal(capsys, "evaluate", str(run), "--limit", limit), "limit", {"null": None}.get(limit, limit))


def test_evaluate_data_that_were_moved_but_not_data_that_changed(tmp_path, capsys, undrawn):
    path = train_array(tmp_path, (40, 4, 4))
    (tmp_path / "x.npy").rename(tmp_path / "moved.npy")
    capsys.readouterr()
    assert_says(refusal(capsys, "evaluate", str(path)), "x.npy", "missing")
    for option in (["--data.path", str(tmp_path / "moved.npy")], [f"--data.path={tmp_path / 'moved.npy'}"]):
        assert main(["evaluate", str(path), *option, "--num_samples", "60"]) == 0
    capsys.readouterr()
    assert_says(refusal(capsys, "evaluate", str(path), "--data.root", "elsewhere"), "Array", "'root'")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((50, 4, 4)))
    before = (path / "summary.json").read_text()
    assert_says(refusal(capsys, "evaluate", str(path)), "split.npz", "--data.X")
    moved = ["--data.path", str(tmp_path / "moved.npy"), "--data.split_seed", "1"]
    assert_says(refusal(capsys, "evaluate", str(path), *moved), "split.npz", "--data.X")
    assert (path / "summary.json").read_text() == before


@pytest.mark.parametrize("start", [True, False])
def test_start_at_mean(start, tmp_path, undrawn):
    argv = ["--start_at_mean", str(start).lower(), "--training.optimizer.lr", "1e-6", "--evaluation.limit", "5"]
    assert main(["train", *small, *argv, "--run", str(tmp_path / "run")]) == 0
    bias = load(tmp_path / "run").model.decoder.layers[-1].bias
    mean = Digits().train.x.mean(0).flatten()
    assert torch.allclose(bias, mean, atol=1e-4) == start


@pytest.mark.parametrize("context", [pytest.param(False, marks=pytest.mark.slow), True])
def test_pseudo_inputs_start_at_training_data(context, tmp_path, undrawn):
    argv = ["--model.prior", "Vamp", "--model.prior.components", "7", "--start_prior_at_data", "true"]
    argv += ["--training.optimizer.lr", "1e-6", "--evaluation.limit", "5", *(["--model.context_shape", "[10]"] * context)]
    assert main(["train", *small, *argv, "--run", str(tmp_path / "run")]) == 0
    prior = load(tmp_path / "run").model.prior
    data = Digits().train
    distances = (prior.pseudo_inputs.detach()[:, None] - data.x).abs().amax((-2, -1))
    nearest, rows = distances.min(1)
    assert nearest.max() < 1e-4
    assert len(rows.unique()) == 7
    if context:
        assert torch.allclose(prior.pseudo_contexts, torch.eye(10)[data.labels[rows]], atol=1e-4)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (
            ["--start_prior_at_data", "true"],
            ["StandardNormal", "--model.prior Vamp"],
        ),
        (
            ["--start_prior_at_data", "true", "--model.prior", "Vamp", "--model.prior.components", "2000"],
            [2000, 1347, "--model.prior.components 1347"],
        ),
        (["--model.latent_dm", "3"], ["'model.latent_dm'", "'model.latent_dim'"]),
        (["--training.epoch", "3"], ["'training.epoch'", "'training.epochs'"]),
        (["--data", "Digts"], ["'Digts'", "'Digits'"]),
        (["--model.prior", "StandardNorml"], ["'StandardNorml'", "'StandardNormal'"]),
        (["--model.prior", "Bernoulli"], ["'Bernoulli'", "Autoregressive, Flow, Hierarchical"]),
        (["--objective", "IWEA"], ["'IWEA'", "'IWAE'"]),
        (["--training.optimizer", "Adm"], ["'Adm'", "'Adam'"]),
        (["--model.likelihood.scal", "3"], ["Normal", "'scal'", "'scale'"]),
        (["--training.epochs", "x"], ["int", "x", "'training.epochs'"]),
        (["--training.epochs", "0"], ["epochs", 0, 1]),
        (["--training.device", "cuda:99"], ["'cuda:99'", "'cpu'"]),
        (["--training.optimizer.lr", "-1"], ["optimiser", -1.0]),
        (["--model.latent_dim", "0"], ["latent_dim", 0, 1]),
        (["--model.likelihood", "Bernoulli"], ['binarize="dynamic"']),
        (["--model.likelihood.scale", "-1"], ["scale", -1.0]),
        (["--model.encoder", "torch.nn.Linear"], ["TypeError", "--print_config"]),
        (["--evaluation.num_samples", "0"], [0, "v>0"]),
        (["--evaluation.tolerance", "-0.1"], [-0.1, "v>0.0"]),
        (["--evaluation.level", "95"], [95, "v<1"]),
        (["--config", "absent.yaml"], ["absent.yaml"]),
        (["--data", "Array", "--data.path", "absent.npy"], ["absent.npy", "missing"]),
    ],
)
def test_train_refuses_with_one_message_and_writes_nothing(argv, words, tmp_path, capsys):
    assert_says(refusal(capsys, "train", *small, "--run", str(tmp_path / "run"), *argv), *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data: Digits\nmodl: {latent_dim: 3}", ["'modl.latent_dim'", "'model.latent_dim'"]),
        ("data: Digits\nmodel: {latent_dm: 3}", ["'model.latent_dm'", "'model.latent_dim'"]),
        (
            "data: {class_path: Digits, init_args: {binarise: none}}",
            ["Digits", "'binarise'", "'binarize'"],
        ),
        ("data: [Digits", ["Problems", "config"]),
        ("model: {latent_dim: 3}", ["data", "missing", "pyrovae train --help"]),
    ],
)
def test_yaml_is_refused_alike(text, words, tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(text)
    found = refusal(capsys, "train", "--config", str(tmp_path / "config.yaml"), "--run", str(tmp_path / "run"))
    assert_says(found, *words)
    assert not (tmp_path / "run").exists()


def bad_arrays() -> dict[str, tuple[np.ndarray, str]]:
    nan = np.ones((30, 4), dtype=np.float32)
    nan[3, 1] = np.nan
    return {
        "pickled": (np.array([{}, 1], dtype=object), "pickled"),
        "complex": (np.ones((30, 4), dtype=complex), "complex"),
        "nan": (nan, "[3, 1]"),
        "infinite": (np.where(np.isnan(nan), np.inf, nan), "[3, 1]"),
        "empty": (np.ones((0, 4)), "0"),
        "flat": (np.ones(30), "(30,)"),
    }


@pytest.mark.parametrize("name", bad_arrays())
def test_bad_arrays_are_refused(name, tmp_path, capsys):
    array, message = bad_arrays()[name]
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    argv = ["--data", "Array", "--data.path", str(tmp_path / "x.npy"), "--run", str(tmp_path / "run")]
    assert message in refusal(capsys, "train", *small, *argv)
    assert not (tmp_path / "run").exists()


def test_truncated_file_is_refused(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.ones((30, 4)))
    os.truncate(tmp_path / "x.npy", 300)
    argv = ["--data", "Array", "--data.path", str(tmp_path / "x.npy"), "--run", str(tmp_path / "run")]
    assert "x.npy" in refusal(capsys, "train", *small, *argv)
    assert not (tmp_path / "run").exists()


def test_a_former_run_is_kept_unless_told(run, tmp_path, capsys):
    before = (run / "config.yaml").stat().st_mtime_ns
    assert_says(
        refusal(capsys, "train", *small, "--run", str(run)), run, "--resume (resume=True)", "--overwrite (overwrite=True)"
    )
    assert_says(refusal(capsys, "train", *small, "--run", str(tmp_path.parent), "--overwrite"), tmp_path.parent)
    bad = ["--overwrite", "--model.likelihood", "Bernoulli"]
    refusal(capsys, "train", *small, "--run", str(run), *bad)
    assert (run / "config.yaml").stat().st_mtime_ns == before


def test_bad_runs_are_refused(run, tmp_path, capsys):
    for command in ("evaluate", "sample"):
        assert_says(refusal(capsys, command, str(tmp_path)), "config.yaml", "missing")
    with refused("config.yaml", "missing"):
        load(tmp_path)
    (tmp_path / "config.yaml").write_text((run / "config.yaml").read_text())
    with refused("manifest.json", os.strerror(errno.ENOENT)):
        load(tmp_path)
    reseal(tmp_path)
    with refused("split.npz", os.strerror(errno.ENOENT)):
        load(tmp_path)
    (tmp_path / "split.npz").write_bytes((run / "split.npz").read_bytes())
    reseal(tmp_path)
    with refused(tmp_path / "checkpoints", "index.json"):
        load(tmp_path)
    (tmp_path / "config.yaml").write_text("model: {prior: 3}")
    with refused("config.yaml", "SHA-256"):
        load(tmp_path)
    reseal(tmp_path)
    with refused("config.yaml", "model.prior", 3):
        load(tmp_path)


def test_a_misspelt_command(capsys):
    assert_says(refusal(capsys, "trian"), "'trian'", "'train'")
    assert_says(refusal(capsys, "xyzzy"), "'xyzzy'", "train, evaluate, report, compare, sample, verify, parts")


def test_any_module_serves_as_network(tmp_path, undrawn):
    argv = ["--model.decoder", "user_network.Decoder", "--model.decoder.width", "5", "--start_at_mean", "false"]
    argv += ["--evaluation.limit", "5"]
    assert main(["train", *small[:6], *argv, "--run", str(tmp_path / "run")]) == 0
    assert load(tmp_path / "run", trust=["user_network"]).model.decoder.layers[0].out_features == 5
    resumed = ["train", "--resume", str(tmp_path / "run"), "--training.epochs"]
    assert main([*resumed, "3", "--trust", "user_network"]) == 0
    assert main([*resumed, "4", "--trust=user_network", "--trust", "torch"]) == 0
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 4
    with refused("config.yaml", "'user_network.Decoder'", "--trust user_network"):
        load(tmp_path / "run")


def test_a_network_that_keeps_something_beside_its_buffers_is_refused_before_it_trains(tmp_path, capsys, undrawn):
    argv = [*small[:6], "--model.encoder", "user_network.RandomFeatures", "--run", str(tmp_path / "run")]
    argv += ["--evaluation.limit", "20"]
    assert_says(
        refusal(capsys, "train", *argv), "guide.encoder.frequencies", "RandomFeatures", "register_buffer(name, tensor)"
    )
    assert not (tmp_path / "run").exists()
    assert main(["train", *argv, "--model.encoder.kept", "true"]) == 0
    before = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert main(["evaluate", str(tmp_path / "run"), "--trust", "user_network", "--num_samples", "100"]) == 0
    after = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert after == before


@pytest.mark.parametrize("path", sorted(configs.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_is_valid(path):
    from pyrovae.experiment.parser import parse
    from pyrovae.experiment.schema import experiment_parser

    config = parse(experiment_parser(), ["--config", str(path)])
    assert config.run == f"runs/{path.stem}"


@pytest.mark.mnist
@pytest.mark.parametrize("name", slow_but(lambda name: name in ("mnist_vamp", "fashion"), real))
def test_configs_train_on_the_real_data(name, tmp_path):
    from pyrovae.experiment.build import build
    from pyrovae.experiment.parser import parse
    from pyrovae.experiment.schema import experiment_parser

    parser = experiment_parser()
    config = parse(parser, ["--config", str(configs / f"{name}.yaml"), "--data.root", os.environ["PYROVAE_DATA"]])
    data, vae, objective, _ = build(parser, config)
    batch = as_batch(next(data.train.batches(50, shuffle=True)))
    module = objective(vae.model, vae.guide)
    module(batch.x, **batch.given).backward()
    assert isinstance(vae, VAE)
    assert all(value.grad.isfinite().all() for value in vae.parameters())


@pytest.mark.parametrize("name", ["counts", "missing_data"])
def test_configs_of_ones_own_array_train(name, tmp_path):
    numbers = np.random.default_rng(0)
    x = numbers.poisson(5.0, (60, 4)).astype(np.float32)
    if name == "missing_data":
        x[numbers.random(x.shape) < 0.3] = np.nan
    np.save(tmp_path / "x.npy", x)
    moved = ["--data.path", str(tmp_path / "x.npy"), "--run", str(tmp_path / "run")]
    little = ["--training.epochs", "1", "--evaluation.num_samples", "20"]
    assert main(["train", "--config", str(configs / f"{name}.yaml"), *moved, *little]) == 0
    assert np.isfinite(LogLikelihood.from_netcdf(tmp_path / "run" / "log_likelihood.nc").log_p).all()


def test_the_decoder_starts_at_the_mean_of_the_observed_numbers(tmp_path):
    x = np.random.default_rng(0).normal(3.0, 1.0, (60, 4)).astype(np.float32)
    x[::2, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    data = Array(str(tmp_path / "x.npy"), missing=True)
    np.testing.assert_allclose(_mean(data.train), np.nanmean(x[data.train.index], 0), rtol=1e-5)


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "conditional"
    with drawing_left_out():
        assert main(["train", *small, "--model.context_shape", "[10]", "--run", str(path)]) == 0
    return path


def test_a_model_of_labels_draws_for_a_label(conditional, capsys, undrawn):
    assert load(conditional).context_shape == (10,)
    assert main(["sample", str(conditional), "--number", "20"]) == 0
    with np.load(conditional / "samples.npz") as drawn:
        assert drawn["labels"].tolist() == [label for label in range(10) for _ in range(2)]
    assert main(["sample", str(conditional), "--number", "5", "--label", "7", "--overwrite"]) == 0
    with np.load(conditional / "samples.npz") as drawn:
        assert drawn["labels"].tolist() == [7] * 5
        assert drawn["x"].shape == (5, 8, 8)
    assert main(["evaluate", str(conditional), "--num_samples", "20", "--limit", "5"]) == 0
    capsys.readouterr()
    again = [str(conditional), "--overwrite"]
    assert_says(refusal(capsys, "sample", *again, "--label", "10"), "--label", 10, 0, 9)


def test_a_label_of_a_model_of_none_is_refused(run, capsys):
    capsys.readouterr()
    assert_says(refusal(capsys, "sample", str(run), "--label", "3"), "--label", 3)


def test_labels_that_are_more_than_the_context_are_refused(tmp_path, capsys):
    found = refusal(capsys, "train", *small, "--model.context_shape", "[9]", "--run", str(tmp_path / "run"))
    assert_says(found, "context_shape", (9,), "Digits", (10,))
    assert not (tmp_path / "run").exists()


def test_a_run_of_another_device_is_evaluated_here(run, capsys, undrawn):
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["training"]["device"] = "cuda:99"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    reseal(run)
    assert main(["evaluate", str(run), "--num_samples", "40", "--limit", "5"]) == 0
    capsys.readouterr()
    assert_says(refusal(capsys, "evaluate", str(run), "--device", "cuda:99"), "'cuda:99'", "'cpu'")
    os.truncate(run / "split.npz", 500)
    assert_says(refusal(capsys, "evaluate", str(run)), "split.npz", "SHA-256")
    reseal(run)
    assert_says(refusal(capsys, "evaluate", str(run)), "split.npz", "zip")


def test_summaries_are_json_whatever_k_hat_is(run, undrawn):
    assert main(["evaluate", str(run), "--num_samples", "5", "--limit", "5"]) == 0
    summary = json.loads((run / "summary.json").read_text(), parse_constant=pytest.fail)
    assert summary["largest k-hat"] is None
    assert summary["share untrusted"] == 1.0


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    """Runs on the same data with different priors, which no other test evaluates anew."""
    paths = [tmp_path_factory.mktemp("runs") / name for name in ("one", "other")]
    for path, prior in zip(paths, ("StandardNormal", "LearnedNormal"), strict=True):
        with drawing_left_out():
            assert main(["train", *small, "--model.prior", prior, "--run", str(path)]) == 0
    return paths


def test_compare(two_runs, tmp_path, capsys):
    run, other_run = two_runs
    figure = tmp_path / "comparison.png"
    assert main(["compare", str(run), str(other_run), "--figure", str(figure)]) == 0
    said = capsys.readouterr().out
    assert "log p(x) of the same 270 data" in said
    assert "other" in said
    assert figure.stat().st_size > 1000


def test_runs_in_the_plane_of_rate_and_distortion(two_runs, tmp_path, capsys):
    figure, runs = tmp_path / "rate_distortion_file.png", [*map(str, two_runs)]
    assert main(["compare", *runs, "--rate_distortion", str(figure)]) == 0
    said = capsys.readouterr().out
    assert "Rate and distortion of 270 data, 5 draws each" in said
    assert figure.stat().st_size > 1000
    for run in two_runs:
        summary = json.loads((run / "summary.json").read_text())
        (line,) = re.findall(rf"  {run.name} .* ± .*", said.partition("distortion")[2])
        means = [float(number) for number in re.findall(r"(-?[\d.]+) ± ", line)]
        rate, distortion = summary["rate"], summary["distortion"]
        assert means == pytest.approx([rate, distortion, -rate - distortion], abs=1e-3)
        assert summary["ELBO"] == pytest.approx(means[2], abs=0.2)


def test_no_plane_of_what_is_not_there(two_runs, tmp_path, capsys):
    copied = Path(shutil.copytree(two_runs[1], tmp_path / "copied"))
    argv = ("compare", str(two_runs[0]), str(copied), "--rate_distortion", str(tmp_path / "p.png"))
    place = copied / rate_distortion_file.FILE
    with np.load(place) as file:
        found = dict(file)

    def answer(**changed: np.ndarray) -> str:
        np.savez(place, **found | changed)
        reseal(copied)
        return refusal(capsys, *argv)

    assert_says(answer(rate=np.zeros(3)), "rate", "float64", (3,), (270,))
    assert_says(answer(distortion=np.zeros(270, int)), "distortion", "int64", (270,))
    assert_says(answer(distortion=np.full(270, np.nan)), place, "NaN")
    assert_says(answer(num_samples=np.array(7)), 5, two_runs[0], 7, copied, "pyrovae evaluate RUN")
    place.write_bytes(b"PK")
    assert_says(refusal(capsys, *argv), place, "SHA-256")
    place.unlink()
    assert_says(refusal(capsys, *argv), place, "missing", f"pyrovae evaluate {copied}")
    assert not (tmp_path / "p.png").exists()


def test_compare_refuses_runs_of_other_data(two_runs, tmp_path, capsys):
    run, other_run = two_runs
    assert_says(refusal(capsys, "compare", str(run)), run, "two")
    assert_says(refusal(capsys, "compare", str(run), str(run)), run, "two")
    assert_says(refusal(capsys, "compare", str(run), str(tmp_path)), tmp_path, f"pyrovae evaluate {tmp_path}")
    copied = tmp_path / "copied"
    shutil.copytree(other_run, copied)
    summary = json.loads((copied / "summary.json").read_text())
    for change in ({"fingerprint of the test data": "another"}, {"test data": 5}):
        (copied / "summary.json").write_text(json.dumps(summary | change))
        reseal(copied)
        assert_says(refusal(capsys, "compare", str(run), str(copied)), copied, run, "--limit")
    (copied / "summary.json").write_text("{}")
    assert_says(refusal(capsys, "compare", str(run), str(copied)), "summary.json", "SHA-256")
    reseal(copied)
    assert_says(refusal(capsys, "compare", str(run), str(copied)), copied, f"pyrovae evaluate {copied}")


def test_the_fingerprint_tells_data_apart():
    x = torch.rand(5, 3)
    known = fingerprint(as_data(x))
    assert known == fingerprint(as_data({"x": x, "c": torch.rand(5, 2)}))
    others = [x.double(), x[:4], x + 1e-6 * torch.eye(5, 3), x.reshape(5, 3, 1)]
    masked = {"x": x, "mask": torch.ones(5, 3, dtype=torch.bool)}
    assert known not in [fingerprint(as_data(other)) for other in (*others, masked)]


def test_annealed_chains_are_a_second_opinion(run, capsys, undrawn):
    argv = ["evaluate", str(run), "--num_samples", "200", "--limit", "5"]
    assert main([*argv, "--temperatures", "4", "--num_chains", "4", "--start", "guide", "--proposal", "mixture"]) == 0
    said = capsys.readouterr().out
    assert "by 4 annealed chains each, 4 temperatures" in said
    assert "upper bound" in said
    found = json.loads((run / "annealed.json").read_text())
    with np.load(run / "annealed.npz") as file:
        weights = file["log_weights"]
        assert weights.shape == (4, 5)
        assert file["forward"].shape == file["reverse"].shape == (4, 5)
    assert found["mean"] == pytest.approx(np.log(np.exp(weights - weights.max()).mean(0)).mean() + weights.max())
    counting = np.exp(weights).sum(0) ** 2 / np.exp(2 * weights).sum(0)
    assert found["start"] == "guide"
    assert found["share_unmet"] == (counting < 2).mean()
    assert LogLikelihood.from_netcdf(run / "log_likelihood.nc").defensive.all()
    assert main(argv) == 0
    assert not (run / "annealed.json").exists()


@pytest.mark.filterwarnings("ignore::pyrovae.evaluation.ImportanceSamplingWarning")
def test_refined_proposals_tell_what_the_encoder_lacks(run, capsys, undrawn):
    argv = ["evaluate", str(run), "--num_samples", "200", "--limit", "5"]
    assert main([*argv, "--refine", "20"]) == 0
    said = capsys.readouterr().out
    assert "amortization gap" in said.partition("With the guide's proposal refined for each datum: 5 data, in nats\n")[2]
    summary = json.loads((run / "summary.json").read_text())
    vae, data, _ = reopen(run)
    tested = as_data(data.test.fixed_draw()).rows(slice(5)).plain()
    gaps = inference_gaps(vae, tested, 200, steps=20)
    assert summary["amortization gap"] == pytest.approx(gaps.amortization.mean())
    refined = summary["log p(x), refined proposal"] - summary["approximation gap"]
    assert summary["ELBO"] + summary["amortization gap"] == pytest.approx(refined)
    assert main(argv) == 0
    assert "amortization gap" not in json.loads((run / "summary.json").read_text())


def test_what_latent_space_is_like_is_said_and_drawn(run):
    summary = json.loads((run / "summary.json").read_text())
    parts = summary["mutual information"] + summary["marginal KL"]
    assert summary["average KL"] == pytest.approx(parts)
    assert 0.0 <= summary["linear probe"] <= 1.0
    drawn = {file.stem for file in (run / "figures").iterdir()}
    assert {"kl_per_dimension", "aggregate_posterior", "traversals", "interpolations"} <= drawn
