"""`papa catalogue`: fills and shows a tenant's catalogues of real items."""

from __future__ import annotations

import itertools
import json as json_format
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from papa_serving.cli.connection import Address, Tenant, connect
from papa_serving.cli.output import AsJson, complain, console, print_fields, print_json, print_table, voice
from papa_serving.client import Client, NewItem, PutOutcome
from papa_serving.client.catalogue_wire import catalogue_message, put_request
from papa_serving.local.failure import Failure

catalogue = typer.Typer(name="catalogue", no_args_is_help=True, help="Your real items: import, list, delete.")

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
BATCH, BATCH_BYTES = 64, 4 * 2**20
"""Items and bytes of pictures of one call."""
PATIENCE = 60.0
"""Seconds for which an item that the service has no time for is sent again."""
REPORTED = 20
"""Refused items of which the reason is printed; the others are counted."""

Name = Annotated[str, typer.Option("--catalogue", help="The catalogue's name; its default one when absent.")]
ItemIds = Annotated[list[str], typer.Argument(metavar="ITEM...", help="Your own ids of the items.", show_default=False)]


@dataclass
class Tally:
    """What became of the items of an import, by outcome, and why some were refused."""

    outcomes: Counter[str] = field(default_factory=Counter)
    refused: dict[str, str] = field(default_factory=dict)

    def count(self, outcome: PutOutcome) -> None:
        """Counts one item."""
        if outcome.error is not None:
            self.refuse(outcome.item_id, outcome.error.message)
        elif outcome.result is not None:
            self.outcomes[outcome.result.value] += 1

    def refuse(self, item_id: str, why: str) -> None:
        """Counts one item that was not stored."""
        self.outcomes["refused"] += 1
        self.refused[item_id] = why


@catalogue.command("import")
def import_items(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER|JSONL", help="A folder of pictures, or a file with one JSON object a line.", exists=True
        ),
    ],
    name: Name = "",
    address: Address = "",
    tenant: Tenant = "",
    json: AsJson = False,
) -> None:
    """Add a folder's pictures, or the items of a JSONL file, to a catalogue.

    Of a folder, the path below it is the item's id, and its subfolder the value of the key "folder". A line of a JSONL
    file has "item_id", "image" (a path, from the file's folder) or "embedding" and "encoder", and "metadata".

    Run it again to go on after an interruption, or to take up changes: unchanged items are left as they are.
    """
    tally, total = Tally(), _count(source)
    with connect(address, tenant) as client, _progress(json) as progress:
        task = progress.add_task("importing", total=total)
        most = client.server_info().limits.max_message_bytes
        items = _of_folder(source, most) if source.is_dir() else _of_lines(source, most)
        for batch in _batches(items, tally, most):
            _send(client, batch, name, tally)
            progress.update(task, completed=tally.outcomes.total())
    _report(tally, json)


@catalogue.command("list")
def list_catalogues(address: Address = "", tenant: Tenant = "", json: AsJson = False) -> None:
    """The catalogues, with the number of items of each."""
    with connect(address, tenant) as client:
        found = client.catalogues()
    if json:
        print_json(found)
        return
    rows = [(each.name, each.items, _era(each.encoder, found.encoder)) for each in found.catalogues]
    print_table("", ("catalogue", "items", "embedded as"), rows)


@catalogue.command()
def items(
    name: Name = "",
    count: Annotated[int, typer.Option("--count", min=1, help="How many at most.")] = 100,
    address: Address = "",
    tenant: Tenant = "",
    json: AsJson = False,
) -> None:
    """The items of a catalogue, in the order of their ids."""
    with connect(address, tenant) as client:
        found = list(itertools.islice(client.list_catalogue_items(catalogue=name, page_size=min(count, 1_000)), count))
    if json:
        print_json(found)
        return
    rows = [(each.item_id, f"{each.updated_at:%Y-%m-%d %H:%M:%S}", _told(each.metadata)) for each in found]
    print_table("", ("item", "updated", "metadata"), rows)


@catalogue.command()
def delete(
    item_ids: ItemIds, name: Name = "", address: Address = "", tenant: Tenant = "", json: AsJson = False
) -> None:
    """Remove items. No search finds them any more."""
    with connect(address, tenant) as client:
        deleted = client.delete_catalogue_items(item_ids, catalogue=name)
    if json:
        print_json({"deleted": deleted})
    else:
        console.print(f"{deleted} deleted")


def _of_folder(folder: Path, most: int) -> Iterator[Callable[[], NewItem]]:
    for path in _pictures(folder):
        yield lambda path=path: _pictured(folder, path, most)  # type: ignore[misc]


def _pictures(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in PICTURES and path.is_file())


