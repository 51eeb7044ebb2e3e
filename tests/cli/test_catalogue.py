"""`papa catalogue` against a gateway: a folder, a JSONL file, what is refused, and running it again."""

from __future__ import annotations

import io
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

from papa_serving.stubs.engine.v1 import engine_pb2
from PIL import Image

from tests.cli.conftest import Ended
from tests.gateway.support.service import Service

Call = Callable[..., Awaitable[Ended]]


def picture(path: Path, shade: int = 200) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = io.BytesIO()
    Image.new("L", (28, 28), shade).save(data, "PNG")
    path.write_bytes(data.getvalue())


def write(path: str, text: str) -> None:
    Path(path).write_text(text)


def write_lines(path: str, *lines: bytes) -> None:
    Path(path).write_bytes(b"\n".join(lines))


async def test_a_folder_is_imported_and_again_at_no_cost(papa_call: Call, service: Service) -> None:
    for number in range(3):
        picture(Path(f"shop/shoes/{number}.png"), 10 * number)
    picture(Path("shop/hat.PNG"))
    write("shop/readme.txt", "no picture")
    ended = await papa_call("catalogue", "import", "shop", "--catalogue", "summer", "--json")
    assert (ended.code, ended.json) == (0, {"outcomes": {"added": 4}, "refused": {}}), ended.err
    picture(Path("shop/shoes/0.png"), 99)
    embedded = len(service.engine.embedded)
    again = await papa_call("catalogue", "import", "shop", "--catalogue", "summer", "--json")
    assert again.json["outcomes"] == {"replaced": 1, "unchanged": 3}
    assert sum(len(request.samples) for request in service.engine.embedded[embedded:]) == 1
    listed = await papa_call("catalogue", "items", "--catalogue", "summer", "--json")
    assert [(each["item_id"], each["metadata"]) for each in listed.json] == [
        ("hat.PNG", {}),
        *((f"shoes/{number}.png", {"folder": "shoes"}) for number in range(3)),
    ]
    assert "summer" in (await papa_call("catalogue", "list")).out


async def test_the_good_lines_of_a_file_are_imported_and_the_bad_ones_named(papa_call: Call) -> None:
    picture(Path("in/shoe.png"))
    write("in/broken.png", "GIF89a")
    metadata = {"price": 9.5, "new": True, "tags": ["sale"], "kind": "shoe"}
    lines = [
        json.dumps({"item_id": "shoe", "image": "shoe.png", "metadata": metadata}),
        "",
        json.dumps({"item_id": "given", "embedding": [1, 2, 3, 4], "encoder": "the-encoder"}),
        json.dumps({"item_id": "broken", "image": "broken.png"}),
        json.dumps({"item_id": "absent", "image": "absent.png"}),
        json.dumps({"item_id": "typo", "picture": "shoe.png"}),
        json.dumps({"item_id": "nested", "image": "shoe.png", "metadata": {"a": {"b": 1}}}),
        json.dumps(["shoe"]),
        "{",
    ]
    write("in/items.jsonl", "\n".join(lines))
    ended = await papa_call("catalogue", "import", "in/items.jsonl", "--json")
    assert ended.code == 1
    assert ended.json["outcomes"] == {"added": 2, "refused": 6}
    assert set(ended.json["refused"]) == {"broken", "number 4", "number 5", "number 6", "number 7", "number 8"}
    plain = await papa_call("catalogue", "import", "in/items.jsonl")
    assert "broken: item.image: is not a complete PNG" in plain.err
    listed = await papa_call("catalogue", "items", "--json")
    assert [(each["item_id"], each["metadata"], each["has_image"]) for each in listed.json] == [
        ("given", {}, False), ("shoe", metadata, True),
    ]  # fmt: skip


async def test_what_cannot_be_sent_is_refused_alone(papa_call: Call) -> None:
    picture(Path("in/shoe.png"))
    write("in/large.png", "x" * 17 * 2**20)
    given = {"image": "shoe.png"}
    bad: dict[int, bytes] = {
        number: json.dumps({"item_id": f"bad{number}", **each}).encode()
        for number, each in enumerate(
            (
                {**given, "metadata": {"sizes": [38, 39]}},
                {**given, "metadata": {"price": 10**400}},
                {**given, "item_id": "\ud800"},
                {**given, "metadata": {"kind": "\udc80"}},
                {**given, "metadata": {"\ud800": "shoe"}},
                {**given, "metadata": {"kind": "x" * 9 * 2**20}},
                {"image": "large.png"},
                {"image": "\0"},
                {"image": 7},
                {"embedding": ["one", 2, 3, 4], "encoder": "the-encoder"},
                {"embedding": [10**400, 2, 3, 4], "encoder": "the-encoder"},
                {"embedding": 7, "encoder": "the-encoder"},
                {"embedding": [1, 2, 3, 4], "encoder": 7},
            )
        )
    }
    bad[len(bad)] = b"[" * 100_000
    bad[len(bad)] = b'{"item_id": "\xff", "image": "shoe.png"}'
    bad[len(bad)] = b'{"item_id": "digits", "image": "shoe.png", "metadata": {"price": ' + b"1" * 5_000 + b"}}"
    first, last = (json.dumps({"item_id": name, **given}).encode() for name in ("first", "last"))
    write_lines("in/items.jsonl", first, *bad.values(), last)
    ended = await papa_call("catalogue", "import", "in/items.jsonl", "--json")
    assert ended.code == 1
    assert ended.json["outcomes"] == {"added": 2, "refused": len(bad)}, ended.err
    assert set(ended.json["refused"]) == {f"number {number + 2}" for number in bad}
    assert "a list of texts (sizes)" in ended.json["refused"]["number 2"]
    folder = await papa_call("catalogue", "import", "in", "--catalogue", "folder")
    assert (folder.code, "large.png has 17825792 bytes" in folder.err) == (1, True)
    listed = await papa_call("catalogue", "items", "--catalogue", "folder", "--json")
    assert [each["item_id"] for each in listed.json] == ["shoe.png"]


async def test_deleted_items_are_counted(papa_call: Call) -> None:
    picture(Path("shop/a.png"))
    await papa_call("catalogue", "import", "shop")
    assert (await papa_call("catalogue", "delete", "a.png", "b.png", "--json")).json == {"deleted": 1}
    assert (await papa_call("catalogue", "items", "--json")).json == []


async def test_what_the_service_has_no_time_for_is_sent_again(papa_call: Call, service: Service) -> None:
    picture(Path("shop/a.png"))
    service.engine.refusals = [
        engine_pb2.RunError(reason="QUEUE_FULL", message="full", retry_after_seconds=0.01) for _ in range(2)
    ]
    ended = await papa_call("catalogue", "import", "shop", "--json")
    assert ended.json["outcomes"] == {"added": 1}, ended.err
    assert service.engine.refusals == []
