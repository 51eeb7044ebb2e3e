"""Names the backbone of a store by the present version of its hash, after an upgrade that changed how it is made."""

from __future__ import annotations

from dataclasses import replace

from papa_serving.contracts.items import ItemStore
from papa_serving.store.records import short_hash


async def rehash(items: ItemStore, name: str, present: str, former: str) -> bool:
    """Renames the store's backbone from its `former` hash to the `present` one; False where nothing was to be renamed.

    `name` is what the loaded backbone is called. Revisions stay as they are: their manifests may go on naming the
    former hash. Raises ValueError when the store belongs to another backbone, StorageUnavailable.
    """
    known = await items.backbone_info()
    if known is None or known.backbone_hash == present:
        return False
    if known.backbone_hash != former or not await items.rename_backbone(former, replace(known, backbone_hash=present)):
        raise ValueError(
            f"this store belongs to the backbone {known.name} ({short_hash(known.backbone_hash)}), not to {name} "
            f"({short_hash(present)}, formerly {short_hash(former)})"
        )
    return True
