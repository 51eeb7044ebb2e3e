"""What commands print: tables for people, one JSON document for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]

console = Console(highlight=False)
if not console.is_terminal:
    # A file or a pipe has no width of its own, and a table cut to 80 columns has lost its ids.
    console = Console(highlight=False, width=200)

messages = Console(stderr=True, highlight=False)
"""For what a person may like to see while a program reads standard output."""


def voice(json: bool) -> Console:
    """Where to say what goes on: beside the document where there is to be one."""
    return messages if json else console


def print_json(document: object) -> None:
    """Dataclasses become objects, times RFC 3339; bytes are left out (images go to files)."""
    print(json.dumps(_plain(document), indent=2, ensure_ascii=False))


def print_json_line(document: object) -> None:
    """The same on one line, at once, for commands that go on."""
    print(json.dumps(_plain(document), ensure_ascii=False), flush=True)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A plain table; its title may be empty."""
    table = Table(*columns, title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console.print(table)


def print_fields(fields: Mapping[str, object]) -> None:
    """One aligned line a field."""
    width = max(map(len, fields))
    for name, value in fields.items():
        console.print(f"[bold]{name:<{width}}[/bold]  {value}", soft_wrap=True)


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
