"""The one error that this library raises for what it was handed."""


class InputError(ValueError):
    """Something handed in cannot be used; the message says what was found, what was expected, and the remedy."""
