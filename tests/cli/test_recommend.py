"""`papa recommend` against a gateway."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from papa_serving.cli.recommend_command import _condition, _filters
from papa_serving.client import AnyOf, Between
from papa_serving.local.failure import Failure
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
        ("name=a~b", ("name", "a~b")),
        ("note=x>=y", ("note", "x>=y")),
        ("tags~a=b", ("tags", AnyOf(("a=b",), of_several=True))),
        ("folder=3", ("folder", 3.0)),
        ('folder="3"', ("folder", "3")),
        ('new="true"', ("new", "true")),
        ('name="a|b"', ("name", "a|b")),
        ("name=NaN", ("name", "NaN")),
    ],
)
def test_conditions_are_read(text: str, condition: object) -> None:
    assert _condition(text) == condition


@pytest.mark.parametrize("text", ["kind", "=shoe", "price<9", "price>=cheap", "price>=nan", 'name="a', 'name="a"|"b"'])
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(Failure):
        _condition(text)


def test_a_lower_and_an_upper_bound_of_one_key_are_one_condition() -> None:
    assert _filters(["price>=10", "kind=shoe", "price<=50"]) == {"price": Between(10.0, 50.0), "kind": "shoe"}
    assert _filters(["price<=50", "price>=10"]) == {"price": Between(10.0, 50.0)}
    for twice in (
        ["price>=10", "price<=50", "price<=40"],
        ["price>=10", "price>=20"],
        ["price>=10", "price=20"],
        ["kind=a", "kind=b"],
    ):
        with pytest.raises(Failure):
            _filters(twice)


async def test_a_text_of_digits_is_found_in_quotes(papa_call: Call, service: Service) -> None:
    service.engine.backbone = SPREAD
    await put(service, item("three", shade=40, folder=Value(text="3")), item("four", shade=80, folder=Value(text="4")))
    found = (await papa_call("recommend", "new", "--where", 'folder="3"', "--json")).json
    assert [each["item_id"] for each in found["items"]] == ["three"]
    bare = await papa_call("recommend", "new", "--where", "folder=3")
    assert (bare.code, "needs quotes" in bare.out) == (0, True)
