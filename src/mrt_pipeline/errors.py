"""Errors whose message is meant for the user."""


class InputError(ValueError):
    """Something the user gave does not fit: says what is wrong, where, and what to do next."""
