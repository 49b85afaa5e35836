import shutil
from pathlib import Path

import pytest
from strangers import make_run, taken_as_sealed


@pytest.fixture
def sealed_by_a_stranger():
    """Every file is what was written."""
    with taken_as_sealed():
        yield


@pytest.fixture(scope="session")
def _strangers_run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("strangers"))


@pytest.fixture
def strangers_run(_strangers_run, tmp_path) -> Path:
    """A run folder that somebody made, to change."""
    return Path(shutil.copytree(_strangers_run, tmp_path / "run"))
