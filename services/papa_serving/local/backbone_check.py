"""Checks that the configured backbone can be served, without importing torch."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from papa.pipeline_folder import (
    HASH_VERSION,
    JUDGED_BY,
    SHIPPED,
    BackboneRefused,
    download,
    inspect_folder,
    local_folder,
    shipped_names,
)
from papa_serving.contracts.items import BackboneInfo
from papa_serving.local.child_processes import python_program
from papa_serving.local.failure import Failure
from papa_serving.settings import Settings
from papa_serving.store import open_items
from papa_serving.store.records import former_hash, short_hash

INSTALL = "pip install 'papa-serving[server]'"


def find_backbone(backbone: str) -> Path | None:
    """The folder of a shipped name or of a diffusers folder; None for a hub id, which is fetched when it is loaded.

    Raises Failure when it can be none of them, or is a pipeline that cannot be served as far as its JSON files tell.
    """
    with _refusals():
        folder = local_folder(backbone)
        if folder is not None:
            inspect_folder(folder)
    return folder


def inspect_hub(hub_id: str) -> str:
    """Fetches the JSON files of a hub id, a few kilobytes, and returns the class of its pipeline.

    Raises Failure for one that is not there or cannot be served, before anything waits for gigabytes of weights.
    """
    with _refusals():
        try:
            return inspect_folder(download(hub_id, weights=False)).pipeline
        except ImportError as error:
            raise Failure(f"a hub id needs a package: {error}", INSTALL) from error


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise Failure(str(error), "choose one with --backbone, or train one with papa backbone train") from error
    except BackboneRefused as error:
        raise Failure(str(error), "docs/backbones.md lists what can be served") from error


def refuse_former_hash(settings: Settings) -> BackboneInfo | None:
    """Returns what the store knows of its backbone. Raises Failure if it names it by a hash of a former version."""
    known = asyncio.run(_known_backbone(settings))
    if known is not None and not known.backbone_hash.startswith(HASH_VERSION):
        raise Failure(former_hash(known), "docs/backbones.md says what the hash covers")
    return known


def check_store(settings: Settings, embedded: bool) -> None:
    """Raises Failure for a store whose adapters belong to another backbone, or that names it by a former hash.

    A backbone of another name, and one that can be trained anew under its name, is loaded for it in a process of its
    own; a shipped one that the store knows by its name is not. `embedded`: Redis is that of the data folder.
    """
    known = refuse_former_hash(settings)
    if known is None:
        return
    named = settings.backbone
    if known.name == named and (named in shipped_names() or find_backbone(named) is None):
        return
    found, _ = loaded_hashes(named)
    if found != known.backbone_hash:
        kept = f"the data in {settings.data_dir} belong" if embedded else "this Redis belongs"
        raise Failure(
            f"{kept} to the backbone {known.name} ({short_hash(known.backbone_hash)}), whose adapters do not fit "
            f"{named} ({short_hash(found)})",
            f"start with --backbone {known.name}, or keep the other's data apart: --data-dir"
            + (" and PAPA_REDIS__PREFIX" if not embedded else ""),
        )


class Unanswered(Exception):
    """A program that was asked for something failed; the message is the last line of its output."""


def asked(program: str, argument: str) -> str:
    """Runs a Python program in a separate process and returns what it prints. Raises Unanswered."""
    done = subprocess.run(python_program(program, argument), capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unanswered((done.stderr.strip().splitlines() or ["no reason given"])[-1])
    return done.stdout


def loaded_hashes(backbone: str) -> tuple[str, str]:
    """The present and the former hash of a backbone, which is loaded and run once for it. Raises Failure."""
    program = "import sys; from papa.denoiser import load_denoiser; print(*load_denoiser(sys.argv[1]).hashes)"
    try:
        found, former = asked(program, backbone).split()[-2:]
    except Unanswered as reason:
        hint = INSTALL if "No module" in str(reason) else "choose another --backbone, or copy this one again"
        cause = str(reason).removeprefix(f"{BackboneRefused.__module__}.{BackboneRefused.__qualname__}: ")
        raise Failure(f"{backbone} cannot be loaded: {cause}", hint) from reason
    return found, former


async def _known_backbone(settings: Settings) -> BackboneInfo | None:
    items = open_items(settings)
    try:
        return await items.backbone_info()
    finally:
        await items.close()


def oracle_of(backbone: str) -> str:
    """The shipped backbone whose classifier knows the pictures of this one, "" where none does."""
    known = JUDGED_BY.get(backbone, backbone)
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
