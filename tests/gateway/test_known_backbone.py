"""What the gateway knows of the backbone follows the record, and outlasts an outage of the storage."""

from __future__ import annotations

from dataclasses import replace

import pytest
from papa_serving.contracts.errors import GeneratorUnavailable, StorageUnavailable
from papa_serving.contracts.vocabulary import Vocabulary
from papa_serving.gateway.backends import KnownBackbone
from papa_serving.settings import Settings
from papa_serving.store.memory import MemoryState

from tests.gateway.support.doubles import GREY, Items

PATIENCE = "papa_serving.gateway.backends.BACKBONE_SECONDS"


@pytest.fixture
def items() -> Items:
    return Items(MemoryState(Settings()))


async def test_a_changed_record_is_taken_up(items: Items, monkeypatch: pytest.MonkeyPatch) -> None:
    known = KnownBackbone(items)
    assert await known.info() == GREY
    items.info = replace(GREY, vocabulary=Vocabulary(("boot",)))
    assert await known.info() == GREY, "one look serves many calls"
    monkeypatch.setattr(PATIENCE, 0.0)
    assert await known.info() == items.info


async def test_the_last_record_outlasts_an_outage(items: Items, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PATIENCE, 0.0)
    known = KnownBackbone(items)
    items.failure = StorageUnavailable("away")
    with pytest.raises(StorageUnavailable):
        await known.info()
    items.info, items.failure = None, None
    with pytest.raises(GeneratorUnavailable):
        await known.info()
    items.info = GREY
    assert await known.info() == GREY
    items.failure = StorageUnavailable("away")
    assert await known.info() == GREY
    items.info, items.failure = None, None
    assert await known.info() == GREY
