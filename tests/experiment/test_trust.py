"""What the configuration of a run may name: our classes, torch's, and those of modules that the caller trusts."""

import gc
import sys
from itertools import product
from pathlib import Path

import pytest
import yaml
from checks import assert_says, refused, slow_but
from strangers import little_memory, soon, taken_as_sealed

from pyrovae import InputError, load
from pyrovae.cli import main
from pyrovae.cli.reopened import reopen
from pyrovae.experiment.guarded_imports import guarded
from pyrovae.experiment.schema import experiment_parser
from pyrovae.experiment.settings import parse_settings, read_settings

foreign = """
from pathlib import Path

import torch
from pyrovae.data import Data, Digits
from pyrovae.objectives import ELBO
from pyrovae.priors import StandardNormal
from subprocess import Popen
import os

Path(__file__).with_suffix(".imported").touch()


class Mine(StandardNormal):
    def __init__(self, latent_dim):
        Path(__file__).with_suffix(".called").touch()
        super().__init__(latent_dim)


class Encoder(torch.nn.Linear):
    def __init__(self, in_shape, out_shape):
        super().__init__(1, 1)


class Bound(ELBO):
    pass


class Noise(Digits):
    pass


class Optimizer(torch.optim.SGD):
    pass


class Numbered(StandardNormal):
    def __init__(self, latent_dim, numbers: dict[int, float]):
        assert numbers == {0: 1.5, -3: 2.0}
        super().__init__(latent_dim)


def make(latent_dim) -> StandardNormal:
    Path(__file__).with_suffix(".called").touch()
    return StandardNormal(latent_dim)
"""


pytestmark = pytest.mark.usefixtures("sealed_by_a_stranger")


@pytest.fixture(scope="module")
def _imported(_strangers_run):
    """What a run needs is imported."""
    with taken_as_sealed():
        load(_strangers_run)


@pytest.fixture
def run(_imported, strangers_run):
    return strangers_run


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module that can be imported, and leaves a mark where it is."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "stranger_module.py").write_text(foreign)
    monkeypatch.syspath_prepend(folder)
    yield folder / "stranger_module"
    sys.modules.pop("stranger_module", None)


def untouched(module: Path) -> bool:
    """Whether the module was neither imported nor anything of it called."""
    marks = [module.with_suffix(end) for end in (".imported", ".called")]
    return "stranger_module" not in sys.modules and not any(mark.exists() for mark in marks)


def change(run: Path, key: str, value: object) -> None:
    """Set what stands under a dotted key of the configuration."""
    path = run / "config.yaml"
    settings = yaml.safe_load(path.read_text())
    inner = settings
    *outer, last = key.split("/")
    for word in outer:
        inner = inner.setdefault(word, {})
    inner[last] = value
    path.write_text(yaml.safe_dump(settings))


def spec(name: str, **arguments: object) -> dict:
    return {"class_path": name, "init_args": arguments}


names = [
    "stranger_module.Mine",
    "stranger_module.make",
    "stranger_module.os.system",
    "os.system",
    "builtins.eval",
    "subprocess.Popen",
    "pathlib.Path",
    "functools.partial",
    "shutil.rmtree",
    "pyrovae.runs.folder.shutil.rmtree",
    "pyrovae.runs.run.Path",
    "pyrovae.runs.run.Run",
    "pyrovae.experiment.jsonargparse_internals.import_object",
    "pyrovae.cli.main",
    "pyrovae.__main__.main",
    "pyrovae.load",
    "pyrovae.vae.torch.hub.load",
    "pyrovae.training.stranger_module.Mine",
    "pyrovae_stranger.Mine",
    "torch.load",
    "torch.hub.load",
    "torch.nn.modules.module.torch.hub.load",
    "torch.nn.modules.module.functools.partial",
    "torch.nn.modules.module.warnings.os.system",
    "torch.nn.functional.relu",
    "torch.nn.utils.parametrize.register_parametrization",
    "torch.nn.init.normal_",
    "torch.nn.Parameter",
    "torch.nn.Module.load_state_dict",
    "torch.optim.optimizer.torch.load",
    "torch.distributed.launch.main",
    "torch.utils.cpp_extension.load_inline",
    "jsonargparse.set_parsing_settings",
    "unittest.mock.patch",
]
places = {
    "prior": lambda run, name: change(run, "model/prior", spec(name)),
    "prior, a string": lambda run, name: change(run, "model/prior", name),
    "encoder": lambda run, name: change(run, "model/encoder", spec(name)),
    "encoder, a string": lambda run, name: change(run, "model/encoder", name),
    "a guide's argument": lambda run, name: change(run, "model/guide/init_args", {"transform": spec(name)}),
    "an encoder's argument, a list": lambda run, name: change(run, "model/encoder/init_args/hidden", [[spec(name)]]),
    "an encoder's argument, a mapping": lambda run, name: change(
        run, "model/encoder/init_args", {"activation": {"a": name}}
    ),
    "other arguments": lambda run, name: change(run, "model/encoder/dict_kwargs", {"a": spec(name)}),
    "beside": lambda run, name: change(run, "model/other", spec(name)),
}


