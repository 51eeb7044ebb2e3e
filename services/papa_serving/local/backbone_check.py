"""Checks that the configured backbone can be served, without importing torch."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from papa.pipeline_folder import HASH_VERSION, SHIPPED, BackboneRefused, inspect_folder, local_folder
from papa_serving.contracts.items import BackboneInfo
from papa_serving.local.failure import Failure
from papa_serving.settings import Settings
from papa_serving.store import open_items
from papa_serving.store.records import former_hash


def find_backbone(backbone: str) -> Path | None:
    """The folder of a shipped name or of a diffusers folder; None for a hub id, which is fetched when it is loaded.

    Raises Failure when it can be none of them, or is a pipeline that cannot be served as far as its JSON files tell.
    """
    try:
        folder = local_folder(backbone)
        if folder is not None:
            inspect_folder(folder)
    except FileNotFoundError as error:
        raise Failure(str(error), "choose one with --backbone, or train one with papa backbone train") from error
    except BackboneRefused as error:
        raise Failure(str(error), "docs/backbones.md lists what can be served") from error
    return folder


def refuse_former_hash(settings: Settings) -> None:
    """Raises Failure for a store that names its backbone by a hash of a former version, before anything is loaded."""
    known = asyncio.run(_known_backbone(settings))
    if known is not None and not known.backbone_hash.startswith(HASH_VERSION):
        raise Failure(former_hash(known), "docs/backbones.md says what the hash covers")


async def _known_backbone(settings: Settings) -> BackboneInfo | None:
    items = open_items(settings)
    try:
        return await items.backbone_info()
    finally:
        await items.close()


def oracle_of(backbone: str) -> str:
    """The shipped backbone whose classifier knows the pictures of this one, "" where none does.

    A backbone that is asked by words shows what its namesake in pixels shows.
    """
    known = backbone.removesuffix("_text")
    return known if (SHIPPED / known / "oracle.safetensors").is_file() else ""


def takes_prompt(backbone: str) -> bool:
    """Whether the configured backbone can be asked for something, as far as its folder tells; one of the hub may be."""
    try:
        folder = find_backbone(backbone)
    except Failure:
        return False  # where it is served it is another machine's folder
    return folder is None or (folder / "text_encoder").is_dir() or (folder / "transformer").is_dir()


def taught_backbone(revisions: Path) -> str:
    """The hash of the backbone that a folder's revisions were made for, "" where it holds none: of one of them, since a
    service takes no other."""
    for manifest in revisions.glob("*/*/*/manifest.json"):
        try:
            return str(json.loads(manifest.read_bytes())["backbone"])
        except (OSError, KeyError, TypeError, ValueError):
            continue  # damaged: the next one may tell
    return ""
