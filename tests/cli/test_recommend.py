"""`papa recommend` against a gateway."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from papa_serving.cli.recommend_command import _condition
from papa_serving.client import AnyOf, Between
from papa_serving.stubs.serving.v1 import catalogue_pb2

from tests.cli.conftest import Ended
from tests.gateway.support.service import Service
from tests.gateway.support.stock import LIKES_LARGE, SPREAD, item, put

Call = Callable[..., Awaitable[Ended]]
Value = catalogue_pb2.MetadataValue


async def test_items_are_chosen_and_printed(papa_call: Call, service: Service) -> None:
    service.engine.tastes["alice"], service.engine.backbone = LIKES_LARGE, SPREAD
    kinds = ("shoe", "hat")
    await put(service, *(item(f"i{n}", shade=20 * n, kind=Value(text=kinds[n % 2])) for n in range(1, 9)))
    options = ("--count", "2", "--exploration", "0", "--diversity", "0")
    found = (await papa_call("recommend", "alice", *options, "--where", "kind=hat", "--json")).json
    assert [each["item_id"] for each in found["items"]] == ["i7", "i5"]
    assert (found["personal"], found["revision"]) == (True, "000002-aa")
    again = await papa_call("recommend", "alice", *options, "--where", "kind=hat")
    assert "i3" in again.out and "i7" not in again.out, "what was recommended is not repeated"
    once_more = await papa_call("recommend", "alice", *options, "--where", "kind=hat", "--seen")
    assert "i7" in once_more.out and "0.14" in once_more.out and "near what" in once_more.out
    nobody = await papa_call("recommend", "new", "--count", "2")
    assert "Nothing is known of new yet" in nobody.out
    assert (await papa_call("recommend", "alice", "--where", "kind")).code == 1
    assert (await papa_call("recommend", "alice", "--where", "kind=a", "--where", "kind=b")).code == 1
    missing = await papa_call("recommend", "alice", "--catalogue", "winter")
    assert (missing.code, "CATALOGUE_NOT_FOUND" in missing.err) == (1, True)


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("kind=shoe", ("kind", "shoe")),
        ("kind=shoe|hat", ("kind", AnyOf(("shoe", "hat")))),
        ("price=9.5", ("price", 9.5)),
        ("new=true", ("new", True)),
        ("price>=9", ("price", Between(low=9.0))),
        ("price<=9", ("price", Between(high=9.0))),
        ("tags~sale|new", ("tags", AnyOf(("sale", "new"), of_several=True))),
        ("name=null", ("name", "null")),
        ("name=a=b", ("name", "a=b")),
    ],
)
def test_conditions_are_read(text: str, condition: object) -> None:
    assert _condition(text) == condition
