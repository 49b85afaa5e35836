"""What ``import pyrovae`` gives, and what it does not load."""

import subprocess
import sys

import pytest

import pyrovae

HEAVY = ("torch", "pyro", "numpy", "matplotlib", "arviz", "sklearn", "torchvision", "jsonargparse")


@pytest.mark.parametrize("name", pyrovae.__all__)
def test_every_public_name_resolves(name):
    value = getattr(pyrovae, name)
    assert value.__name__ == name
    assert value.__doc__
    assert value.__module__.startswith(f"pyrovae.{pyrovae._homes[name]}")
    assert name in dir(pyrovae)


def test_importing_loads_none_of_the_heavy_libraries():
    program = f"import sys, pyrovae; print([name for name in {HEAVY} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'pyrovae' has no attribute 'nothing'"):
        _ = pyrovae.nothing


def test_an_input_error_is_a_value_error():
    assert issubclass(pyrovae.InputError, ValueError)
