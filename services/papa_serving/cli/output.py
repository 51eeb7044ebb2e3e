"""The output of commands: tables for people, one JSON document for programs."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text
from typing_extensions import override

from papa_serving.local.failure import Failure
from papa_serving.terminal_text import harmless

_ANY_WIDTH = 10_000

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]


class PlainConsole(Console):
    """Prints text literally: data are never markup, control characters become visible, and nothing is truncated.

    Styles come from a `rich.text.Text` (see `styled`), never from the text itself.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, soft_wrap=True, **options)
        if not self.is_terminal and "width" not in options:
            self.width = _ANY_WIDTH  # a file or a pipe has no width of its own

    @override
    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(harmless(each, lines=True) if isinstance(each, str) else each for each in objects), **options)


console = PlainConsole()

messages = PlainConsole(stderr=True)
"""The console for messages to a person while a program reads standard output."""


def styled(*parts: str | tuple[str, str]) -> Text:
    """One line of several parts, each a text or a text with its style."""
    plain = ((part, "") if isinstance(part, str) else part for part in parts)
    return Text.assemble(*((harmless(text, lines=True), style) for text, style in plain))


def claim_document() -> None:
    """Reserves standard output for JSON. All other output of this process and its children goes to stderr."""
    global _document  # noqa: PLW0603 - there is one standard output
    if _document is None:
        sys.stdout.flush()
        _document = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)


_document: TextIO | None = None


def voice(json: bool) -> Console:
    """The console for progress messages: standard error when a JSON document is printed."""
    return messages if json else console


def check_writable(folder: Path, hint: str = "name another folder with --out") -> None:
    """Checks that `folder` can be written, before any work is done. Raises Failure with the `hint`."""
    existing = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    if not existing.is_dir():
        raise Failure(f"{folder} cannot be written: {existing} is no folder", hint)
    if not os.access(existing, os.W_OK | os.X_OK):
        raise Failure(f"{folder} cannot be written: {existing} is closed to this user", hint)
    # Root may write everywhere by the permissions, and yet not to /proc, to a read-only mount or to a full disk.
    try:
        with tempfile.TemporaryFile(dir=existing) as probe:
            probe.write(b"\0")
    except OSError as error:
        raise Failure(f"{folder} cannot be written: {error.strerror or error}", hint) from error


def print_json(document: object) -> None:
    """Prints a JSON document. Dataclasses become objects, times RFC 3339; bytes are left out (images go to files)."""
    print_text(json.dumps(_plain(document), indent=2, ensure_ascii=True))


def print_json_line(document: object) -> None:
    """Prints a JSON document on one line and flushes it, for commands that go on."""
    print_text(json.dumps(_plain(document), ensure_ascii=True))


def complain(text: str) -> None:
    """Prints one line on standard error; the text may contain anything."""
    print(f"papa: {harmless(text)}", file=sys.stderr)


def print_text(text: str) -> None:
    """Prints a document unchanged on standard output and flushes it."""
    print(text, file=_document or sys.stdout, flush=True)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints a table. If it is wider than the terminal, each cell gets a line: ids stay whole."""
    cells = [[Text(harmless(str(cell))) for cell in row] for row in rows]
    table = Table(*columns, title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for row in cells:
        table.add_row(*row)
    wide = Measurement.get(console, console.options.update(width=_ANY_WIDTH), table).maximum
    if wide <= console.width:
        console.print(table, soft_wrap=False)
        return
    for row in cells:
        print_fields({column: cell.plain for column, cell in zip(columns, row, strict=True)})
        console.print()


def print_fields(fields: Mapping[str, object]) -> None:
    """Prints one aligned line per field."""
    width = max(map(len, fields))
    for name, value in fields.items():
        console.print(styled((f"{name:<{width}}", "bold"), f"  {harmless(str(value))}"))


def amount(count: int) -> str:
    """A number of bytes for people: "1.60 GiB"."""
    size, units = float(count), ["bytes", "KiB", "MiB", "GiB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        del units[0]
    return f"{count:,} bytes" if units[0] == "bytes" else f"{size:,.2f} {units[0]}"


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items() if not isinstance(each, bytes)}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value
