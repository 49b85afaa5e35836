"""What ``import pyrovae`` gives, and what it does not load."""

import subprocess
import sys

import pytest
from checks import refused

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


def test_what_trains_and_evaluates_needs_no_jsonargparse():
    """Who writes no configurations may do without it, in a container of few packages, say."""
    program = """
import importlib.abc, sys, warnings

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "jsonargparse":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
import torch
import pyrovae

try:
    pyrovae.load
except ModuleNotFoundError as error:
    assert error.name == "jsonargparse"
else:
    raise AssertionError("jsonargparse is there")
x = torch.randn(20, 3)
vae = pyrovae.VAE((3,), 2, likelihood=pyrovae.likelihoods.Normal)
pyrovae.fit(vae, x, epochs=1, progress=False, compile=False)
warnings.simplefilter("ignore", pyrovae.evaluation.ImportanceSamplingWarning)
estimate = pyrovae.log_likelihood(vae, x, num_samples=20, num_particles=(1,), progress=False, compile=False)
print(len(estimate.log_p), pyrovae.VAEEstimator.__name__)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "20 VAEEstimator", done.stderr


def test_an_unknown_name_is_an_attribute_error():
    with refused("'pyrovae'", "'nothing'", error=AttributeError):
        _ = pyrovae.nothing


def test_an_input_error_is_a_value_error():
    assert issubclass(pyrovae.InputError, ValueError)
