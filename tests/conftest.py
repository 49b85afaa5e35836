import os
import shutil
from pathlib import Path

import pyro
import pytest
import torch

torch.set_num_threads(1)  # the tensors are small, and processes of pytest-xdist share the cores


def pytest_collection_modifyitems(items):
    """Skip what the machine has no device, or the user no data, for."""
    lacking = {"cuda": not torch.cuda.is_available(), "mnist": "PYROVAE_DATA" not in os.environ}
    reasons = {"cuda": "no CUDA device", "mnist": "PYROVAE_DATA names no folder with MNIST"}
    for item in items:
        for marker in item.iter_markers():
            if lacking.get(marker.name):
                item.add_marker(pytest.mark.skip(reasons[marker.name]))


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
