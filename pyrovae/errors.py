"""The one error that this library raises for what it was handed."""


class InputError(ValueError):
    """Something handed in cannot be used; the message says what was found, what was expected, and the remedy."""


def require_positive(**numbers: int | None) -> None:
    """Raise an InputError for a number below 1; None stands for one that is found later."""
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise InputError(f"{name} is {number}; expected at least 1")
