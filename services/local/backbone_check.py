"""Whether the configured backbone exists, without importing torch to find out."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

from services.local.failure import Failure


def find_backbone(backbone: str) -> Path | None:
    """The folder of a shipped name or of a diffusers folder; None for a hub id, which is fetched when it is loaded.

    Raises Failure when it can be none of them.
    """
    shipped = _shipped()
    for folder in (shipped / backbone, Path(backbone)):
        if (folder / "unet" / "config.json").is_file():
            return folder
    if backbone.count("/") == 1 and not Path(backbone).exists():
        return None
    names = ", ".join(sorted(path.parent.parent.name for path in shipped.glob("*/unet/config.json"))) or "none"
    raise Failure(
        f"there is no backbone {backbone!r}: it is no shipped name ({names}), no diffusers folder and no hub id",
        "choose one with --backbone, or train one with papa backbone train",
    )


def has_oracle(backbone: str) -> bool:
    """Whether a classifier is shipped beside a backbone of this name."""
    return (_shipped() / backbone / "oracle.safetensors").is_file()


def taught_backbone(revisions: Path) -> str:
    """The hash of the backbone that a folder's revisions were made for, "" where it holds none: of one of them, since a
    service takes no other."""
    for manifest in revisions.glob("*/*/*/manifest.json"):
        try:
            return str(json.loads(manifest.read_bytes())["backbone"])
        except (OSError, KeyError, TypeError, ValueError):
            continue  # damaged: the next one may tell
    return ""


def _shipped() -> Path:
    return Path(str(files("papa"))) / "backbone" / "weights"
