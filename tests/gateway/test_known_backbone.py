"""What the gateway knows of the backbone follows the record, and outlasts an outage of the storage."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from papa_serving.contracts.errors import GeneratorUnavailable, PapaError, QueueFull, StorageUnavailable
from papa_serving.contracts.vocabulary import Vocabulary
from papa_serving.gateway.backends import BACKBONE_SECONDS, KnownBackbone, KnownEncoder
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


class Engine:
    """Embeds nothing, and tells its encoder unless `failure` is raised."""

    def __init__(self) -> None:
        self.failure: PapaError | None = None
        self.asked = 0

    async def embed(self, tenant: str, samples: object) -> SimpleNamespace:
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        return SimpleNamespace(encoder="e", size=4)


@pytest.mark.parametrize("failure", [GeneratorUnavailable("away"), QueueFull("full", retry_after=1.0)])
async def test_the_last_encoder_outlasts_every_refusal(monkeypatch: pytest.MonkeyPatch, failure: PapaError) -> None:
    """And an engine that refuses is not asked at every call."""
    engine = Engine()
    known = KnownEncoder(engine)  # type: ignore[arg-type]
    engine.failure = failure
    with pytest.raises(type(failure)):
        await known.get()
    engine.failure = None
    encoder = await known.get()
    known._asked_at -= BACKBONE_SECONDS
    engine.failure = failure
    for _ in range(3):
        assert await known.get() == encoder
    assert engine.asked == 3
