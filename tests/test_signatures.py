"""One order, kind and default of the arguments that public functions share."""

import inspect

import pytest

import pyrovae
from pyrovae.runtime.memory import MAX_WEIGHTS

SHARED = {
    "seed": 0,
    "device": None,
    "compile": None,
    "precision": "highest",
    "progress": True,
    "max_rows": None,
    "max_weights": MAX_WEIGHTS,
}
"""In the order in which they end a signature, with their defaults."""
PARTITIONS = ("by_fractions", "with_official_test")
"""Functions of a seed alone, which is no setting of a computation there."""


def public_functions():
    rooms = [pyrovae, *(getattr(pyrovae, name) for name in sorted(pyrovae._rooms))]
    found = {name: getattr(room, name) for room in rooms for name in getattr(room, "__all__", ()) if name not in PARTITIONS}
    return {f"{each.__module__}.{name}": each for name, each in found.items() if inspect.isfunction(each)}


functions = public_functions()


def parameters(function):
    return [*inspect.signature(function).parameters.values()]


def test_the_walk_finds_what_it_should():
    names = {name.rpartition(".")[2] for name in functions}
    assert {"fit", "log_likelihood", "bidirectional", "gradient_statistics", "kl_decomposition", "find_plates"} <= names


@pytest.mark.parametrize("name", functions)
def test_shared_arguments_end_the_signature_in_one_order(name):
    found = [each.name for each in parameters(functions[name])]
    shared = [each for each in found if each in SHARED]
    assert shared == [each for each in SHARED if each in found]
    assert found[len(found) - len(shared) :] == shared


@pytest.mark.parametrize("name", functions)
def test_shared_arguments_are_named_and_have_one_default(name):
    for each in parameters(functions[name]):
        if each.name in SHARED:
            assert each.kind is each.KEYWORD_ONLY, each
            assert each.default == SHARED[each.name], each


@pytest.mark.parametrize("name", functions)
def test_the_pair_comes_first_and_data_second(name):
    found = [each.name for each in parameters(functions[name])]
    if "pair" in found:
        assert found.index("pair") == 0
    if found[0] in ("pair", "pairs", "models") and {"data", "x"} & {*found}:
        assert found[1] in ("data", "x")
