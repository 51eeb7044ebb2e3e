"""Memory and adapter sizes of published backbones, from their configurations alone: networks are made without storage.

python -m benchmarks.sizes
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.published_pipelines import CONFIGURATIONS, write
from papa.backbone.size import BackboneSize, pipeline_size

SLOTS = 64
RANKS = (4, 8, 16)
CARDS = (16, 24, 48, 80)
"""Memory of graphics cards in GiB."""


def sizes(name: str, rank: int | None = None) -> BackboneSize:
    """Computes the sizes of one published pipeline with adapters of one rank."""
    with TemporaryDirectory() as folder:
        return pipeline_size(write(name, Path(folder)), rank)


def backbone_table(rows: dict[str, BackboneSize]) -> str:
    """Markdown: what each pipeline takes, and which cards hold its weights."""
    lines = [
        "| backbone | network | VAE | text encoders | all, float32 | all, bfloat16 | x0 of an item | bfloat16 fits |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, size in rows.items():
        network, *others = size.components
        vae = sum(each.parameters for each in others if each.part == "vae")
        text = sum(each.parameters for each in others if each.part.startswith("text_encoder"))
        fits = [f"{card}" for card in CARDS if size.left(card * 2**30, "bfloat16") > 0]
        shape = " × ".join(map(str, size.sample))
        lines.append(
            f"| {name} | {network.parameters / 1e6:,.1f} M | {vae / 1e6:,.1f} M | {text / 1e6:,.1f} M "
            f"| {size.weights_bytes('float32') / 2**30:.2f} GiB | {size.weights_bytes('bfloat16') / 2**30:.2f} GiB "
            f"| {shape}, {size.sample_bytes / 1024:,.0f} KiB | {', '.join(fits)} GiB |"
        )
    return "\n".join(lines)


def adapter_table(rows: dict[str, list[BackboneSize]]) -> str:
    """Markdown: what adapters of each rank take."""
    lines = [
        f"| backbone | layers | rank | adapter | in a slot (bfloat16) | in a revision | {SLOTS} slots |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {size.adapted_layers} | {size.rank} | {size.adapter_parameters / 1e6:.2f} M "
        f"| {size.slot_bytes('bfloat16') / 1e6:.2f} MB | {size.revision_bytes / 1e6:.2f} MB "
        f"| {size.slot_bytes('bfloat16') * (SLOTS + 1) / 1e6:,.0f} MB |"
        for name, of_name in rows.items()
        for size in of_name
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    rows = {name: [sizes(name, rank) for rank in RANKS] for name in CONFIGURATIONS}
    if as_json:
        print(json.dumps({name: [asdict(size) for size in of_name] for name, of_name in rows.items()}, indent=1))
        return
    print(backbone_table({name: of_name[0] for name, of_name in rows.items()}))
    print()
    print(adapter_table(rows))


if __name__ == "__main__":
    main()
