"""The adapters on the device: who stays, who makes room, and that the gather is what a loop would give."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from papa_serving.contracts.identity import UserKey
from papa_serving.generator.job import AdapterKey, HostAdapter, Job, Row
from papa_serving.generator.scheduling.scheduler import Seats
from papa_serving.generator.slots import Slots

SIZE = 6


def adapter(name: str, revision: str = "r1") -> HostAdapter:
    key = AdapterKey(UserKey("tenant", name), revision)
    return HostAdapter(key, torch.full((SIZE,), float(sum(map(ord, name + revision)))))


def table(slots: int) -> Slots:
    return Slots(slots, SIZE, torch.device("cpu"), torch.float32)


def test_gather_equals_a_loop_over_adapters() -> None:
    slots, adapters = table(3), [adapter(name) for name in "abc"]
    taken = [slots.acquire(each) for each in adapters]
    assert sorted(taken) == [1, 2, 3]
    rows = [2, 0, 0, 1, 2]
    expected = torch.stack([adapters[i].weights for i in rows])
    assert torch.equal(slots.gather([taken[i] for i in rows]), expected)
    assert not slots.gather([0]).any(), "slot 0 is the base"


def test_least_recently_used_makes_room() -> None:
    slots = table(2)
    for name in "ab":
        slots.acquire(adapter(name))
        slots.release(adapter(name).key)
    slots.acquire(adapter("a"))
    slots.release(adapter("a").key)
    assert slots.acquire(adapter("c")) is not None
    assert slots.find(adapter("a").key) is not None
    assert slots.find(adapter("b").key) is None
    assert len(slots) == 2


def test_held_slot_is_never_given_away() -> None:
    slots = table(2)
    a, b, c = adapter("a"), adapter("b"), adapter("c")
    slot = slots.acquire(a)
    assert slots.acquire(a) == slot
    slots.acquire(b)
    assert slots.acquire(c) is None
    slots.release(a.key)
    assert slots.acquire(c) is None, "held twice, released once"
    slots.release(a.key)
    assert slots.acquire(c) == slot
    assert torch.equal(slots.gather([slot])[0], c.weights)
    assert slots.find(a.key) is None


def test_revisions_of_one_user_are_different_adapters() -> None:
    slots = table(2)
    old, new = slots.acquire(adapter("a", "r1")), slots.acquire(adapter("a", "r2"))
    assert old != new
    assert torch.equal(slots.gather([new])[0], adapter("a", "r2").weights)


def test_forgetting_wipes_what_nobody_holds() -> None:
    slots = table(3)
    idle, held = slots.acquire(adapter("a", "r1")), slots.acquire(adapter("a", "r2"))
    other = slots.acquire(adapter("b"))
    slots.release(adapter("a", "r1").key)
    slots.forget(UserKey("tenant", "a"))
    assert slots.find(adapter("a", "r1").key) is None
    assert not slots.table[idle].any()
    assert slots.table[held].any()
    assert slots.table[other].any()
    assert slots.users() == {UserKey("tenant", "a"), UserKey("tenant", "b")}


def row(name: str) -> Row:
    """A row; the name "-" means no adapter."""
    mine = None if name == "-" else adapter(name)
    return Job(UserKey("tenant", name), 1, 0, "ddim", 4, lambda _result: None, mine).rows((900, 600, 300, 0))[0]


NAMES = st.lists(st.sampled_from("abcde-"), max_size=8)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), NAMES, NAMES)
def test_the_scheduler_foresees_what_the_slots_will_give(capacity: int, running: list[str], waiting: list[str]) -> None:
    """It decides on its own count of held slots; the batch then takes them, and must get every one."""
    slots, rows = table(capacity), [row(name) for name in running]
    for each in rows:
        each.slot = slots.acquire(each.adapter) or 0 if each.adapter else 0
    seats = Seats(rows, capacity, adapt_from=400)
    for name in waiting:
        candidate = row(name)
        granted = seats.take(candidate)
        assert granted == (candidate.adapter is None or slots.acquire(candidate.adapter) is not None)
