"""Finds a backbone: in the package, in a folder, or on the hub."""

from __future__ import annotations

from pathlib import Path

from papa.backbone.vocabulary_file import VOCABULARY_FILE
from papa.pool import POOL_FILE

SHIPPED = Path(__file__).parents[1] / "backbone" / "weights"
"""The folder of the shipped backbones, each a standard diffusers folder."""

PARTS = ("unet", "transformer", "vae", "scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
"""The folders of a pipeline that are used; nothing else is downloaded."""


def resolve_backbone(backbone: str) -> Path:
    """The local folder of a backbone; a hub id is downloaded. Raises FileNotFoundError with what was tried."""
    for folder in (SHIPPED / backbone, Path(backbone)):
        if any((folder / part / "config.json").is_file() for part in ("unet", "transformer")):
            return folder
    if backbone.count("/") != 1 or Path(backbone).exists():
        raise FileNotFoundError(f"no backbone {backbone!r}: neither shipped ({shipped_names()}) nor a diffusers folder")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = ["model_index.json", POOL_FILE, VOCABULARY_FILE]
    wanted += [f"{part}/{name}" for part in PARTS for name in ("*.json", "*.txt", "*.safetensors")]
    # A repository often holds the same weights several times over.
    variants = ["*.fp16.*", "*.non_ema.*", "*.bf16.*"]
    try:
        return Path(snapshot_download(backbone, allow_patterns=wanted, ignore_patterns=variants))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise FileNotFoundError(f"no backbone {backbone!r}: not a folder, and the hub says: {error}") from error


def shipped_names() -> list[str]:
    """The names of the backbones that come with the package."""
    return sorted(path.name for path in SHIPPED.iterdir() if path.is_dir()) if SHIPPED.is_dir() else []
