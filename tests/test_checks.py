"""The checks themselves: they must fail where they should."""

import warnings

import pytest
from checks import assert_says, refused, warned

from pyrovae.errors import InputError


class TestRefused:
    def test_all_words_are_there_and_the_exception_is_handed_over(self):
        with refused("rank", 0, "'z'", r"f(x)") as caught:
            raise InputError("rank is 0 at site 'z'; take f(x)")
        assert isinstance(caught.value, InputError)

    def test_a_word_is_missing_and_the_text_is_shown(self):
        with pytest.raises(AssertionError, match=r"\['rank'\] not in: levels is 0"), refused("rank", 0):
            raise InputError("levels is 0")

    def test_nothing_is_raised(self):
        with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"), refused("rank"):
            pass

    def test_an_error_of_another_type_passes_through(self):
        with pytest.raises(ValueError, match=r"^rank$"), refused("rank"):
            raise ValueError("rank")

    def test_another_type_may_be_asked_for(self):
        with refused("rank", error=ValueError):
            raise ValueError("rank")


def warn(**categories: type[Warning]) -> None:
    """Warn of texts, each of its category."""
    for text, category in categories.items():
        warnings.warn(text, category, stacklevel=2)


class TestWarned:
    def test_one_of_the_warnings_has_all_words(self):
        with warned("eager", category=RuntimeWarning) as caught:
            warn(other=RuntimeWarning, eager=RuntimeWarning)
        assert len(caught) == 2

    def test_the_words_are_in_no_single_warning(self):
        with pytest.raises(AssertionError, match="no warning has all of"), warned("eager", "x"):
            warn(eager=UserWarning, x=UserWarning)

    @pytest.mark.filterwarnings("ignore")
    def test_a_warning_of_another_category_does_not_count(self):
        with pytest.raises(AssertionError, match="no warning has all of"), warned("eager", category=RuntimeWarning):
            warn(eager=UserWarning, other=RuntimeWarning)

    def test_nothing_is_warned_of(self):
        with pytest.raises(pytest.fail.Exception, match="DID NOT WARN"), warned("eager"):
            pass


@pytest.mark.parametrize("text", ["z", "'z'", "site 'z', of", "(z)", "z.", "x=z,"])
def test_a_word_may_stand_beside_any_sign(text):
    assert_says(text, "z")


@pytest.mark.parametrize(
    ("word", "text"), [("z", "zz"), ("z", "a_z"), (3, "13"), (3, "3.5"), (3, "0.3"), (3, "3,000"), (1.5, "1.55"), ("a", "")]
)
def test_a_part_of_a_word_or_number_is_not_the_word(word, text):
    with pytest.raises(AssertionError):
        assert_says(text, word)
