"""Configurations of strangers are bounded before they are read."""

import pytest

from pyrovae.untrusted.plain_yaml import LENGTH, read_yaml


def test_a_value_of_too_many_characters_is_refused():
    assert read_yaml(f"a: {'x' * LENGTH}") == {"a": "x" * LENGTH}
    with pytest.raises(ValueError, match=r"a value in line 2 has more than 4,096 characters"):
        read_yaml(f"a: 1\nb: {'x' * (LENGTH + 1)}")