def quick(place, name):
    """Every name in one place, and a few in every place."""
    return place == "prior" or name in ("stranger_module.Mine", "os.system", "torch.hub.load")


@pytest.mark.parametrize(("place", "name"), slow_but(quick, product(places, names)))
def test_what_is_not_ours_is_neither_imported_nor_called(place, name, run, module, monkeypatch):
    before = {*sys.modules}
    places[place](run, name)
    with refused("config.yaml"):
        load(run)
    assert untouched(module)
    assert not {*sys.modules} - before - {"pyrovae.training.stranger_module"}


@pytest.mark.parametrize("command", ["evaluate", "report"])
@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("data", "stranger_module.Noise"),
        ("objective", "stranger_module.Bound"),
        ("training/optimizer", "stranger_module.Optimizer"),
        ("training/scheduler", "stranger_module.make"),
        ("training/optimizer/init_args/lr", {"class_path": "stranger_module.make"}),
        ("training/scheduler", {"class_path": "torch.optim.lr_scheduler.LambdaLR", "init_args": {"lr_lambda": "os.getenv"}}),
    ],
)
def test_no_command_imports_it(command, key, name, run, module, capsys):
    change(run, key, name if isinstance(name, dict) else spec(name))
    assert main([command, str(run)]) == 2
    said = capsys.readouterr().err
    assert_says(said, "config.yaml", "--trust")
    assert untouched(module)


def test_sample_does_not_either_and_says_what_would(run, module, capsys):
    change(run, "model/prior", spec("stranger_module.Mine"))
    assert main(["sample", str(run)]) == 2
    said = capsys.readouterr().err
    assert_says(said, run / "config.yaml", "'stranger_module.Mine'", "trust=['stranger_module']", "--trust stranger_module")
    assert untouched(module)


def test_what_is_trusted_is_built(run, module):
    change(run, "model/prior", spec("stranger_module.Mine"))
    assert type(load(run, trust=["stranger_module"]).model.prior).__module__ == "stranger_module"
    change(run, "model/prior", "stranger_module.make")
    assert type(load(run, trust=["stranger_module"]).model.prior).__module__ == "pyrovae.priors.standard_normal"
    change(run, "model/prior", spec("stranger_module.Numbered", numbers={0: 1.5, -3: 2.0}))
    assert type(load(run, trust=["stranger_module"]).model.prior).__name__ == "Numbered"
    assert main(["sample", str(run), "--trust", "stranger_module", "--number", "2"]) == 0
    assert main(["evaluate", str(run), "--trust", "other", "--trust", "stranger_module", "--num_samples", "60"]) == 0
    assert main(["report", str(run), "--trust=stranger_module"]) == 0


def test_keys_of_a_mapping_are_not_unfolded_either(run, module):
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["model"]["prior"] = {"init_args": {"init_args": {flow_laughs: 1.0}}}
    with soon(), little_memory(512), refused("config.yaml", "&", "*"):
        read_settings(yaml.safe_dump(settings), run / "config.yaml")


