"""Parts by their names."""

import re
from pathlib import Path

import pytest
import zuko

from pyrovae.networks import MLP
from pyrovae.training.config import build, experiment_parser
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
    fit(made.vae.model, made.vae.guide, x, epochs=1, progress=False)


def test_a_short_name_is_one_of_ours_whatever_else_is_imported(experiment):
    assert zuko.nn.MLP.__name__ == MLP.__name__
    assert type(experiment("prior: Laplace").vae.model.decoder) is MLP


def test_the_same_word_means_another_part_in_another_room(experiment):
    made = experiment("prior: Flow\n  guide: Flow\n  likelihood: Laplace")
    rooms = [
        type(part).__module__.split(".")[1] for part in (made.vae.model.prior, made.vae.guide, made.vae.model.likelihood)
    ]
    assert rooms == ["priors", "guides", "likelihoods"]
