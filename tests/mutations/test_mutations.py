"""That every fault can still be made: its text stands once in the library, and its tests are there."""

from pathlib import Path

import pytest

from tests.mutations.__main__ import file_of, files_of
from tests.mutations.mutations import MUTATIONS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.text)
def test_it_can_be_made(mutation):
    path = file_of(mutation.text, ROOT / "pyrovae")
    compile(path.read_text().replace(mutation.text, mutation.wrong), path, "exec")
    assert files_of(mutation.tests, ROOT / "tests")