@pytest.mark.parametrize("name", ["stranger_module.Popen", "stranger_module.os.system", "stranger_module.Path"])
def test_what_a_trusted_module_imported_is_not_trusted_with_it(name, run, module):
    change(run, "model/prior", spec(name))
    with refused("config.yaml"):
        load(run, trust=["stranger_module"])


@pytest.mark.parametrize("trust", ["stranger_module", ["stranger module"], ["a..b"], [3], [""]])
def test_trust_is_a_list_of_modules(trust, run):
    with refused("trust", repr(trust), ["my_priors"]):
        load(run, trust=trust)


def test_a_short_name_does_not_find_a_foreign_class_that_is_already_imported(run, module):
    import stranger_module  # noqa: F401 (found by its name)

    change(run, "model/prior", spec("Mine"))
    with refused("config.yaml", "'stranger_module.Mine'"):
        load(run)
    assert not module.with_suffix(".called").exists()


def test_another_thread_may_import_meanwhile(run):
    """As torch does when a process of a group was lost; here collecting garbage imports, and every object has it done."""

    def importing(phase, _):
        if phase == "start" and sys.modules.pop("imported", None) is None:
            sys.modules["imported"] = sys

    thresholds = gc.get_threshold()
    gc.callbacks.append(importing)
    gc.set_threshold(1)
    try:
        with guarded(run):
            pass
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(importing)
        sys.modules.pop("imported", None)


def hidden(text: str) -> str:
    """A configuration that has a string in the place of a network's sizes."""
    return f"model: {{encoder: {{class_path: pyrovae.networks.MLP, init_args: {{hidden: {text!r}}}}}}}"


flow_laughs = "[&a0 [x, x]" + "".join(f", &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 11)) + "]"
laughs = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 11))
texts = {
    "a tag that calls": "model: !!python/object/apply:os.system ['touch {mark}']",
    "a tag of a name": "model: {prior: !!python/name:os.system ''}",
    "a tag of a module": "!!python/module:stranger_module ''",
    "a plain tag": "model: {latent_dim: !!int '3'}",
    "laughs": laughs,
    "laughs in a string": hidden(laughs),
    "laughs in a string for a number": f"model: {{latent_dim: {flow_laughs!r}}}",
    "laughs in a string in a string": hidden(f"[{flow_laughs!r}]"),
    "merges": f"model: [&a0 {{x: 1}}{''.join(f', &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}' for n in range(1, 11))}]",
    "many aliases of many values": f"a: &a [{'1, ' * 400}]\nmodel: {{b: [{'*a, ' * 400}]}}",
    "a long list in a string": hidden(f"[{'1, ' * 600}]"),
    "deep, in a string": hidden("[" * 600),
    "deep without brackets": hidden("- " * 600),
    "an alias of itself": "model: &a [*a]",
    "two aliases of itself": "model: &a [*a, *a]",
    "deep": "model: " + "[" * 200,
    "deep mappings": "model: " + "{a: " * 200,
    "a large number": "model: {latent_dim: " + "9" * 4_000 + "}",
    "a number too large to be written": "model: {latent_dim: " + "9" * 5_000 + "}",
    "a number to the base of sixty": "model: {latent_dim: " + "59:" * 2_000 + "0}",
    "a hexadecimal number": "model: {latent_dim: 0x" + "f" * 3_000 + "}",
    "many values": "model: [" + "a, " * 5_000 + "]",
    "a long list": "model: {encoder: {class_path: pyrovae.networks.MLP, init_args: {hidden: [" + "1, " * 600 + "]}}}",
    "many bytes": "#" * 2**21,
    "another file": "config: {mark}\nmodel: {latent_dim: 2}",
    "an order": "print_config: true\nmodel: {latent_dim: 2}",
    "help": "model: {prior.help: stranger_module.Mine}",
    "help, nested": "model: {prior: {help: stranger_module.Mine}}",
    "a dotted order": "model.prior.help: stranger_module.Mine",
    "a path": "model: {__path__: {mark}}",
    "defaults": "__default_config__: {mark}\nmodel: {latent_dim: 2}",
    "an appended setting": "model: {encoder+: [1]}",
    "an interpolation": "model: {prior: '${oc.env:HOME}'}",
    "a type expression": "model: {encoder: 'list[stranger_module.Mine]'}",
    "a literal": "model: {encoder: \"__import__('os').system('touch {mark}')\"}",
    "a file of settings": "model: {encoder: {mark}}",
    "an address": "model: {encoder: 'https://localhost/encoder.yaml'}",
    "no text": b"\xff\xfe\x00\x01".decode("latin-1") + "\x00",
    "keys that are none": "model: {? [a, b] : 1}",
    "a number for a name": "model: {3: 4}",
    "a date": "model: {latent_dim: 2001-99-99}",
    "a date that is one": "model: {latent_dim: 2001-01-01}",
    "a merge": "a: &a {prior: os.system}\nmodel: {<<: *a}",
    "nothing": "",
    "a class that is a mapping": "model: {prior: {class_path: {a.b: c.d}}}",
    "a class that is a list": "model: {prior: {class_path: [os.system]}}",
    "a list": "[1, 2]",
    "two documents": "model: {}\n---\nmodel: {}",
}


