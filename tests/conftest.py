import os
import random
import shutil
from pathlib import Path

import pyro
import pytest
import torch

torch.set_num_threads(1)  # the tensors are small, and processes of pytest-xdist share the cores


def pytest_addoption(parser):
    parser.addoption("--shuffle", type=int, metavar="SEED", help="run files, and the tests of each, in another order")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Use all cores where no files are named, and pytest-xdist is there and not told otherwise."""
    unasked = config.args_source is config.ArgsSource.TESTPATHS and not hasattr(config, "workerinput")
    if unasked and config.pluginmanager.hasplugin("xdist") and config.option.numprocesses is None:
        config.option.numprocesses, config.option.dist = "auto", "worksteal"


def pytest_collection_modifyitems(config, items):
    """Skip what the machine has no device, or the user no data, for; shuffle where that is asked for."""
    lacking = {"cuda": not torch.cuda.is_available(), "mnist": "PYROVAE_DATA" not in os.environ}
    reasons = {"cuda": "no CUDA device", "mnist": "PYROVAE_DATA names no folder with MNIST"}
    for item in items:
        for marker in item.iter_markers():
            if lacking.get(marker.name):
                item.add_marker(pytest.mark.skip(reasons[marker.name]))
    seed = config.getoption("--shuffle", None)
    if seed is not None:
        items[:] = shuffled(items, random.Random(seed))


def shuffled(items, generator):
    """Files, and the tests of each, in another order, so that what a file shares is still made once."""
    files = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    for tests in files.values():
        generator.shuffle(tests)
    return [item for tests in generator.sample([*files.values()], len(files)) for item in tests]


@pytest.fixture(autouse=True)
def clean_slate():
    """Every test begins with an empty parameter store and the same random numbers, and leaves no setting changed."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    dtype = torch.get_default_dtype()
    with pyro.validation_enabled(True):
        yield
    torch.set_default_dtype(dtype)
    pyro.clear_param_store()


@pytest.fixture
def float64(clean_slate):
    torch.set_default_dtype(torch.float64)


@pytest.fixture
def unfused(monkeypatch):
    """Recorded programs that are run as graphs of tensor operations, which spares every test a compiler's run."""
    monkeypatch.setattr(torch._inductor, "compile", lambda graph, inputs, options: graph)


@pytest.fixture
def sealed_by_a_stranger():
    """Every file is what was written."""
    from strangers import taken_as_sealed

    with taken_as_sealed():
        yield


@pytest.fixture(scope="session")
def _strangers_run(tmp_path_factory):
    from strangers import make_run

    return make_run(tmp_path_factory.mktemp("strangers"))


@pytest.fixture
def strangers_run(_strangers_run, tmp_path) -> Path:
    """A run folder that somebody made, to change."""
    return Path(shutil.copytree(_strangers_run, tmp_path / "run"))
