"""The page about a run: what it says, that it needs nothing else, and that a browser shows it."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml
from checks import assert_says
from runs import reseal

from pyrovae.cli import main
from pyrovae.report.words import number

configs = Path(__file__).parents[2] / "configs"
small = [
    *("--config", str(configs / "digits.yaml"), "--training.epochs", "3", "--evaluation.num_samples", "200"),
    *("--model.encoder.hidden", "[16]", "--model.decoder.hidden", "[16]", "--model.latent_dim", "3"),
]


class Parsed(HTMLParser):
    """The text of a page outside its scripts and styles, its tags, and the addresses that it loads from."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.tags, self.addresses, self.contents, self.inside = "", [], [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.inside = tag
        self.text += " "
        self.tags.append(tag)
        self.contents += [value for name, value in attrs if name == "content"]
        self.addresses += [value for name, value in attrs if name in ("src", "href", "data", "srcset", "action")]

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        self.text += "" if self.inside in ("script", "style") else data

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["train", *small, "--run", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def page(run):
    assert main(["report", str(run)]) == 0
    return run / "report.html"


def parsed(run: Path, *argv: str) -> Parsed:
    """The page of a run."""
    assert main(["report", str(run), *argv]) == 0
    return Parsed((run / "report.html").read_text(encoding="utf-8"))


def train_array(folder: Path, array: np.ndarray | dict, *argv: str) -> Path:
    """A run on data of one's own."""
    path = folder / "x.npz"
    np.savez(path, **array if isinstance(array, dict) else {"x": array})
    assert main(["train", *small, "--data", "Array", "--data.path", str(path), "--run", str(folder / "run"), *argv]) == 0
    return folder / "run"


def refusal(capsys, *argv: str) -> str:
    """The one message of a command that must refuse."""
    capsys.readouterr()
    assert main(["report", *argv]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_the_page_says_what_was_found(page):
    found = Parsed(page.read_text(encoding="utf-8"))
    summary = json.loads((page.parent / "summary.json").read_text())
    for name in ("log p(x)", "ELBO", "IWAE-5", "largest k-hat"):
        assert f"{name} {number(summary[name])}" in found.words
    assert "active units 3 of 3" in found.words
    assert "Digits: 1,347 train, 180 validation, 270 test" in found.words
    assert "this page pyrovae report" in found.words
    assert "Left out" not in found.words
    assert (page.parent / "config.yaml").read_text().split() == found.text.split("The whole configuration")[1].split()
    assert found.tags.count("img") == 10 + 2 * 40 + 64


def test_nothing_is_loaded_from_elsewhere(page):
    text = page.read_text(encoding="utf-8")
    found = Parsed(text)
    assert found.addresses
    assert all(address.startswith("data:") for address in found.addresses)
    style = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    assert not re.search(r"@import|url\(", "".join(style))
    assert "iframe" not in found.tags
    assert any(policy and policy.startswith("default-src 'none'; script-src 'sha256-") for policy in found.contents)
    assert page.stat().st_size < 3e6


def test_text_is_escaped(run, tmp_path):
    evil = "<script>alert(1)</script>"
    copy = Path(shutil.copytree(run, tmp_path / "<img src=x onerror=alert(2)>"))
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config["run"] = f"'\"{evil}</code></pre>"
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    (copy / "summary.json").write_text(json.dumps(json.loads((copy / "summary.json").read_text()) | {evil: evil}))
    reseal(copy)
    found = parsed(copy)
    assert found.words.count(evil) == 3
    assert "<img src=x onerror=alert(2)>" in found.words
    assert found.tags.count("script") == 3
    assert "x" not in found.addresses


def test_the_output_and_what_a_run_overwrites(run, page, tmp_path, capsys, undrawn):
    assert main(["report", str(run), "--output", str(tmp_path / "page.html")]) == 0
    assert "page.html (" in capsys.readouterr().out
    assert (tmp_path / "page.html").stat().st_size > 1e6
    copy = shutil.copytree(run, tmp_path / "copy")
    assert main(["train", *small, "--training.epochs", "1", "--run", str(copy), "--overwrite"]) == 0
    assert not (copy / "report.html").exists()


def test_refusals(run, tmp_path, capsys):
    assert_says(refusal(capsys, str(tmp_path)), "config.yaml", "missing")
    assert_says(
        refusal(capsys, str(run), "--output", str(tmp_path / "absent" / "page.html")),
        tmp_path / "absent",
        "folder",
        "page.html",
    )
    assert_says(refusal(capsys, str(run), "--output", str(tmp_path)), "--output", tmp_path / "report.html")
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    (copy / "annealed.json").write_text('{"mean": 1.0, "error": "small", "temperatures": 10, "chains": 3}')
    assert_says(refusal(capsys, str(copy)), "annealed.json", "results.json", f"pyrovae evaluate {copy}")
    reseal(copy)
    assert_says(refusal(capsys, str(copy)), "annealed.json", "'error'", "mean, error, temperatures, chains, share_unmet")
    (copy / "annealed.json").unlink()
    summary = json.loads((copy / "summary.json").read_text())
    (copy / "summary.json").write_text(json.dumps(summary | {"fingerprint of the test data": "another"}))
    reseal(copy)
    assert_says(refusal(capsys, str(copy)), copy, 270, f"pyrovae evaluate {copy}")
    (copy / "summary.json").write_text("[")
    reseal(copy)
    assert_says(refusal(capsys, str(copy)), "summary.json", "JSON")
    (copy / "log_likelihood.nc").unlink()
    assert_says(refusal(capsys, str(copy)), "log_likelihood.nc", f"pyrovae evaluate {copy}")
    assert_says(refusal(capsys, str(run), "--outptu", "x"), "'outptu'", "'output'")


def test_data_that_were_moved(tmp_path, capsys, undrawn):
    run = train_array(tmp_path, np.random.default_rng(0).random((60, 4, 4)))
    (tmp_path / "x.npz").rename(tmp_path / "moved.npz")
    assert_says(refusal(capsys, str(run)), "x.npz", "missing")
    assert "Left out" not in parsed(run, "--data.path", str(tmp_path / "moved.npz")).words
    np.savez(tmp_path / "x.npz", np.random.default_rng(1).random((80, 4, 4)))
    assert_says(refusal(capsys, str(run)), "split.npz", "--data.X")
    np.savez(tmp_path / "x.npz", np.random.default_rng(1).random((60, 4, 4)))
    assert_says(refusal(capsys, str(run)), 9, f"pyrovae evaluate {run}")


def test_a_warning_comes_first_and_annealing_is_drawn(run, tmp_path, undrawn):
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    assert main(["evaluate", str(copy), "--num_samples", "40", "--limit", "30"]) == 0
    annealed = {"mean": 1.0, "error": 0.1, "temperatures": 1000, "chains": 3, "share_unmet": 0.05, "more": "words"}
    (copy / "annealed.json").write_text(json.dumps(annealed))
    reseal(copy)
    found = parsed(copy)
    before, _, after = found.words.partition("Do not trust these numbers yet. Pareto k-hat exceeds 0.38 for")
    assert "What was found" in after
    assert "What was found" not in before
    assert "annealed, 1,000 temperatures, 3 chains" in (copy / "report.html").read_text()
    assert "30 of these 270 data were evaluated." in found.words
    assert "annealed line" not in found.words
    (copy / "annealed.json").write_text(json.dumps(annealed | {"share_unmet": 0.2}))
    reseal(copy)
    assert "the annealed line. For it, fewer than half of the chains count for 20.0% of the data" in parsed(copy).words


@pytest.mark.parametrize("event_shape", [(5,), pytest.param((2, 3, 4, 4), marks=pytest.mark.slow)])
def test_data_that_are_no_pictures(event_shape, tmp_path, undrawn):
    found = parsed(train_array(tmp_path, np.random.default_rng(0).random((60, *event_shape))))
    assert found.words.count(f"Left out, because data of shape {event_shape} are no pictures.") == 2
    assert "img" not in found.tags
    assert "k-hat" in found.words


def test_one_datum_one_dimension_few_draws(tmp_path):
    few = ["--data.test", "0.05", "--model.latent_dim", "1", "--evaluation.num_samples", "10"]
    found = parsed(train_array(tmp_path, np.random.default_rng(0).random((20, 3, 4, 4)), *few))
    assert "Left out, because latent space has one dimension." in found.words
    assert found.words.count("Left out, because no k-hat could be fitted") == 1
    assert "active units unknown (of one datum) of 1" in found.words
    assert "Do not trust these numbers yet. Pareto k-hat could not be fitted" in found.words
    assert "datum 0" in found.words.partition("The data least to be trusted")[2]


def test_labels_as_context(tmp_path, undrawn):
    argv = ["--model.context_shape", "[10]", "--run", str(tmp_path / "run"), "--evaluation.limit", "20"]
    assert main(["train", *small, *argv]) == 0
    found = parsed(tmp_path / "run")
    assert "The model is conditioned on labels; these are in turn." in found.words
    assert "Colours are labels, which are the model's context." in found.words


def test_numbers_that_were_not_observed(tmp_path, undrawn):
    x = np.random.default_rng(0).random((60, 6, 6)).astype(np.float32)
    x[np.random.default_rng(1).random(x.shape) < 0.3] = np.nan
    found = parsed(train_array(tmp_path, x, "--data.missing", "true"))
    assert "Orange pixels were not observed." in found.words


def test_many_labels_and_two_dimensions(tmp_path, undrawn):
    data = {"x": np.random.default_rng(0).random((100, 4, 4)), "labels": np.arange(100) % 20}
    run = train_array(tmp_path, data, "--model.latent_dim", "2")
    assert "Left out" not in parsed(run).words
    assert "Viridis" in (run / "report.html").read_text() or "#440154" in (run / "report.html").read_text()
