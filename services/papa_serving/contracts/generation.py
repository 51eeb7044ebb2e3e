"""Requests to the engine and its answers."""

from __future__ import annotations

from dataclasses import dataclass

from papa_serving.contracts.attribution import NO_NOTES, Notes
from papa_serving.contracts.identity import UserKey


@dataclass(frozen=True)
class ImageEncoding:
    """How images are encoded. `format` is one of IMAGE_FORMATS. `max_edge` is the longest edge in pixels, 0 for the
    backbone's size. `quality` of a lossy format is 1 to 100, 0 for the default."""

    format: str = "png"
    max_edge: int = 0
    quality: int = 0


IMAGE_FORMATS = ("png", "webp", "jpeg")


@dataclass(frozen=True)
class GenerationSpec:
    """One validated generation.

    `sampler` "", `steps` 0, `exploration` < 0, `guidance` < 0 and `overdraw` 0 mean the server's defaults. `revision`
    "" means the newest one, and "base" none. `deadline` is of this process's monotonic clock, 0 for none."""

    request_id: str
    generation_id: str
    user: UserKey
    count: int
    seed: int
    prompt: str = ""
    sampler: str = ""
    steps: int = 0
    revision: str = ""
    exploration: float = -1.0
    deadline: float = 0.0
    traceparent: str = ""
    guidance: float = -1.0
    negative_prompt: str = ""
    min_like_probability: float = 0.0
    overdraw: float = 0.0
    image: ImageEncoding = ImageEncoding()
    notes: Notes = NO_NOTES


@dataclass(frozen=True)
class GeneratedItem:
    """One finished item; `revision` is "" when the base made it. `like_probability`: how likely its user likes it, None
    where nothing says so. `exploring`: the base made it although its user has an adapter."""

    item_id: str
    image: bytes
    content_type: str
    seed: int
    index: int
    revision: str
    like_probability: float | None = None
    exploring: bool = False


@dataclass(frozen=True)
class RenderedItem:
    """A stored item, encoded again; `prompt` is what the backbone was given for it."""

    item: GeneratedItem
    generation_id: str
    prompt: str
    notes: Notes = NO_NOTES


@dataclass(frozen=True)
class FinishedItems:
    """Items that are done, of a generation that has drawn `drawn` candidates so far."""

    items: tuple[GeneratedItem, ...]
    drawn: int


@dataclass(frozen=True)
class GenerationTimings:
    """Seconds, as in the public Timings message."""

    queued: float = 0.0
    denoising: float = 0.0
    adapter_load: float = 0.0


@dataclass(frozen=True)
class GenerationDone:
    """The end of a generation. `noise_version`: how its seeds became noise (papa.noise.VERSION). Of the `drawn`
    candidates `accepted` ones became items for what they are."""

    revision: str
    timings: GenerationTimings
    noise_version: int
    drawn: int
    accepted: int
