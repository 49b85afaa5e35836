"""Parts by their names."""

import inspect
import re
from pathlib import Path

import pytest
import zuko
from checks import guide_for, members, prior_for, slow_but

import pyrovae.guides
import pyrovae.likelihoods
import pyrovae.objectives
import pyrovae.priors
from pyrovae.cli.train import _text
from pyrovae.experiment.build import build, vae_maker
from pyrovae.experiment.jsonargparse_internals import is_same
from pyrovae.experiment.parser import parse
from pyrovae.experiment.schema import experiment_parser
from pyrovae.guides import Guide
from pyrovae.likelihoods import Likelihood
from pyrovae.networks import MLP, ConvDecoder, ConvEncoder, ResNetDecoder, ResNetEncoder
from pyrovae.objectives import Objective
from pyrovae.priors import Prior
from pyrovae.training.fit import fit

guide_to_contributing = Path(__file__).parents[2] / "CONTRIBUTING.md"
imports = """\
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyrovae.priors import Prior


"""


@pytest.fixture
def experiment(tmp_path):
    """What the text of a configuration of the model builds."""

    def built(model):
        path = tmp_path / "config.yaml"
        path.write_text(f"data: Digits\nmodel:\n  encoder: MLP\n  decoder: MLP\n  {model}\n")
        parser = experiment_parser()
        return build(parser, parser.parse_args(["--config", str(path)]))

    return built


def test_the_prior_of_the_guide_to_contributing_is_used_by_its_name(experiment, tmp_path, monkeypatch):
    """About ten lines in a file of one's own, and one word of YAML."""
    [written] = re.findall(r"```python\n(class .*?)```", guide_to_contributing.read_text(), re.DOTALL)
    assert len(written.strip().splitlines()) <= 10
    (tmp_path / "my_priors.py").write_text(imports + written)
    monkeypatch.syspath_prepend(tmp_path)
    made = experiment("prior: my_priors.Logistic")
    assert type(made.vae.model.prior).__module__ == "my_priors"
    x = made.vae.model(size=8).detach()
    fit(made.vae, x, epochs=1, progress=False)


def test_a_short_name_is_one_of_ours_whatever_else_is_imported(experiment):
    assert zuko.nn.MLP.__name__ == MLP.__name__
    assert type(experiment("prior: Laplace").vae.model.decoder) is MLP


def test_the_same_word_means_another_part_in_another_room(experiment):
    made = experiment("prior: Flow\n  guide: Flow\n  likelihood: Laplace")
    rooms = [
        type(part).__module__.split(".")[1] for part in (made.vae.model.prior, made.vae.guide, made.vae.model.likelihood)
    ]
    assert rooms == ["priors", "guides", "likelihoods"]


words = [
    *({"model.prior": cls, "model.guide": guide_for(cls)} for cls in members(pyrovae.priors, Prior)),
    *({"model.guide": cls, "model.prior": prior_for(cls)} for cls in members(pyrovae.guides, Guide)),
    *({"model.likelihood": cls} for cls in members(pyrovae.likelihoods, Likelihood)),
    *({"objective": cls} for cls in members(pyrovae.objectives, Objective)),
    {"model.encoder": ConvEncoder, "model.decoder": ConvDecoder},
    {"model.encoder": ResNetEncoder, "model.decoder": ResNetDecoder},
]


first_of_each = [*{next(iter(asked)): asked for asked in reversed(words)}.values()]


@pytest.mark.parametrize(
    "asked",
    slow_but(lambda asked: asked in first_of_each, words),
    ids=lambda asked: "-".join(cls.__name__ for cls in asked.values()),
)
def test_every_part_is_one_word_of_the_command_line_and_is_kept_in_the_run(asked):
    """Built from its name, written as a run keeps it, and built from that again."""
    parser = experiment_parser()
    config = parse(
        parser, ["--data", "Digits", *(part for name, cls in asked.items() for part in (f"--{name}", cls.__name__))]
    )
    made = build(parser, config)
    found = {
        "model.prior": made.vae.model.prior,
        "model.guide": made.vae.guide,
        "model.likelihood": made.vae.model.likelihood,
        "model.encoder": made.vae.guide.encoder,
        "model.decoder": made.vae.model.decoder,
        "objective": made.objective,
    }
    assert all(type(found[name]) is cls for name, cls in asked.items())
    again = vae_maker(_text(parser, config), made.data.event_shape)()
    assert {name: value.shape for name, value in again.state_dict().items()} == {
        name: value.shape for name, value in made.vae.state_dict().items()
    }


class TestDefaults:
    """Of the class that is asked for, not of the one that it takes the place of."""

    def parsed(self, *argv):
        return parse(experiment_parser(), ["--data", "Digits", *argv])

    @pytest.mark.parametrize("cls", members(pyrovae.objectives, Objective))
    def test_of_an_objective(self, cls, tmp_path):
        expected = {
            name: parameter.default
            for name, parameter in inspect.signature(cls).parameters.items()
            if parameter.default is not inspect.Parameter.empty
        }
        assert vars(self.parsed("--objective", cls.__name__).objective.init_args) == expected
        for number, text in enumerate([f"objective: {cls.__name__}", "objective: ELBO"]):
            path = tmp_path / f"{number}.yaml"
            path.write_text(text)
            argv = ["--objective", cls.__name__] if text.endswith("ELBO") else []
            assert vars(self.parsed("--config", str(path), *argv).objective.init_args) == expected

    def test_of_parts(self):
        config = self.parsed("--model.prior", "Mixture", "--model.prior", "Vamp")
        assert config.model.prior.init_args.components == 50
        parsed = self.parsed("--model.encoder", "ConvEncoder").model.encoder.init_args
        defaults = inspect.signature(ConvEncoder).parameters
        assert all(is_same(defaults[name].default, value) for name, value in vars(parsed).items())

    def test_what_was_said_is_handed_on(self):
        config = self.parsed("--objective", "IWAE", "--objective.num_particles", "50", "--objective", "CIWAE")
        assert config.objective.init_args.num_particles == 50
        argv = ["--training.optimizer.lr", "0.02", "--training.optimizer", "AdamW"]
        assert self.parsed(*argv).training.optimizer.init_args.lr == 0.02
