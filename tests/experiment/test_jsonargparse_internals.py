"""What is relied on of jsonargparse beyond what it documents: each private name exists, and does what is relied on."""

import re
from pathlib import Path

import jsonargparse
import pytest
from jsonargparse import ArgumentParser, Namespace, _typehints, _util

import pyrovae
from pyrovae.experiment import jsonargparse_internals
from pyrovae.experiment.jsonargparse_internals import (
    defaults_left_behind,
    destinations,
    import_object,
    importing_by,
)


class Base:
    pass


class Former(Base):
    def __init__(self, size: int = 1, depth: int = 2):
        self.size, self.depth = size, depth


class Later(Base):
    def __init__(self, size: int = 10, depth: int = 20):
        self.size, self.depth = size, depth


@pytest.fixture
def parser():
    """Of one class, which begins as the former."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--part", type=Base, default={"class_path": f"{__name__}.Former", "init_args": {"size": 1}})
    return parser


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (_util, "import_object"),
        (_typehints, "import_object"),
        (_typehints, "is_importable_module_path"),
        (_typehints, "discard_init_args_on_class_path_change"),
        (ArgumentParser(), "_actions"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_every_private_name_exists(module, name):
    assert hasattr(module, name), f"jsonargparse {jsonargparse.__version__} has no {name}"
    uses = Path(jsonargparse_internals.__file__).read_text()
    assert re.search(rf"\b{name}\b", uses)


def test_no_other_file_uses_one():
    package = Path(pyrovae.__file__).parent
    private = re.compile(r"jsonargparse\._|from jsonargparse import .*\b_\w+|parser\._\w+")
    found = {path.name for path in package.rglob("*.py") if private.search(path.read_text())}
    assert found == {"jsonargparse_internals.py"}


@pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
def test_import_object_imports_a_dotted_name():
    assert _typehints.import_object is import_object
    assert import_object("pathlib.Path") is Path
    assert import_object("pathlib.Path", False) is Path
    with pytest.raises(ValueError, match="Expected a dot import path string: Path"):
        import_object("Path")


def test_names_are_imported_by_what_is_given(parser):
    """Those that a command line names, while parsing and while building; afterwards all is as it was."""
    asked = []

    def find(name, check_path=True):
        asked.append(name)
        return import_object(name, check_path)

    with importing_by(find):
        config = parser.parse_args(["--part", f"{__name__}.Later"])
        assert asked.count(f"{__name__}.Later") > 0
        asked.clear()
        parser.instantiate(config)
        assert asked.count(f"{__name__}.Later") > 0
    assert _typehints.import_object is import_object


def test_no_module_is_imported_by_its_bare_name():
    assert _typehints.is_importable_module_path("pathlib")
    with importing_by(import_object):
        assert not _typehints.is_importable_module_path("pathlib")


def test_another_class_begins_with_its_own_defaults(parser):
    """jsonargparse alone hands on those of the former, which is why this is needed."""
    argv = ["--part", f"{__name__}.Former", "--part.depth", "3", "--part", f"{__name__}.Later"]
    assert vars(parser.parse_args(argv).part.init_args) == {"size": 1, "depth": 3}
    with defaults_left_behind():
        assert vars(parser.parse_args(argv).part.init_args) == {"size": 10, "depth": 3}


def test_the_class_that_is_replaced_is_looked_up_as_every_other():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--size", type=int)

    def find(name, check_path=True):
        if name.endswith("Former") and check_path:
            raise ValueError("not trusted")
        return import_object(name, check_path)

    former = Namespace(class_path=f"{__name__}.Former", init_args=Namespace(size=1))
    later = Namespace(class_path=f"{__name__}.Later", init_args=Namespace())
    with importing_by(find), defaults_left_behind(), pytest.raises(ValueError, match="not trusted"):
        _typehints.discard_init_args_on_class_path_change(parser, former, later)


def test_destinations_are_the_names_of_the_options(parser):
    assert "part" in destinations(parser)
