"""Errors of programs that cannot be recorded, which name a line of the user's own code."""

import pytest
from checks import assert_says

from pyrovae.compiling.refusals import NotRecordedError, refused
from pyrovae.engine.programs import programs


def test_an_error_raised_in_the_library_names_the_users_line():
    with pytest.raises(NotRecordedError) as caught, refused():
        programs(None, "x")
    assert_says(str(caught.value), "InputError", "test_refusals.py", "x", "NoneType")