def _pictured(folder: Path, path: Path, most: int) -> NewItem:
    """Raises ValueError, OSError."""
    inside = path.relative_to(folder)
    parent = inside.parent.as_posix()
    return NewItem(inside.as_posix(), _bytes_of(path, most), {} if parent == "." else {"folder": parent})


def _bytes_of(path: Path, most: int) -> bytes:
    """Raises ValueError for a file that no message can hold, OSError."""
    if (size := path.stat().st_size) > most:
        raise ValueError(f"{path.name} has {size} bytes, and a message may have {most}")
    return path.read_bytes()


def _of_lines(file: Path, most: int) -> Iterator[Callable[[], NewItem]]:
    with _lines(file) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield lambda line=line, number=number: _lined(file, line, number, most)  # type: ignore[misc]


def _lined(file: Path, line: str, number: int, most: int) -> NewItem:
    """Raises ValueError, OSError."""
    given = json_format.loads(line)
    if not isinstance(given, dict) or not isinstance(given.get("item_id"), str):
        raise ValueError(f'line {number} is no object with a text "item_id"')
    if strange := set(given) - {"item_id", "image", "embedding", "encoder", "metadata"}:
        raise ValueError(f"line {number}: there is no field {', '.join(sorted(strange))}")
    image = _bytes_of(file.parent / given["image"], most) if "image" in given else b""
    return NewItem(
        given["item_id"],
        image,
        _read_metadata(given.get("metadata") or {}, number),
        tuple(given.get("embedding") or ()),
        given.get("encoder") or "",
    )


def _read_metadata(given: Any, number: int) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise ValueError(f"line {number}: metadata is no object")
    bad = [key for key, value in given.items() if not _is_value(value)]
    if bad:
        raise ValueError(f"line {number}: a value is a text, a number, true or false, or a list of texts ({bad[0]})")
    return {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}


def _is_value(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(each, str) for each in value)
    return isinstance(value, str | int | float | bool)


def _lines(file: Path) -> TextIO:
    """The file, of which a line that is not UTF-8 can still be read, so that it can be refused by itself."""
    return file.open(encoding="utf-8", errors="surrogateescape")


def _count(source: Path) -> int:
    if source.is_dir():
        return sum(1 for _ in _pictures(source))
    try:
        with _lines(source) as lines:
            return sum(1 for line in lines if line.strip())
    except OSError as error:
        raise Failure(f"{source} cannot be read: {error}", "give a folder, or a JSONL file in UTF-8") from error


def _batches(reads: Iterable[Callable[[], NewItem]], tally: Tally, most: int) -> Iterator[list[NewItem]]:
    """Reads items and groups them. One that cannot be read, or sent, is counted as refused."""
    batch: list[NewItem] = []
    size = 0
    for number, read in enumerate(reads, 1):
        try:
            item = read()
            if (sent := put_request(item, catalogue_message("", "")).ByteSize()) > most:
                raise ValueError(f"{item.item_id} has {sent} bytes, and a message may have {most}")
        except (ValueError, TypeError, OSError, OverflowError, RecursionError) as error:
            tally.refuse(f"number {number}", str(error))
            continue
        if batch and (len(batch) == BATCH or size + len(item.image) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += len(item.image)
    if batch:
        yield batch


def _send(client: Client, batch: list[NewItem], name: str, tally: Tally) -> None:
    """Sends a batch, and again those of it that the service had no time for."""
    left, until = {item.item_id: item for item in batch}, time.monotonic() + PATIENCE
    while left:
        outcomes = client.put_catalogue_items(list(left.values()), catalogue=name, timeout=10 * PATIENCE)
        again = [each for each in outcomes if each.error is not None and each.error.retry_after]
        if time.monotonic() > until:
            again = []
        for outcome in outcomes:
            if outcome not in again:
                tally.count(outcome)
        left = {each.item_id: left[each.item_id] for each in again}
        if again:
            time.sleep(max(each.error.retry_after or 0.0 for each in again if each.error))


def _progress(json: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=voice(json), transient=True)


def _report(tally: Tally, json: bool) -> None:
    if json:
        print_json({"outcomes": dict(tally.outcomes), "refused": tally.refused})
    else:
        print_fields({name: tally.outcomes[name] for name in ("added", "replaced", "unchanged", "refused")})
        for item_id, why in itertools.islice(tally.refused.items(), REPORTED):
            complain(f"{item_id}: {why}")
        if (more := len(tally.refused) - REPORTED) > 0:
            complain(f"and {more} more; --json names them all")
    if tally.refused:
        raise typer.Exit(1)


def _era(encoder: str, now: str) -> str:
    if not now:
        return "unknown: the generator does not answer"
    return "now" if encoder == now else "formerly"


def _told(metadata: Mapping[str, object]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(metadata.items()))
