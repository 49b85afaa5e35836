import pytest
import torch
from checks import refused

from pyrovae import VAE, fit
from pyrovae.runs import Run


@pytest.fixture
def former(tmp_path):
    """A run folder with everything that a run and its evaluation write."""
    run = Run(tmp_path / "run", config="former", split={"train": torch.arange(3).numpy()})
    train(run)
    (run.path / "figures").mkdir()
    for name in ("summary.json", "log_likelihood.nc", "samples.npz", "samples.png", "figures/loss_curve.png"):
        (run.path / name).write_text("former")
    return run.path


def train(run: Run) -> None:
    pair = VAE((4,), latent_dim=2)
    fit(pair, torch.ones(8, 4), epochs=1, run=run, progress=False)


def test_replaces_a_former_run_and_nothing_else(former):
    run = Run(former, overwrite=True, config="new")
    assert (former / "config.yaml").read_text() == "former"
    train(run)
    written = {"config.yaml", "manifest.json", "metrics.jsonl", "checkpoints", ".lock"}
    assert {path.name for path in former.iterdir()} == written
    assert (former / "config.yaml").read_text() == "new"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("thesis.tex", "thesis.tex"),
        ("thesis/notes.tex", "thesis"),
        ("figures/photo.jpg", "figures/photo.jpg"),
        ("checkpoints/mine.pt", "checkpoints/mine.pt"),
    ],
)
def test_a_run_with_a_foreign_file_is_kept(name, found, former):
    (former / name).parent.mkdir(exist_ok=True)
    (former / name).write_text("years of work")
    with refused(former, found):
        Run(former, overwrite=True)
    assert (former / name).read_text() == "years of work"


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["config.yaml"], "metrics.jsonl"),
        (["metrics.jsonl"], "checkpoints"),
        (["config.yaml", "summary.json", "metrics.jsonl"], "checkpoints"),
    ],
)
def test_names_of_a_run_do_not_make_one(names, found, tmp_path):
    for name in names:
        (tmp_path / name).write_text("of another program")
    with refused(tmp_path, found):
        Run(tmp_path, overwrite=True)


def test_looks_again_when_it_begins(former, tmp_path):
    run, late = Run(tmp_path / "new"), Run(former, overwrite=True)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "thesis.tex").write_text("years of work")
    (former / "thesis.tex").write_text("years of work")
    for each in (run, late):
        with refused(each.path), each.opened():
            pass
        assert (each.path / "thesis.tex").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_begins_once(overwrite, tmp_path):
    run = Run(tmp_path / "run", overwrite=overwrite)
    train(run)
    before = (run.path / "metrics.jsonl").read_text()
    with refused(run.path, "--resume (resume=True)"):
        train(run)
    assert (run.path / "metrics.jsonl").read_text() == before


def test_a_linked_folder_is_a_folder(former, tmp_path):
    (tmp_path / "link").symlink_to(former)
    train(Run(tmp_path / "link", overwrite=True, config="new"))
    assert (tmp_path / "link").is_symlink()
    assert (former / "config.yaml").read_text() == "new"


def test_links_are_not_followed(former, tmp_path):
    (former / "checkpoints").rename(tmp_path / "elsewhere")
    (former / "checkpoints").symlink_to(tmp_path / "elsewhere")
    with refused(former, "checkpoints"):
        Run(former, overwrite=True)
    (tmp_path / "broken").symlink_to(tmp_path / "absent")
    with refused(tmp_path / "broken", "link"):
        Run(tmp_path / "broken")
