"""`papa generate`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from papa_serving.cli import terminal_pictures
from papa_serving.cli.connection import Address, Tenant, UserId, connect
from papa_serving.cli.output import AsJson, check_writable, console, print_json, print_table, voice
from papa_serving.client import Generation, ImageFormat, ImageOptions, Item, PromptReading, Sampler
from papa_serving.client.records import GenerateOptions
from papa_serving.contracts.limits import MAX_EDGE, MAX_OVERDRAW, MAX_QUALITY
from papa_serving.local.failure import Failure

Count = Annotated[int, typer.Option("--count", "-n", min=1, help="Number of items.")]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Seed of the first item; random when absent.")]
SamplerName = Annotated[Sampler | None, typer.Option("--sampler", help="The server's default when absent.")]
Steps = Annotated[int | None, typer.Option("--steps", min=1, help="Denoising steps.")]
RevisionName = Annotated[str, typer.Option("--revision", help="An exact revision, or 'base'.", show_default=False)]
Exploration = Annotated[
    float | None, typer.Option("--exploration", min=0, max=1, help="Share of items drawn from the backbone.")
]
Prompt = Annotated[str, typer.Option("--prompt", help="For a backbone that takes one.", show_default=False)]
Negative = Annotated[str, typer.Option("--negative-prompt", help="What not to show.", show_default=False)]
Guidance = Annotated[
    float | None, typer.Option("--guidance", min=1, max=30, help="How strictly the prompt is followed.")
]
Floor = Annotated[
    float | None,
    typer.Option("--min-like-probability", min=0, max=1, help="Fewer items rather than less likely liked ones."),
]
Overdraw = Annotated[
    float | None,
    typer.Option("--overdraw", min=1, max=MAX_OVERDRAW, help="Draws per item at most; 1 redraws nothing."),
]
Format = Annotated[ImageFormat, typer.Option("--format", help="File format of the images.")]
MaxEdge = Annotated[
    int | None, typer.Option("--max-edge", min=1, max=MAX_EDGE, help="Longest edge in pixels; never enlarges.")
]
Quality = Annotated[
    int | None, typer.Option("--quality", min=1, max=MAX_QUALITY, help="Of webp and jpeg; the server's when absent.")
]
MetadataOption = Annotated[
    list[str], typer.Option("--metadata", metavar="KEY=TEXT", help="Your own note, kept; may be repeated.")
]
Tags = Annotated[list[str], typer.Option("--tag", metavar="TAG", help="Your own tag, kept; may be repeated.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for the images.", file_okay=False)]
Show = Annotated[
    bool | None,
    typer.Option("--show/--no-show", help="Pictures in the terminal; shown where there is one.", show_default=False),
]


def generate(
    user: UserId,
    count: Count = 10,
    seed: Seed = None,
    sampler: SamplerName = None,
    steps: Steps = None,
    revision: RevisionName = "",
    exploration: Exploration = None,
    prompt: Prompt = "",
    negative_prompt: Negative = "",
    guidance: Guidance = None,
    min_like_probability: Floor = None,
    overdraw: Overdraw = None,
    image_format: Format = ImageFormat.PNG,
    max_edge: MaxEdge = None,
    quality: Quality = None,
    metadata: MetadataOption = [],  # noqa: B006 - typer copies defaults
    tags: Tags = [],  # noqa: B006
    out: Out = Path("items"),
    show: Show = None,
    address: Address = "",
    tenant: Tenant = "",
    json: AsJson = False,
) -> None:
    """Generate items with a user's newest adapter and save the images."""
    chosen = {
        "seed": seed, "sampler": sampler, "steps": steps, "exploration": exploration,
        "revision": revision or None, "prompt": prompt or None,
        "guidance_scale": guidance, "negative_prompt": negative_prompt or None,
        "min_like_probability": min_like_probability, "overdraw": overdraw,
        "image": ImageOptions(image_format, max_edge, quality),
        "metadata": notes_of(metadata) or None, "tags": tags or None,
    }  # fmt: skip
    options = GenerateOptions(**{name: value for name, value in chosen.items() if value is not None})  # type: ignore[typeddict-item]
    check_writable(out)
    with connect(address, tenant) as client, voice(json).status(f"generating {count} items …"):
        generation = client.generate(user, count, **options)
        reading = generation.prompt_reading
        words = client.server_info().vocabulary if reading and reading.unknown_words else ()
    files = save(generation.items, generation.generation_id, out)
    if json:
        items = [{**asdict(item), "file": file} for item, file in zip(generation.items, files, strict=True)]
        print_json({**asdict(generation), "items": items})
        return
    if console.is_terminal if show is None else show:
        terminal_pictures.show(generation.items, console, os.environ)
    made_by = f"revision {generation.revision}" if generation.revision else "the backbone"
    rows = [
        (item.item_id, item.seed, _made_by(item), _percent(item.like_probability), file)
        for item, file in zip(generation.items, files, strict=True)
    ]
    print_table("", ("item", "seed", "served by", "liked", "file"), rows)
    for line in _readings(reading, words):
        console.print(line)
    console.print(f"{len(rows)} items by {made_by} in {generation.timings.total:.2f} s{_selected(generation, count)}")


def notes_of(texts: Sequence[str]) -> dict[str, str]:
    """The metadata that options give as KEY=TEXT. Raises Failure."""
    pairs = [text.partition("=") for text in texts]
    for key, equals, _ in pairs:
        if not key or not equals:
            raise Failure(f"--metadata takes KEY=TEXT, not {key!r}", "for instance --metadata page=home")
    return {key: value for key, _, value in pairs}


def _readings(reading: PromptReading | None, words: Sequence[str]) -> Iterator[str]:
    """The remarks on a prompt that the person who wrote it should read."""
    if reading is None:
        return
    for said, word in reading.read_as.items():
        yield f"“{said}” was read as “{word}”"
    if reading.unknown_words:
        unknown = ", ".join(f"“{word}”" for word in reading.unknown_words)
        yield f"the backbone does not know {unknown}: left out; it knows {', '.join(words)}"


def _made_by(item: Item) -> str:
    return f"{item.served_by.value}, exploring" if item.exploring else item.served_by.value


def _selected(generation: Generation, count: int) -> str:
    """Says how many draws were rejected, and how many items are missing for the floor."""
    said = f", of {generation.drawn} drawn" if generation.drawn > len(generation.items) else ""
    missing = count - len(generation.items)
    return f"{said}; {missing} found nothing above --min-like-probability" if missing else said


def _percent(probability: float | None) -> str:
    return "" if probability is None else f"{probability:.0%}"


def save(items: Sequence[Item], generation_id: str, folder: Path) -> list[Path]:
    """Writes the images. Names files by generation and index, because item ids are opaque and are not used in paths."""
    folder.mkdir(parents=True, exist_ok=True)
    prefix = "".join(letter for letter in generation_id if letter.isalnum())[:16]
    files = []
    for item in items:
        suffix = item.content_type.rpartition("/")[2]
        file = folder / f"{prefix}-{item.index:02d}.{suffix if suffix.isalnum() else 'bin'}"
        file.write_bytes(item.image)
        files.append(file)
    return files