@pytest.mark.parametrize("name", texts)
def test_yaml_that_is_no_configuration_is_refused(name, run, module):
    text = texts[name].replace("{mark}", str(module.with_suffix(".called")))
    (run / "config.yaml").write_text(text)
    with refused("config.yaml"):
        load(run)
    assert untouched(module)


def test_a_configuration_that_leads_to_another_file_is_refused_by_every_command(run, module, capsys):
    (module.parent / "other.yaml").write_text("data: {class_path: stranger_module.Noise}")
    change(run, "config", str(module.parent / "other.yaml"))
    for command in ("evaluate", "report", "sample"):
        assert main([command, str(run)]) == 2
        assert_says(capsys.readouterr().err, run / "config.yaml", "pyrovae train")
    assert untouched(module)


def test_aliases_that_stand_for_little_are_read(run):
    text = (run / "config.yaml").read_text()
    assert "- 4" in text
    written = "      hidden:\n      - 4\n"
    shared = text.replace(written, "      hidden: &h [4]\n", 1).replace(written, "      hidden: *h\n", 1)
    assert shared.count("hidden: *h") == 1
    (run / "config.yaml").write_text(shared)
    load(run)


def test_what_the_user_names_is_free(run, module, tmp_path):
    """A configuration that is handed to ``train`` is the user's own."""
    argv = ["train", "--config", str(run / "config.yaml"), "--run", str(tmp_path / "again")]
    assert main([*argv, "--model.prior", "stranger_module.Mine"]) == 0
    assert module.with_suffix(".called").exists()


def test_the_guard_ends(run, module):
    """Nothing of it is left, also after a refusal."""
    from jsonargparse import _typehints, _util

    before = _typehints.import_object, {**vars(_util)}
    change(run, "model/prior", spec("os.system"))
    with pytest.raises(InputError):
        load(run)
    assert (_typehints.import_object, {**vars(_util)}) == before
    load_settings = parse_settings(experiment_parser(), {"data": spec("pyrovae.data.Digits")}, run / "config.yaml")
    assert load_settings.data.class_path == "pyrovae.data.Digits"


def test_a_refusal_is_raised_also_where_it_was_caught(run, module):
    from jsonargparse import _typehints

    def swallow() -> None:
        try:
            _typehints.import_object("stranger_module.Mine")
        except ValueError:
            return

    with refused("config.yaml", "'stranger_module.Mine'"), guarded(run / "config.yaml"):
        swallow()
    assert untouched(module)


def test_settings_of_a_run_are_those_that_were_trained(run):
    settings = read_settings((run / "config.yaml").read_text(), run / "config.yaml")
    assert settings == yaml.safe_load((run / "config.yaml").read_text())
    opened = reopen(run, ["--data.test", "0.15"])
    assert opened.config.training.optimizer.class_path == "torch.optim.Adam"
