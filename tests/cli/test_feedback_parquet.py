"""Histories in Parquet: what pandas and other writers make of ids, times, empty cells and maps."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from papa_serving.cli.feedback_parquet import text_of

from tests import absent
from tests.cli.conftest import Ended, Papa
from tests.gateway.support.service import Service

Call = Callable[..., Awaitable[Ended]]
NAN = float("nan")
needs_pyarrow = pytest.mark.skipif(
    importlib.util.find_spec("pyarrow") is None, reason=absent.reason("pyarrow is not installed", "make check")
)


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ({"user": 7, "item_id": 8}, {"user": "7", "item_id": "8"}),
        ({"user": 7.0, "item_id": Decimal("8.00")}, {"user": "7", "item_id": "8"}),
        ({"user": Decimal(10**37 + 1), "item_id": Decimal("100")}, {"user": str(10**37 + 1), "item_id": "100"}),
        ({"user": b"ann", "item_id": NAN}, {"user": "ann"}),
        ({"user": 2.0**60}, {"user": 2.0**60}),
        ({"user": b"\xff"}, {"user": {}}),
        ({"grade": Decimal("0.5")}, {"grade": 0.5}),
        ({"grade": NAN, "event_id": None}, {}),
        ({"occurred_at": date(2026, 1, 2)}, {"occurred_at": "2026-01-02"}),
        (
            {"metadata": {"page": "home", "price": 9.5, "x": None, "y": NAN}},
            {"metadata": {"page": "home", "price": "9.5"}},
        ),
        ({"metadata": [("page", "home"), ("n", 3)]}, {"metadata": {"page": "home", "n": "3"}}),
        ({"metadata": ["page"]}, {"metadata": ["page"]}),
        ({"tags": ["a", None, 3]}, {"tags": ["a", "3"]}),
        ({"user": "ann", "__index_level_0__": 3}, {"user": "ann"}),
    ],
)
def test_a_row_becomes_a_line(cell: dict[str, object], text: dict[str, object]) -> None:
    assert json.loads(text_of(cell)) == text


def table(pyarrow: Any) -> Any:
    """Columns of the types that writers choose. Row 0 has all of them, row 1 as few as can be."""
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    return pyarrow.table(
        {
            "user": pyarrow.array([7, 8], pyarrow.int64()),
            "item_id": pyarrow.array([3.0, 4.0], pyarrow.float64()),
            "grade": pyarrow.array([Decimal("0.50"), Decimal("-1.00")], pyarrow.decimal128(5, 2)),
            "occurred_at": pyarrow.array([int(at.timestamp() * 10**9) + 1, None], pyarrow.timestamp("ns", "UTC")),
            "metadata": pyarrow.array([[("page", "home")], None], pyarrow.map_(pyarrow.string(), pyarrow.string())),
            "tags": pyarrow.array([["spring"], None], pyarrow.list_(pyarrow.string())),
            "generation_id": pyarrow.array(["g7", None]).dictionary_encode(),
            "event_id": pyarrow.array([None, None], pyarrow.string()),
        }
    )


@needs_pyarrow
async def test_a_parquet_file_is_imported_once(papa_call: Call, service: Service) -> None:
    pyarrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    parquet.write_table(table(pyarrow), "history.parquet")
    ended = await papa_call("feedback", "import", "history.parquet", "--json")
    assert (ended.code, ended.json["accepted"]) == (0, 2), ended.err
    first, second = service.log.accepted
    assert (first.user.user, first.item_id, first.grade, first.occurred_at) == ("7", "3", 0.5, 1_767_323_045.0)
    assert (first.attribution.generation_id, first.attribution.notes.metadata) == ("g7", {"page": "home"})
    assert first.attribution.notes.tags == ("spring",)
    assert (second.user.user, second.item_id, second.grade) == ("8", "4", -1.0)
    again = await papa_call("feedback", "import", "history.parquet", "--json")
    assert again.json["duplicates"] == 2


@needs_pyarrow
def test_a_file_that_is_no_parquet_is_named(papa: Papa) -> None:
    Path("history.parquet").write_bytes(b"PAR1 and no more")
    ended = papa("feedback", "import", "history.parquet", "--dry-run")
    assert ended.code == 1
    assert "history.parquet cannot be read" in ended.err


def test_parquet_without_its_library_says_what_to_install(papa: Papa, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    Path("history.parquet").write_bytes(b"PAR1")
    ended = papa("feedback", "import", "history.parquet", "--dry-run")
    assert ended.code == 1
    assert "pip install pyarrow" in ended.err
