"""Shows the progress of start-up and shutdown: one line per step, with its duration."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

from papa_serving.terminal_text import harmless

_MARKS = {"ok": ("✓", "ok", "green"), "warning": ("!", "!", "yellow"), "error": ("✗", "x", "red")}


class Step:
    """A step in progress; its `result` is printed at the end."""

    def __init__(self) -> None:
        self.result = ""


class StartupSteps:
    """Prints a line when a step ends. On a terminal a spinner is shown until then."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Times the block. If the block raises, the step is marked as failed and the exception propagates."""
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
    """The sign and colour for "ok", "warning" or "error"; letters on a terminal without Unicode."""
    sign, letters, colour = _MARKS[outcome]
    return (sign if console.encoding.startswith("utf") else letters), colour
