"""The error for problems that a person at the command line can mend."""

from __future__ import annotations


class Failure(Exception):
    """`message` says in one line what is wrong, and `hint` says what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint
