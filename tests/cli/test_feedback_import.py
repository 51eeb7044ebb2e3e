"""`papa feedback import`: a history in order, each event once, whatever happens on the way."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from papa_serving.cli import feedback_import
from papa_serving.cli.feedback_history import LONGEST_LINE, History, Line, Tally, by_user, lines_of, users_in
from papa_serving.cli.feedback_import import BATCH, jobs
from papa_serving.contracts.errors import BacklogFull, StorageUnavailable
from papa_serving.contracts.feedback import AppendResult, FeedbackEvent
from papa_serving.gateway.auth.identity import Identity, Scope
from papa_serving.settings import FeedbackSettings, GatewaySettings, Settings, StoreSettings

from tests.cli.conftest import Ended, Papa
from tests.gateway.support.service import Service

Call = Callable[..., Awaitable[Ended]]


def write(lines: Sequence[object], name: str = "history.jsonl") -> Path:
    path = Path(name)
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def history(users: int, events: int) -> list[dict[str, object]]:
    """Events of several users in the order of time: one of each, then the next of each."""
    return [
        {"user": f"u{user}", "item_id": f"i{event}", "type": ("click", "purchase", "skip")[event % 3]}
        for event in range(events)
        for user in range(users)
    ]


def said(service: Service) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for event in service.log.accepted:
        found.setdefault(event.user.user, []).append(event.item_id)
    return found


async def test_a_history_is_imported_in_order_and_once(papa_call: Call, service: Service) -> None:
    write(history(7, 90))
    first = await papa_call("feedback", "import", "history.jsonl", "--json")
    assert first.code == 0, first.err
    assert first.json == {
        "lines": 630, "users": 7, "types": {"click": 210, "purchase": 210, "skip": 210}, "accepted": 630,
        "duplicates": 0, "refused": 0, "reasons": [], "over_quota": [], "dry_run": False, "complete": True,
    }  # fmt: skip
    assert said(service) == {f"u{user}": [f"i{event}" for event in range(90)] for user in range(7)}
    again = await papa_call("feedback", "import", "history.jsonl", "--json")
    assert (again.json["accepted"], again.json["duplicates"]) == (0, 630)
    assert len(service.log.accepted) == 630


async def test_all_that_a_user_did_arrives_together(papa_call: Call, service: Service, monkeypatch: Any) -> None:
    calls: list[set[str]] = []
    append = service.log.append

    async def watched(events: Sequence[FeedbackEvent]) -> list[AppendResult]:
        calls.append({event.user.user for event in events})
        return await append(events)

    monkeypatch.setattr(service.log, "append", watched)
    write(history(5, 200))
    assert (await papa_call("feedback", "import", "history.jsonl")).code == 0
    assert sorted(user for call in calls for user in call) == [f"u{user}" for user in range(5)]


async def test_equal_lines_are_several_events_and_own_ids_are_kept(papa_call: Call, service: Service) -> None:
    line = {"user": "ann", "item_id": "i", "type": "click"}
    write([line, line, {**line, "event_id": "mine"}, {**line, "event_id": "mine"}])
    ended = await papa_call("feedback", "import", "history.jsonl", "--json")
    assert (ended.json["accepted"], ended.json["duplicates"]) == (3, 1)
    assert service.log.accepted[-1].event_id == "mine"


async def test_every_field_arrives(papa_call: Call, service: Service) -> None:
    write([
        {
            "user": "ann", "tenant": "shop", "item_id": "i", "grade": -0.5, "occurred_at": "2026-01-02T03:04:05Z",
            "generation_id": "g7", "metadata": {"page": "home"}, "tags": ["spring"], "event_id": None,
        },
        {"user": "ann", "tenant": "shop", "item_id": "i", "type": "view", "occurred_at": 12.5},
    ])  # fmt: skip
    ended = await papa_call("feedback", "import", "history.jsonl")
    assert ended.code == 0, ended.err
    first, second = service.log.accepted
    assert (first.user.tenant, first.grade, first.occurred_at) == ("shop", -0.5, 1_767_323_045.0)
    assert (first.attribution.generation_id, first.attribution.notes.metadata) == ("g7", {"page": "home"})
    assert (second.attribution.type, second.occurred_at) == ("view", 12.5)


BAD = [
    ("{", "is no JSON"),
    ("[]", "is no JSON object"),
    ({"user": "ann", "item_id": "i", "type": "share"}, "must be one of view, click"),
    ({"user": "ann", "item_id": "i", "type": "click", "grade": 1}, "does not go with a type"),
    ({"user": "ann", "item_id": "i", "grade": 7}, "must be in [-1, 1]"),
    ({"user": "ann", "item_id": "i", "grade": True}, "grade: must be a number"),
    ({"user": "ann", "type": "click"}, "name an item_id"),
    ({"item_id": "i", "type": "click"}, "user.user: must be 1 to 128"),
    ({"user": "ann", "item_id": 7, "type": "click"}, "item_id: must be a text"),
    ({"user": "ann", "item_id": "i", "type": "click", "what": 1}, "there is no field what"),
    ({"user": "ann", "item_id": "i", "type": "click", "occurred_at": "yesterday"}, "occurred_at"),
    ({"user": "ann", "item_id": "i", "type": "click", "metadata": {"a": 1}}, "metadata: must be an object of texts"),
    ({"user": "ann", "item_id": "i", "type": "click", "tags": "a"}, "tags: must be a list of texts"),
    ({"user": "ann", "image": "nowhere.png", "grade": 1}, "nowhere.png"),
    ({"user": "ann", "item_id": "i", "grade": 10**400}, "grade: must be in [-1, 1]"),
    ({"user": "ann", "item_id": "i", "type": "click", "occurred_at": 10**400}, "occurred_at"),
    ({"user": "ann", "item_id": "i", "type": "click", "occurred_at": "0001-01-01T00:00:00+14:00"}, "occurred_at"),
    ({"user": "ann", "item_id": "i", "type": "click", "metadata": {"a": 10**400}}, "metadata: must be an object"),
    ({"user": "ann", "item_id": "i", "type": "click", "tags": [10**400]}, "tags: must be a list of texts"),
    ({"user": 10**400, "item_id": "i", "type": "click"}, "user: must be a text"),
    ('{"user": "ann", "item_id": "i", "grade": ' + "1" * 5000 + "}", "is no JSON"),
    ({"user": "ann", "cancels": "q", "type": "like"}, "does not go with cancels"),
    ({"user": "ann", "cancels": "q", "grade": 1}, "does not go with cancels"),
    ({"user": "ann", "image": "\0.png", "grade": 1}, "null byte"),
    ("[" * 3000, "is no JSON"),
    ('{"user": "' + "x" * LONGEST_LINE + '"}', "a line may have"),
]


async def test_a_dry_run_sends_nothing_and_says_what_is_wrong(papa_call: Call, service: Service) -> None:
    file = write([*(line for line, _ in BAD), "", *history(2, 3)])
    file.write_bytes(file.read_bytes() + b'{"user": "\xff"}\n')
    ended = await papa_call("feedback", "import", "history.jsonl", "--dry-run", "--json")
    assert ended.code == 1
    report = ended.json
    assert (report["lines"], report["users"], report["refused"]) == (len(BAD) + 7, 2, len(BAD) + 1)
    assert report["types"] == {"click": 2, "purchase": 2, "skip": 2}
    reasons = {each["line"]: each["reason"] for each in report["reasons"]}
    for number, (_, why) in enumerate(BAD, 1):
        assert why in reasons[number], number
    assert service.log.groups == []
    sent = await papa_call("feedback", "import", "history.jsonl")
    assert sent.code == 1
    assert "line 1: is no JSON" in sent.err
    assert len(service.log.accepted) == 6, "the others are imported"


async def test_what_the_service_refuses_is_told_line_by_line(papa_call: Call, service: Service) -> None:
    service.log.missing = {"i0", "i1"}
    labels = [{"user": "ann", "item_id": f"i{each}", "grade": 1} for each in range(3)]
    write(labels)
    ended = await papa_call("feedback", "import", "history.jsonl", "--json")
    assert ended.code == 1
    assert [each["line"] for each in ended.json["reasons"]] == [1, 2]
    assert "no such item" in ended.json["reasons"][0]["reason"]
    write(labels[:2])
    ended = await papa_call("feedback", "import", "history.jsonl", "--json")
    assert [each["line"] for each in ended.json["reasons"]] == [1, 2], "also where nothing of a call is accepted"


async def test_a_full_service_is_waited_for_and_the_order_stays(
    papa_call: Call, service: Service, monkeypatch: Any
) -> None:
    append, full = service.log.append, [3]

    async def with_little_room(events: Sequence[FeedbackEvent]) -> list[AppendResult]:
        if not full[0]:
            return await append(events)
        full[0] -= 1
        error = BacklogFull("full", retry_after=0.01)
        results = [AppendResult(events[0].event_id, error=error)]
        return results + await append(events[1:2]) + [AppendResult(each.event_id, error=error) for each in events[2:]]

    monkeypatch.setattr(service.log, "append", with_little_room)
    write([{**line, "event_id": f"e{number}"} for number, line in enumerate(history(2, 40))])
    ended = await papa_call("feedback", "import", "history.jsonl", "--json")
    assert (ended.code, ended.json["refused"]) == (0, 0), ended.err
    assert ended.json["accepted"] + ended.json["duplicates"] == 80
    assert {user: sorted(items) for user, items in said(service).items()} == {
        user: sorted(f"i{event}" for event in range(40)) for user in ("u0", "u1")
    }
    assert said(service)["u1"] == [f"i{event}" for event in range(40)], "nothing overtakes what was refused"


async def test_an_import_gives_up_on_a_service_that_stays_full(
    papa_call: Call, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback_import, "PATIENCE", 0.05)
    write([{**line, "event_id": f"e{number}"} for number, line in enumerate(history(1, 3))])
    service.log.refusals = {f"e{number}": BacklogFull("full", retry_after=0.02) for number in range(3)}
    ended = await papa_call("feedback", "import", "history.jsonl", "--json")
    assert ended.code == 1
    assert "run the import again to go on" in ended.err
    assert (ended.json["lines"], ended.json["accepted"], ended.json["complete"]) == (3, 0, False)


async def test_an_import_that_died_goes_on_where_it_was(papa_call: Call, service: Service, monkeypatch: Any) -> None:
    append, calls = service.log.append, [0]

    async def dying(events: Sequence[FeedbackEvent]) -> list[AppendResult]:
        calls[0] += 1
        if calls[0] > 3:
            raise StorageUnavailable("away")
        return await append(events)

    monkeypatch.setattr(feedback_import, "PATIENCE", 0.05)
    monkeypatch.setattr(service.log, "append", dying)
    write(history(6, 200))
    ended = await papa_call("feedback", "import", "history.jsonl", "--json")
    there = len(service.log.accepted)
    assert 0 < there < 1_200
    assert (ended.code, ended.json["complete"], ended.json["accepted"]) == (1, False, there)
    monkeypatch.setattr(service.log, "append", append)
    ended = await papa_call("feedback", "import", "history.jsonl", "--json")
    assert (ended.json["accepted"], ended.json["duplicates"]) == (1_200 - there, there)
    assert said(service) == {f"u{user}": [f"i{event}" for event in range(200)] for user in range(6)}


def test_a_user_is_in_one_call_or_has_calls_of_their_own() -> None:
    def lines(count: int) -> list[Line]:
        return [Line(number, b"") for number in range(count)]

    sizes = [len(job) for job in jobs(map(lines, (100, 100, 100, BATCH, 1, 2 * BATCH + 1, 255, 1)))]
    assert sizes == [200, 100, BATCH, 1, 2 * BATCH + 1, BATCH]


def test_a_long_line_takes_no_memory(tmp_path: Path) -> None:
    file = tmp_path / "long.jsonl"
    file.write_bytes(b"x" * (3 * LONGEST_LINE) + b"\nlast\n")
    first, last = lines_of(file)
    assert len(first.text) <= LONGEST_LINE + 2
    assert (last.number, last.text) == (2, b"last")


async def test_a_tenant_out_of_reach_is_the_fault_of_its_lines(papa: Papa, unstarted: Service) -> None:
    async def authenticate(_: object) -> Identity:
        return Identity("shop", True, scopes=frozenset({Scope.FEEDBACK}))

    await unstarted.start(authenticate=authenticate)
    foreign = [{"user": "eve", "tenant": "rival", "item_id": f"i{each}", "type": "click"} for each in range(300)]
    own = [{"user": "ann", "tenant": "shop", "item_id": "i", "type": "view"}]
    write([*foreign, *history(3, 200), *own])
    call = ("feedback", "import", "history.jsonl", "--json", "--address", unstarted.gateway.address)
    ended = await asyncio.to_thread(papa, *call)
    assert ended.code == 1
    assert (ended.json["accepted"], ended.json["refused"], ended.json["complete"]) == (601, 300, True)
    assert "does not reach this tenant" in ended.json["reasons"][299]["reason"]
    assert {event.user.tenant for event in unstarted.log.accepted} == {"shop"}


async def test_a_credential_without_the_method_ends_the_import(papa: Papa, unstarted: Service) -> None:
    async def authenticate(_: object) -> Identity:
        return Identity("shop", True, scopes=frozenset({Scope.GENERATE}))

    await unstarted.start(authenticate=authenticate)
    write(history(1, 3))
    call = ("feedback", "import", "history.jsonl", "--json", "--address", unstarted.gateway.address)
    ended = await asyncio.to_thread(papa, *call)
    assert (ended.code, ended.json["complete"], ended.json["refused"]) == (1, False, 0)
    assert "lacks a scope" in ended.err


async def test_a_file_that_grew_or_changed_its_order_sends_what_is_new(papa_call: Call, service: Service) -> None:
    line = {"user": "ann", "item_id": "i", "type": "click"}
    others = history(2, 20)
    write([line, *others, line])
    assert (await papa_call("feedback", "import", "history.jsonl", "--json")).json["accepted"] == 42
    new = {"user": "ann", "item_id": "new", "type": "click"}
    write([new, line, *reversed(others), {**line, "tenant": "default"}, line])
    ended = await papa_call("feedback", "import", "history.jsonl", "--json")
    assert (ended.json["accepted"], ended.json["duplicates"]) == (2, 42)
    assert [event.item_id for event in service.log.accepted[42:]] == ["new", "i"]


async def test_imports_with_names_keep_equal_lines_apart(papa_call: Call, service: Service) -> None:
    write([{"user": "ann", "item_id": "i", "type": "click"}], "monday.jsonl")
    write([{"type": "click", "item_id": "i", "user": "ann"}], "tuesday.jsonl")

    async def taken(file: str, *name: str) -> bool:
        ended = await papa_call("feedback", "import", file, "--json", *name)
        return bool(ended.json["accepted"])

    assert [await taken("monday.jsonl"), await taken("tuesday.jsonl")] == [True, False]
    assert [await taken("monday.jsonl", "--import", "mo"), await taken("tuesday.jsonl", "--import", "tu")] == [True] * 2
    assert [await taken("monday.jsonl", "--import", "mo"), await taken("tuesday.jsonl", "--import", "tu")] == [
        False
    ] * 2
    assert len(service.log.accepted) == 3


async def test_a_user_with_and_without_a_tenant_is_one(papa_call: Call, service: Service, tmp_path: Path) -> None:
    lines = [
        {"user": "a", "item_id": f"i{each}", "type": "view"} | ({"tenant": "default"} if each % 2 else {})
        for each in range(600)
    ]
    file = write(lines)
    with by_user(lines_of(file), History(tmp_path, GatewaySettings()), 0, Tally(), 0) as parts:
        assert [[len(user) for user in users_in(part)] for part in parts] == [[600]], "no two calls at once"
    ended = await papa_call("feedback", "import", "history.jsonl", "--json")
    assert (ended.json["accepted"], ended.json["users"]) == (600, 1)
    assert said(service) == {"a": [f"i{each}" for each in range(600)]}


async def test_users_with_more_lines_than_are_remembered_are_named(papa: Papa, unstarted: Service) -> None:
    small = Settings(
        store=StoreSettings(user_event_ids=4000), feedback=FeedbackSettings(partitions=4, backlog_limit=4000)
    )
    unstarted.state.settings = small
    await unstarted.start()
    views = [{"user": "u0", "item_id": f"i{each}", "type": "view"} for each in range(2001)]
    write([*views, {"user": "fits", "item_id": "i", "type": "view"}])
    write(["[store]", "user_event_ids = 4000", "[feedback]", "backlog_limit = 4000"], "papa.toml")
    for way in (("--dry-run",), ("--address", unstarted.gateway.address)):
        ended = await asyncio.to_thread(papa, "feedback", "import", "history.jsonl", "--json", *way)
        assert ended.json["over_quota"] == ["u0"], way
        assert "user u0 has more than 1,000 lines" in ended.err
    assert len(unstarted.log.accepted) == 2002


def test_pictures_are_files_in_the_folder_of_the_history(papa: Papa, tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside.png"
    (inside / "folder").mkdir(parents=True)
    for path in (inside / "fine.png", outside):
        path.write_bytes(b"\x89PNG")
    os.mkfifo(inside / "pipe")
    (inside / "linked.png").symlink_to("fine.png")
    (inside / "out.png").symlink_to(outside)
    (inside / "zero.png").symlink_to("/dev/zero")
    (inside / "loop.png").symlink_to("loop.png")
    names = [
        "fine.png",
        "linked.png",
        str(outside),
        "../outside.png",
        "out.png",
        "zero.png",
        "pipe",
        "folder",
        "loop.png",
    ]
    file = write([{"user": "ann", "image": name, "grade": 1} for name in names], str(inside / "history.jsonl"))
    report = papa("feedback", "import", str(file), "--dry-run", "--json").json
    assert [each["line"] for each in report["reasons"]] == [3, 4, 5, 6, 7, 8, 9]
    reasons = [each["reason"] for each in report["reasons"]]
    assert all("is not in the folder of the history" in why for why in reasons[:4])
    assert "is no regular file" in reasons[4]


async def test_users_called_like_a_command_are_addressed_by_send(papa_call: Call, service: Service) -> None:
    for user in ("import", "send"):
        assert (await papa_call("feedback", "send", user, "--like", "known")).code == 0
    assert set(said(service)) == {"import", "send"}
