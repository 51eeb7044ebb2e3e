"""Items and the announced backbone over memory and Redis."""

from __future__ import annotations

import json

import pytest
from papa_serving.contracts.attribution import Notes
from papa_serving.contracts.errors import ItemNotFound
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.items import BackboneInfo, StoredItem
from papa_serving.contracts.vocabulary import Vocabulary
from papa_serving.settings import StoreSettings
from papa_serving.store.records import decode_backbone, encode_backbone

from tests.store.support import Backend, OpenBackend, an_item

BACKBONE = BackboneInfo("ab" * 32, "fashion_mnist", (1, 28, 28))


async def test_an_item_is_found_as_it_was_stored(backend: Backend, user: UserKey) -> None:
    items = [
        StoredItem("i1", bytes(range(256)), "", "g1", 0),
        StoredItem("i2", b"x", "000001-0a0b0c0d", "g1", 2**63 - 1, Notes({"page": "é"}, ("a", "b"))),
    ]
    await backend.items.put(user, items)
    assert [await backend.items.get(user, item.item_id) for item in items] == items


async def test_nobody_finds_what_is_not_theirs(backend: Backend, user: UserKey) -> None:
    await backend.items.put(user, [an_item("i1")])
    for other in (UserKey(user.tenant, "other"), UserKey("other", user.user)):
        with pytest.raises(ItemNotFound):
            await backend.items.get(other, "i1")
    for name in ("", "i", "i1:", "*", "i1 i1", "\n", "é" * 1000):
        with pytest.raises(ItemNotFound):
            await backend.items.get(user, name)


async def test_items_expire(open_backend: OpenBackend, user: UserKey) -> None:
    backend = open_backend(store=StoreSettings(item_ttl=1.5))
    await backend.items.put(user, [an_item("old")])
    await backend.until_expired(user, "old")
    await backend.items.put(user, [an_item("new")])
    assert (await backend.items.get(user, "new")).item_id == "new"
    assert (await backend.users.delete(user)).items == 1


async def test_no_items_are_no_work(backend: Backend, user: UserKey) -> None:
    await backend.items.put(user, [])


async def test_the_backbone_is_announced_once_per_store(backend: Backend) -> None:
    assert await backend.items.backbone_info() is None
    await backend.items.publish_backbone(BACKBONE)
    await backend.items.publish_backbone(BACKBONE)
    assert await backend.items.backbone_info() == BACKBONE
    words = Vocabulary(("boot", "bag"), {"boots": "boot"})
    renamed = BackboneInfo(BACKBONE.backbone_hash, "another name", (3, 8, 8), takes_prompt=True, vocabulary=words)
    await backend.items.publish_backbone(renamed)
    assert await backend.items.backbone_info() == renamed


def test_the_record_of_another_version_of_the_service_is_read() -> None:
    former = {"backbone": "ab", "name": "text", "image_shape": [1, 28, 28]}
    assert decode_backbone(json.dumps(former).encode()) == BackboneInfo("ab", "text", (1, 28, 28))
    assert set(json.loads(encode_backbone(BACKBONE))) == {"backbone", "name", "image_shape", "takes_prompt"}
    later = json.loads(encode_backbone(BACKBONE)) | {"frames_per_second": 24}
    assert decode_backbone(json.dumps(later).encode()) == BACKBONE


async def test_a_store_refuses_another_backbone(backend: Backend) -> None:
    await backend.items.publish_backbone(BACKBONE)
    with pytest.raises(ValueError, match="belongs to the backbone fashion_mnist"):
        await backend.items.publish_backbone(BackboneInfo("cd" * 32, "mnist", (1, 28, 28)))
    assert await backend.items.backbone_info() == BACKBONE
