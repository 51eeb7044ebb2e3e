"""Checks that the configured backbone exists and can be served, without importing torch."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

from papa_serving.local.failure import Failure

PARTS = ("unet", "transformer")
"""The folder of a pipeline's network."""

SUPPORTED = {
    "UNet2DModel": (),
    "UNet2DConditionModel": ("vae", "text_encoder", "tokenizer"),
    "DiTTransformer2DModel": ("vae",),
}
"""Classes of networks that can be served, and the folders that each needs beside it."""


def find_backbone(backbone: str) -> Path | None:
    """The folder of a shipped name or of a diffusers folder; None for a hub id, which is fetched when it is loaded.

    Raises Failure when it can be none of them, or is a pipeline that cannot be served.
    """
    shipped = _shipped()
    for folder in (shipped / backbone, Path(backbone)):
        config = next((path for part in PARTS if (path := folder / part / "config.json").is_file()), None)
        if config is not None:
            _refuse_unsupported(folder, config)
            return folder
    if backbone.count("/") == 1 and not Path(backbone).exists():
        return None
    names = ", ".join(sorted(path.parent.parent.name for path in shipped.glob("*/unet/config.json"))) or "none"
    raise Failure(
        f"there is no backbone {backbone!r}: it is no shipped name ({names}), no diffusers folder and no hub id",
        "choose one with --backbone, or train one with papa backbone train",
    )


def oracle_of(backbone: str) -> str:
    """The shipped backbone whose classifier knows the pictures of this one, "" where none does.

    A backbone that is asked by words shows what its namesake in pixels shows.
    """
    known = backbone.removesuffix("_text")
    return known if (_shipped() / known / "oracle.safetensors").is_file() else ""


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


def _shipped() -> Path:
    return Path(str(files("papa"))) / "backbone" / "weights"


def _refuse_unsupported(folder: Path, config: Path) -> None:
    try:
        kind = json.loads(config.read_text()).get("_class_name", "UNet2DModel")
    except (ValueError, AttributeError) as error:
        raise Failure(f"the backbone's {config} is not JSON", "copy the pipeline again") from error
    if kind not in SUPPORTED:
        raise Failure(
            f"the backbone {folder} is a {kind}, which cannot be served",
            f"pipelines of these networks can: {', '.join(SUPPORTED)}",
        )
    missing = [part for part in SUPPORTED[kind] if not (folder / part).is_dir()]
    if missing:
        raise Failure(f"the backbone {folder} lacks {', '.join(missing)}", "save the whole pipeline: save_pretrained")
