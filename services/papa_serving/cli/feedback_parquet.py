"""Reads the rows of a Parquet file as the JSON lines of a history.

Ids that were written as numbers become texts, empty cells (null, NaN) are left out, maps become objects.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any

from papa_serving.local.failure import Failure

ROWS = 1_000
"""Rows that are converted at once."""
ROW_BYTES = 256
"""About the size of a row as a line. Parquet compresses, so that its own size says little."""
EXACT = 2**53
"""Whole numbers below it survive as a double, which is what a column of ids with gaps often is."""
_INDEX = re.compile(r"__index_level_\d+__")
"""The columns that pandas adds for its index."""


def parquet_size(file: Path) -> int:
    """About the bytes of the rows as lines. Raises Failure."""
    return int(_opened(file).metadata.num_rows) * ROW_BYTES


def parquet_texts(file: Path) -> Iterator[bytes]:
    """Each row as a JSON line. Raises Failure without pyarrow, or for a file that cannot be read."""
    opened, pyarrow = _opened(file), import_module("pyarrow")
    try:
        for batch in opened.iter_batches(ROWS):
            for row in _in_microseconds(pyarrow.Table.from_batches([batch]), pyarrow).to_pylist():
                yield text_of(row)
    except (OSError, ValueError, OverflowError, LookupError, pyarrow.ArrowException) as error:
        raise Failure(f"{file} cannot be read: {error}") from error


def _opened(file: Path) -> Any:
    try:
        pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ModuleNotFoundError as missing:
        hint = "pip install pyarrow, or convert the file to JSONL"
        raise Failure("Parquet needs pyarrow", hint) from missing
    try:
        return parquet.ParquetFile(file)
    except (OSError, pyarrow.ArrowException) as error:
        raise Failure(f"{file} cannot be read: {error}") from error


def _in_microseconds(table: Any, pyarrow: Any) -> Any:
    """The table with times as Python can hold them; pandas writes nanoseconds."""
    for place, column in enumerate(table.schema):
        if pyarrow.types.is_timestamp(column.type) and column.type.unit == "ns":
            rounded = table.column(place).cast(pyarrow.timestamp("us", column.type.tz), safe=False)
            table = table.set_column(place, column.name, rounded)
    return table


def text_of(row: Mapping[str, object]) -> bytes:
    """The JSON line of a row. What a line cannot say stays as it is, so that the line is refused and named."""
    cells = {name: _cell(name, value) for name, value in row.items() if not _INDEX.fullmatch(name)}
    return json.dumps({name: value for name, value in cells.items() if value is not None}, default=str).encode()


def _cell(name: str, value: object) -> object:
    match name:
        case "metadata":
            return _notes(value)
        case "tags" if isinstance(value, list):
            return [text for each in value if (text := _text(each)) is not None]
        case "grade" | "occurred_at":
            return _number_or_time(value)
        case _:
            return _text(value)


def _notes(value: object) -> object:
    """An object of texts, of a struct or of a map, which is read as pairs."""
    pairs = list(value.items()) if isinstance(value, Mapping) else value
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
        return value
    texts = {str(_text(key)): _text(each) for key, each in pairs}
    return {key: text for key, text in texts.items() if text is not None}


def _number_or_time(value: object) -> object:
    match value:
        case datetime() | date():
            return value.isoformat()
        case float() | Decimal():
            return None if math.isnan(value) else float(value)
        case _:
            return value


def _text(value: object) -> object:
    """A cell as text; None where it is empty."""
    text: object = value
    match value:
        case bool():
            text = str(value).lower()
        case int():
            text = str(value)
        case float() | Decimal() if math.isnan(value):
            text = None
        case float():
            text = _of_double(value)
        case Decimal():
            whole = value.to_integral_value()
            text = f"{whole if whole == value else value:f}"
        case datetime() | date():
            text = value.isoformat()
        case bytes():
            text = _decoded(value)
    return text


def _of_double(value: float) -> object:
    """7.0 is the id 7 of a column with gaps. A whole number that a double may have rounded is left to be refused."""
    if not value.is_integer():
        return repr(value)
    return str(int(value)) if abs(value) < EXACT else value


def _decoded(value: bytes) -> object:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {}
