"""The store of catalogues: the same tests over memory and over a real Redis."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from papa_serving.catalogue import open_catalogues, redis_catalogues
from papa_serving.catalogue.memory import MemoryCatalogues
from papa_serving.catalogue.passing import passes
from papa_serving.contracts.catalogue import (
    CatalogueItem,
    CatalogueKey,
    CatalogueRecord,
    Catalogues,
    Comparison,
    Filter,
    Metadata,
    Put,
    Value,
)
from papa_serving.contracts.errors import CatalogueFull, CatalogueUnsupported, EncoderChanged
from papa_serving.local.redis_process import RedisProcess
from papa_serving.settings import CatalogueSettings, RedisSettings, Settings
from papa_serving.store.redis_client import Argument, Client
from pydantic import SecretStr

from tests.store.support import redis_cluster, redis_server

__all__ = ["redis_cluster", "redis_server"]

SUMMER = CatalogueKey("shop", "summer")
SETTINGS = CatalogueSettings(max_items=60, max_catalogues=2)
IS, AT_LEAST, AT_MOST, HAS = Comparison.IS, Comparison.AT_LEAST, Comparison.AT_MOST, Comparison.HAS


@pytest.fixture(params=["memory", "redis", "cluster"])
async def catalogues(request: pytest.FixtureRequest) -> AsyncIterator[Catalogues]:
    opened: Catalogues
    if request.param == "memory":
        opened = MemoryCatalogues(SETTINGS)
    else:
        url = request.getfixturevalue(f"redis_{'server' if request.param == 'redis' else 'cluster'}").url
        opened = open_catalogues(
            Settings(redis=RedisSettings(url=url, prefix=f"t{secrets.token_hex(4)}"), catalogue=SETTINGS)
        )
    yield opened
    await opened.close()


def made(item_id: str, *numbers: float, encoder: str = "e1", sample: bytes = b"", **metadata: object) -> CatalogueItem:
    embedding = np.array(numbers or (1.0, 0.0), "<f2").tobytes()
    return CatalogueItem(item_id, embedding, encoder, metadata, sample, f"print of {item_id}")  # type: ignore[arg-type]


def vector(*numbers: float) -> np.ndarray:
    return np.array(numbers, np.float32)


async def found(catalogues: Catalogues, *filters: Filter, count: int = 100) -> list[str]:
    return [near.item_id for near in await catalogues.search(SUMMER, vector(1, 0), count, filters)]


async def test_what_was_put_is_there(catalogues: Catalogues) -> None:
    strange = "a b{c}:'\"\u65e5\u672c"
    metadata: Metadata = {"text": 'a "b"\\c\n', "number": 9.5, "flag": True, "tags": ("new", "sale"), "empty": ()}
    assert await catalogues.put(SUMMER, made(strange, 1, 2, sample=b"\x00picture", **metadata)) is Put.ADDED
    (item, missing) = await catalogues.get(SUMMER, [strange, "other"])
    assert missing is None
    assert item is not None
    assert (item.metadata, item.sample, item.encoder) == (metadata, b"\x00picture", "e1")
    assert item.vector.tolist() == [1.0, 2.0]
    assert item.updated_at > 1_700_000_000
    assert await catalogues.fingerprints(SUMMER, ["other", strange]) == ["", f"print of {strange}"]
    assert await found(catalogues) == [strange]


async def test_a_replaced_item_is_found_where_it_is_now(catalogues: Catalogues) -> None:
    await catalogues.put(SUMMER, made("a", 1, 0, kind="shoe"))
    await catalogues.put(SUMMER, made("b", 1, 1))
    assert await found(catalogues) == ["a", "b"]
    assert await catalogues.put(SUMMER, made("a", -1, 0, kind="hat")) is Put.REPLACED
    assert await found(catalogues) == ["b", "a"]
    assert await found(catalogues, Filter("kind", IS, ("shoe",))) == []
    assert await found(catalogues, Filter("kind", IS, ("hat",))) == ["a"]


async def test_the_nearest_come_first_with_their_similarity(catalogues: Catalogues) -> None:
    angles = {f"i{number:02d}": number / 10 for number in range(30)}
    for name, angle in angles.items():
        await catalogues.put(SUMMER, made(name, np.cos(angle), np.sin(angle)))
    near = await catalogues.search(SUMMER, vector(2, 0), 5)
    assert [each.item_id for each in near] == [f"i{number:02d}" for number in range(5)]
    assert [each.similarity for each in near] == pytest.approx(
        [(1 + np.cos(angles[each.item_id])) / 2 for each in near], abs=0.01
    )


async def test_deleted_items_are_found_no_more(catalogues: Catalogues) -> None:
    for name in ("a", "b", "c"):
        await catalogues.put(SUMMER, made(name, 1, 1))
    assert await catalogues.delete(SUMMER, ["a", "c", "c", "never"]) == 2
    assert await found(catalogues) == ["b"]
    assert await catalogues.get(SUMMER, ["a"]) == [None]
    assert [item.item_id for item in (await catalogues.page(SUMMER, 10, "")).items] == ["b"]
    assert await catalogues.delete(SUMMER, ["b"]) == 1
    assert await found(catalogues) == []
    assert await catalogues.of_tenant("shop") == []


async def test_pages_are_in_the_order_of_the_ids(catalogues: Catalogues) -> None:
    names = sorted(["b", "a", "\u65e5", "aa", "Z", "a b"], key=str.encode)
    for name in reversed(names):
        await catalogues.put(SUMMER, made(name, sample=b"picture" if name == "a" else b"", kind=name))
    first = await catalogues.page(SUMMER, 4, "")
    assert first.after == first.items[-1].item_id
    second = await catalogues.page(SUMMER, 4, first.after)
    assert second.after == ""
    assert [item.item_id for item in (*first.items, *second.items)] == names
    assert {item.item_id for item in (*first.items, *second.items) if item.has_image} == {"a"}
    assert all(item.metadata == {"kind": item.item_id} for item in first.items)


async def test_catalogues_and_tenants_are_apart(catalogues: Catalogues) -> None:
    rival = CatalogueKey("rival", "summer")
    await catalogues.put(SUMMER, made("a"))
    await catalogues.put(rival, made("b", encoder="e2"))
    await catalogues.put(CatalogueKey("shop", "autumn"), made("c", encoder="e2"))
    assert await catalogues.of_tenant("shop") == [
        CatalogueRecord("autumn", 1, "e2"),
        CatalogueRecord("summer", 1, "e1"),
    ]
    assert await found(catalogues) == ["a"]
    assert await catalogues.get(rival, ["a"]) == [None]
    assert await catalogues.delete(rival, ["a"]) == 0


async def test_embeddings_of_two_encoders_are_not_mixed(catalogues: Catalogues) -> None:
    assert await catalogues.encoder(SUMMER) == ""
    await catalogues.put(SUMMER, made("a"))
    with pytest.raises(EncoderChanged):
        await catalogues.put(SUMMER, made("b", 1, 2, 3, encoder="e2"))
    assert await catalogues.encoder(SUMMER) == "e1"
    await catalogues.delete(SUMMER, ["a"])
    await catalogues.put(SUMMER, made("b", 1, 2, 3, encoder="e2"))
    assert await catalogues.encoder(SUMMER) == "e2"


async def test_a_catalogue_and_a_tenant_have_bounds(catalogues: Catalogues) -> None:
    for number in range(60):
        await catalogues.put(SUMMER, made(f"i{number}"))
    with pytest.raises(CatalogueFull):
        await catalogues.put(SUMMER, made("more"))
    assert await catalogues.put(SUMMER, made("i3")) is Put.REPLACED
    await catalogues.delete(SUMMER, ["i3"])
    assert await catalogues.put(SUMMER, made("more")) is Put.ADDED
    second, third = CatalogueKey("shop", "second"), CatalogueKey("shop", "third")
    await catalogues.put(second, made("a"))
    with pytest.raises(CatalogueFull):
        await catalogues.put(third, made("a"))
    await catalogues.delete(second, ["a"])
    assert await catalogues.put(third, made("a")) is Put.ADDED, "an empty catalogue makes room"


async def test_two_encoders_never_meet_in_a_catalogue(catalogues: Catalogues) -> None:
    """Not even where both come at once to a catalogue that has just been emptied."""
    for _ in range(20):
        await catalogues.put(SUMMER, made("a", encoder="e0"))
        await catalogues.delete(SUMMER, ["a"])
        both = (made("b", encoder="e1"), made("c", encoder="e0"))
        outcomes = await asyncio.gather(*(catalogues.put(SUMMER, each) for each in both), return_exceptions=True)
        assert sorted(map(repr, map(type, outcomes))) == sorted(map(repr, (Put, EncoderChanged)))
        stored = [each for each in await catalogues.get(SUMMER, ["b", "c"]) if each is not None]
        assert [each.encoder for each in stored] == [await catalogues.encoder(SUMMER)]
        assert await catalogues.delete(SUMMER, ["b", "c"]) == 1


async def test_many_at_once_make_no_more_catalogues_than_may_be(catalogues: Catalogues) -> None:
    keys = [CatalogueKey("shop", f"c{number:02d}") for number in range(20)]
    for _ in range(5):
        outcomes = await asyncio.gather(*(catalogues.put(key, made("a")) for key in keys), return_exceptions=True)
        assert {type(each) for each in outcomes} == {Put, CatalogueFull}
        stored = [key.name for key in keys if await catalogues.encoder(key)]
        assert stored == [key.name for key, each in zip(keys, outcomes, strict=True) if each is Put.ADDED]
        assert [each.name for each in await catalogues.of_tenant("shop")] == stored
        assert 1 <= len(stored) <= SETTINGS.max_catalogues
        for key in keys:
            await catalogues.delete(key, ["a"])


@pytest.mark.redis
async def test_a_catalogue_that_loses_its_place_while_it_is_filled_keeps_its_name(
    redis_server: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another call finds it empty, and frees its place after its first item has come."""
    redis = RedisSettings(url=redis_server.url, prefix=f"t{secrets.token_hex(4)}")
    settings = Settings(redis=redis, catalogue=CatalogueSettings(max_catalogues=1))
    filled, other = open_catalogues(settings), open_catalogues(settings)
    await filled.put(SUMMER, made("a"))
    await filled.delete(SUMMER, ["a"])
    count = other._count  # type: ignore[attr-defined]

    async def count_and_wait(catalogue: CatalogueKey) -> int:
        counted: int = await count(catalogue)
        if catalogue == SUMMER and not counted:
            await filled.put(SUMMER, made("a"))
        return counted

    monkeypatch.setattr(other, "_count", count_and_wait)
    with pytest.raises(CatalogueFull):
        await other.put(CatalogueKey("shop", "other"), made("a"))
    assert await other.of_tenant("shop") == [CatalogueRecord("summer", 1, "e1")]
    await filled.close()
    await other.close()


