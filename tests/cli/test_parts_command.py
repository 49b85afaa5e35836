"""The catalogue of parts."""

import pytest
from checks import assert_says, members

from pyrovae.cli import main
from pyrovae.cli.parts import bases, catalogue


def test_every_concrete_class_is_listed_with_its_arguments(capsys):
    assert main(["parts"]) == 0
    text = capsys.readouterr().out
    for room, base in bases.items():
        names = [cls.__name__ for cls in members(room, base)]
        assert set(names) == set(catalogue()[room.__name__.rpartition(".")[2]])
        assert all(f"\n{name}(" in text for name in names)
    assert "Mixture(components=10)" in text
    assert "    p(z) = 1/C ∑_{c=1}^C q(z | u_c)" in text
    assert "C(n, x_i)  π_i^{x_i} (1 - π_i)^{n - x_i}" in text
    assert max(map(len, text.splitlines())) <= 120
    assert not any(mark in text for mark in ("\\", "``", ":math:", "functools"))


def test_one_part_is_told_in_full_in_every_room_that_has_it(capsys):
    assert main(["parts", "StudentT"]) == 0
    text = capsys.readouterr().out
    assert "pyrovae.priors.StudentT(df=5.0)" in text
    assert "pyrovae.likelihoods.StudentT(scale=1.0, learned='fixed', df=5.0)" in text
    assert "    df: the degrees of freedom \N{GREEK SMALL LETTER NU}." in text
    assert "In YAML:    model: {likelihood: {class_path: StudentT, init_args: {...}}}" in text


@pytest.mark.parametrize(
    ("name", "place"),
    [("ConvDecoder", "model: {decoder:"), ("MLP", "model: {encoder:"), ("IWAE", "objective:"), ("Vamp", "model: {prior:")],
)
def test_how_to_ask_for_a_part(name, place, capsys):
    assert main(["parts", name]) == 0
    assert f"In YAML:    {place}" in capsys.readouterr().out


def test_every_entry_can_be_read(capsys):
    for parts in catalogue().values():
        for name in parts:
            assert main(["parts", name]) == 0
    text = capsys.readouterr().out
    assert not any(mark in text for mark in ("\\", "``", ":math:", ".. math::", ":class:", ":func:"))


def test_an_unknown_name_is_answered_with_the_nearest(capsys):
    assert main(["parts", "Mixtur"]) == 2
    assert_says(capsys.readouterr().err, "'Mixtur'", "'Mixture'")
