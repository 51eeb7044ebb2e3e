"""The visible progress of start-up and shutdown: one line a step, with its time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console


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
            self.console.print(f"[red]✗[/red] {name:<10} {time.monotonic() - started:6.1f} s")
            raise
        self.console.print(
            f"[green]✓[/green] {name:<10} {time.monotonic() - started:6.1f} s  {step.result}", soft_wrap=True
        )