async def test_many_items_are_deleted_in_parts(catalogues: Catalogues, monkeypatch: pytest.MonkeyPatch) -> None:
    """No script keeps the server from others for long."""
    run, parts = redis_catalogues._DELETE.run, []

    async def counted(client: Client, keys: Sequence[str], arguments: Sequence[Argument]) -> int:
        parts.append(len(arguments))
        return int(await run(client, keys, arguments))

    monkeypatch.setattr(redis_catalogues, "_DELETE", SimpleNamespace(run=counted))
    names = [f"i{number:02d}" for number in range(60)]
    for name in names:
        await catalogues.put(SUMMER, made(name))
    never = [f"never{number}" for number in range(60)]
    assert await catalogues.delete(SUMMER, [*never, *names, *names]) == 60
    assert parts == ([] if isinstance(catalogues, MemoryCatalogues) else [50, 50, 20])
    assert await found(catalogues) == []
    assert await catalogues.of_tenant("shop") == []


@pytest.mark.redis
async def test_a_page_whose_items_are_deleted_meanwhile_is_not_the_last(
    redis_server: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(redis=RedisSettings(url=redis_server.url, prefix=f"t{secrets.token_hex(4)}"))
    catalogues = open_catalogues(settings)
    for name in ("a", "b", "c", "d"):
        await catalogues.put(SUMMER, made(name))
    read = catalogues._all  # type: ignore[attr-defined]

    async def delete_and_read(commands: object) -> object:
        await catalogues.delete(SUMMER, ["b"])
        return await read(commands)

    monkeypatch.setattr(catalogues, "_all", delete_and_read)
    page = await catalogues.page(SUMMER, 2, "")
    assert ([item.item_id for item in page.items], page.after) == (["a"], "b")
    page = await catalogues.page(SUMMER, 2, page.after)
    assert ([item.item_id for item in page.items], page.after) == (["c", "d"], "")
    await catalogues.close()


METADATA: dict[str, Metadata] = {
    "a": {"kind": "shoe", "price": 10.0, "new": True, "tags": ("sale", "red")},
    "b": {"kind": 'a "quoted\\ one', "price": -3.0, "new": False, "tags": ("sale price",)},
    "c": {"kind": "sh", "price": 1e-9, "tags": ()},
    "d": {"kind": "shoe", "price": 123456789012345.25, "tags": ("red",)},
    "e": {},
    "f": {"kind": "\u9774 or 1 == 1", "price": 0.1},
}
FILTERS: dict[str, list[Filter]] = {
    "text": [Filter("kind", IS, ("shoe",))],
    "a part of a text is another text": [Filter("kind", IS, ("sho",))],
    "quotes": [Filter("kind", IS, ('a "quoted\\ one',))],
    "an expression is a text": [Filter("kind", IS, ('x" or 1 == 1 or "',))],
    "any script": [Filter("kind", IS, ("\u9774 or 1 == 1",))],
    "one of several": [Filter("kind", IS, ("sh", "shoe"))],
    "number": [Filter("price", IS, (10.0,))],
    "decimals": [Filter("price", IS, (0.1,))],
    "at least": [Filter("price", AT_LEAST, (0.1,))],
    "at most": [Filter("price", AT_MOST, (1e-9,))],
    "tiny": [Filter("price", AT_LEAST, (1e-12,)), Filter("price", AT_MOST, (0.01,))],
    "large": [Filter("price", IS, (123456789012345.25,))],
    "flag": [Filter("new", IS, (True,))],
    "no flag": [Filter("new", IS, (False,))],
    "member": [Filter("tags", HAS, ("sale",))],
    "any member": [Filter("tags", HAS, ("sale price", "red"))],
    "all of several": [
        Filter("tags", HAS, ("red",)),
        Filter("price", AT_MOST, (100.0,)),
        Filter("kind", IS, ("shoe",)),
    ],
    "unknown key": [Filter("colour", IS, ("red",))],
    "none": [],
}


async def test_filters_pass_what_they_should(catalogues: Catalogues) -> None:
    for number, (item_id, metadata) in enumerate(METADATA.items()):
        await catalogues.put(SUMMER, made(item_id, 1, number, **metadata))
    for name, filters in FILTERS.items():
        expected = [item_id for item_id, metadata in METADATA.items() if passes(metadata, filters)]
        assert await found(catalogues, *filters) == expected, name


VALUES: dict[str, Value] = {
    "number": 49.5, "zero": 0.0, "one": 1.0, "negative": -3.0, "number as text": "49.5", "text": "shoe", "no text": "",
    "true": True, "false": False, "true as text": "true", "several": ("new", "shoe"), "none of several": (),
}  # fmt: skip
"""Values of every type, some of which a looser comparison takes for one another."""
CONDITIONS = [
    *(
        Filter("v", comparison, (number,))
        for comparison in (IS, AT_LEAST, AT_MOST)
        for number in (49.5, 0.0, 1.0, -5.0)
    ),
    *(Filter("v", IS, (flag,)) for flag in (True, False)),
    *(
        Filter("v", comparison, (text,))
        for comparison in (IS, HAS)
        for text in ("shoe", "", "new", "49.5", "true", "sho")
    ),
    Filter("v", HAS, ("old", "new")),
    Filter("v", IS, ("49.5", "shoe")),
]


async def test_filters_never_take_a_value_for_one_of_another_type(catalogues: Catalogues) -> None:
    for number, (item_id, value) in enumerate(VALUES.items()):
        await catalogues.put(SUMMER, made(item_id, 1, number, v=value))
    for each in CONDITIONS:
        expected = [item_id for item_id, value in VALUES.items() if passes({"v": value}, [each])]
        assert await found(catalogues, each) == expected, each


def test_values_of_two_types_never_compare() -> None:
    def passing(comparison: Comparison, *values: str | float | bool) -> set[str]:
        return {item_id for item_id, value in VALUES.items() if passes({"v": value}, [Filter("v", comparison, values)])}

    numbers = {"number", "zero", "one", "negative"}
    assert passing(AT_MOST, 50.0) == passing(AT_LEAST, -5.0) == numbers
    assert (passing(IS, True), passing(IS, 1.0)) == ({"true"}, {"one"})
    assert (passing(IS, False), passing(IS, 0.0)) == ({"false"}, {"zero"})
    assert (passing(IS, "shoe"), passing(HAS, "shoe"), passing(IS, "")) == ({"text"}, {"several"}, {"no text"})


async def test_a_search_that_finds_fewer_than_asked_has_found_all(catalogues: Catalogues) -> None:
    for number in range(40):
        await catalogues.put(SUMMER, made(f"i{number}", np.cos(number), np.sin(number), even=number % 2 == 0))
    assert len(set(await found(catalogues, count=41))) == 40
    assert len(set(await found(catalogues, Filter("even", IS, (True,)), count=21))) == 20
    both = await catalogues.embeddings(SUMMER, ["i0", "never"])
    assert both == [np.array([1, 0], "<f2").tobytes(), b""]


def test_the_filters_tell_items_apart() -> None:
    """So that the test above compares more than empty lists."""
    passing = {
        name: {i for i, metadata in METADATA.items() if passes(metadata, each)} for name, each in FILTERS.items()
    }
    assert passing["text"] == {"a", "d"}
    assert passing["at least"] == {"a", "d", "f"}
    assert passing["all of several"] == {"a"}
    assert sum(map(bool, passing.values())) == len(FILTERS) - 3


@pytest.mark.redis
async def test_a_rare_item_is_found_among_many_that_a_filter_refuses(
    redis_server: RedisProcess,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a large catalogue the graph gives up before it has seen all; then all items are looked at."""
    monkeypatch.setattr(redis_catalogues, "EXACT", 0)
    monkeypatch.setattr(redis_catalogues, "FILTER_EFFORT", 5)
    prefix = f"t{secrets.token_hex(4)}"
    opened = open_catalogues(Settings(redis=RedisSettings(url=redis_server.url, prefix=prefix)))
    rng = np.random.default_rng(5)
    for number in range(60):
        await opened.put(SUMMER, made(f"i{number}", *rng.normal(1.0, 0.1, 8), rare=False))
    await opened.put(SUMMER, made("far", *[-1.0] * 8, rare=True))
    near = await opened.search(SUMMER, np.ones(8, np.float32), 1, [Filter("rare", IS, (True,))])
    assert [each.item_id for each in near] == ["far"]
    await opened.close()


def test_errors_name_the_setting_that_is_at_fault() -> None:
    with pytest.raises(ValueError, match=r"^catalogue\.url begins with 'http'"):
        open_catalogues(Settings(catalogue=CatalogueSettings(url="http://127.0.0.1:6379")))
    with pytest.raises(ValueError, match=r"catalogue\.password is that of catalogue\.url"):
        CatalogueSettings(password=SecretStr("secret"))


@pytest.mark.redis
async def test_items_are_there_after_a_restart(tmp_path: Path) -> None:
    for _ in range(2):
        with RedisProcess(tmp_path) as server:
            opened = open_catalogues(Settings(catalogue=CatalogueSettings(url=server.url)))
            await opened.put(SUMMER, made("a", 1, 0)) if _ == 0 else None
            assert [each.item_id for each in await opened.search(SUMMER, vector(1, 0), 5)] == ["a"]
            await opened.close()


async def test_a_redis_without_vector_sets_is_named_as_the_reason(tmp_path: Path) -> None:
    """By a server that answers as Redis 7.0 does."""
    answers = {
        b"EVALSHA": b"-ERR Unknown Redis command called from script script: 1f, on @user_script:14.",
        b"VSIM": b"-ERR unknown command 'VSIM', with args beginning with: 'a' 'FP32' 'x' ",
        b"CLIENT": b"+OK",
    }

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while command := await reader.read(2**16):
            name = command.split(b"\r\n")[2]
            count = command.count(b"SETINFO") or 1
            writer.write((answers.get(name, b":0") + b"\r\n") * count)
        writer.close()
        await writer.wait_closed()

    socket = tmp_path / "s"
    async with await asyncio.start_unix_server(answer, socket):
        opened = open_catalogues(Settings(redis=RedisSettings(url=f"unix://{socket}")))
        for call in (opened.delete(SUMMER, ["a"]), opened.search(SUMMER, vector(1, 0), 1)):
            with pytest.raises(CatalogueUnsupported, match=r"catalogue\.url"):
                await call
        await opened.close()
