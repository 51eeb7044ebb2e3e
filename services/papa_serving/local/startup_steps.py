"""The visible progress of start-up and shutdown: one line a step, with its time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

from papa_serving.terminal_text import harmless

_MARKS = {"ok": ("✓", "ok", "green"), "warning": ("!", "!", "yellow"), "error": ("✗", "x", "red")}


class Step:
    """One step under way; whoever does it may say what came out in `result`."""

    def __init__(self) -> None:
        self.result = ""


class StartupSteps:
    """On a terminal a spinner runs until a step's line is final; elsewhere the line is printed when the step ends."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Times what happens inside; a step that raises is marked and the exception goes on."""
        step, started = Step(), time.monotonic()
        try:
            if self.console.is_terminal:
                with self.console.status(f"{name} …"):
                    yield step
            else:
                yield step
        except BaseException:
            self._say("error", f" {name:<10} {time.monotonic() - started:6.1f} s")
            raise
        self._say("ok", f" {name:<10} {time.monotonic() - started:6.1f} s  {harmless(step.result)}")

    def _say(self, outcome: str, line: str) -> None:
        self.console.print(Text.assemble(mark(outcome, self.console), line), soft_wrap=True)


def mark(outcome: str, console: Console) -> tuple[str, str]:
    """The sign of "ok", "warning" or "error" and its colour; a terminal that has no such sign gets letters."""
    sign, letters, colour = _MARKS[outcome]
    return (sign if console.encoding.startswith("utf") else letters), colour
