"""What a person at the command line can mend."""

from __future__ import annotations


class Failure(Exception):
    """One line that says what is wrong, and a `hint` that says what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint
