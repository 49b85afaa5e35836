"""Tables in plain text."""

import pytest

from pyrovae.runtime.text_table import table_lines


def test_columns_are_as_wide_as_their_widest_cells():
    rows = [("", "mean"), ("ELBO", "-100.25", "± 0.1"), ("a long name", "-9.5")]
    assert table_lines(rows, "<><") == [
        "                mean",
        "ELBO         -100.25  ± 0.1",
        "a long name     -9.5",
    ]


@pytest.mark.parametrize("indent", ["", "  "])
def test_every_line_is_indented_and_none_ends_in_spaces(indent):
    found = table_lines([("a", "b"), ("long", "")], "<<", indent)
    assert all(line.startswith(indent) and line == line.rstrip() for line in found)
