"""Arguments and results of calls: frozen, typed, without protobuf."""

from __future__ import annotations

import io
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from papa_serving.contracts.errors import PapaError


class ServedBy(Enum):
    """The weights that made an item."""

    ADAPTER = "adapter"
    BASE = "base"


class Sampler(Enum):
    """The sampler of the reverse process."""

    DDPM = "ddpm"
    DDIM = "ddim"
    DPMPP_2M = "dpmpp_2m"


class ImageFormat(Enum):
    """A file format of images. PNG loses nothing; JPEG has no transparency."""

    PNG = "png"
    WEBP = "webp"
    JPEG = "jpeg"


@dataclass(frozen=True)
class ImageOptions:
    """How images are encoded. `max_edge`: the longest edge in pixels, for thumbnails; images are never enlarged.
    `quality`: 1 to 100, of WEBP and JPEG; None for the server's default."""

    format: ImageFormat = ImageFormat.PNG
    max_edge: int | None = None
    quality: int | None = None


class GenerateOptions(TypedDict, total=False):
    """Options of a generation; the server chooses the rest.

    `prompt`: what the items should show, for a backbone that takes one. `seed`: of the first item, item i begins from
    seed + i. `steps`: denoising steps. `revision`: an exact one of this user, or "base". `exploration`: share of the
    items, in [0, 1], drawn from the backbone. `guidance_scale`: how strictly the prompt is followed, in [1, 30]; 1 is
    not guided. `negative_prompt`: what the items should not show. `min_like_probability`: a floor in [0, 1], for fewer
    items rather than worse ones. `overdraw`: draws at most, in multiples of the items, in [1, 4]; 1 redraws nothing.
    `image`: file format and size of the images. `metadata` and `tags`: your own notes, which come back with each item
    (`get_item`) and in exports.
    """

    prompt: str
    seed: int
    sampler: Sampler
    steps: int
    revision: str
    exploration: float
    guidance_scale: float
    negative_prompt: str
    min_like_probability: float
    overdraw: float
    image: ImageOptions
    metadata: Mapping[str, str]
    tags: Sequence[str]


@dataclass(frozen=True)
class User:
    """One user; `tenant` "" means the tenant of the client, and failing that of its credential."""

    user: str
    tenant: str = ""


@dataclass(frozen=True)
class Item:
    """One generated image, encoded as `content_type` says. `index` is its position within the generation, from 0.

    `like_probability`: the chance, by the user's labels so far, that the user likes it; None where they do not say.
    `exploring`: the backbone made it although the user has an adapter. `seed` gives the image again: ask for one item
    with it, with overdraw 1, and with revision "base" where the backbone made it.
    """

    item_id: str
    image: bytes = field(repr=False)
    content_type: str
    seed: int
    index: int
    served_by: ServedBy
    like_probability: float | None = None
    exploring: bool = False

    def pil(self) -> Image:
        """The decoded image; needs Pillow (the extra `image`)."""
        try:
            from PIL import Image
        except ModuleNotFoundError as missing:
            raise ModuleNotFoundError("pictures need Pillow and numpy: pip install pillow numpy") from missing

        return Image.open(io.BytesIO(self.image))

    def numpy(self) -> NDArray[np.uint8]:
        """The pixels, uint8: [height, width] for grey, [height, width, 3] for colour; needs the extra `image`."""
        picture = self.pil()
        import numpy as np

        return np.asarray(picture, dtype=np.uint8)


@dataclass(frozen=True)
class UserGeneration:
    """The result for one of many users: a `generation`, or the `error` that it failed with."""

    user: str | User
    generation: Generation | None = None
    error: PapaError | None = None


@dataclass(frozen=True)
class ItemRecord:
    """An item that the service keeps. `revision` made it, "" for the backbone. `prompt` is what the backbone was given.
    `metadata` and `tags` are the notes of the generation.

    `item.like_probability` is None and `item.exploring` False: both are told with the generation alone.
    """

    item: Item
    generation_id: str
    revision: str
    prompt: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Timings:
    """The durations of a generation's phases, in seconds."""

    queued: float
    denoising: float
    adapter_load: float
    total: float


@dataclass(frozen=True)
class PromptReading:
    """How a backbone with a small vocabulary read a prompt.

    `prompt` is what it received. `read_as` maps words of the request to the known words that replaced them, and
    `unknown_words` were left out.
    """

    prompt: str
    read_as: Mapping[str, str]
    unknown_words: tuple[str, ...]


@dataclass(frozen=True)
class Generation:
    """All items of one generation; `revision` is "" where the backbone served. `prompt_reading` is None where the
    prompt was taken word for word. `request_id` finds the call in the service's logs. `noise_version` is that of the
    map from seeds to noise: a seed gives the same image again while it is the same. `acceptance` is the share of the
    `drawn` draws that were accepted; with a floor there may be fewer items than were asked for. `arms` names the arm of
    each experiment that the user is in. Name the `generation_id` in the events that the items lead to.
    """

    generation_id: str
    items: tuple[Item, ...]
    revision: str
    served_by: ServedBy
    timings: Timings
    prompt_reading: PromptReading | None = None
    request_id: str = ""
    noise_version: int = 1
    acceptance: float = 1.0
    drawn: int = 0
    arms: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FeedbackEvent:
    """One label, or what a user did: of an item of this service (`item_id`), of an item of a catalogue
    (`catalogue_item`, and `catalogue` unless it is the default one), or of your own encoded image (`image`).

    `taking_back` makes an event that takes back an earlier one instead (`cancels`, an event_id). `grade` is in [−1, 1]
    and not 0: a like is 1, a dislike −1. The `event_id` makes retries harmless. Keep the event when you retry, or give
    an id that your own system remembers. `occurred_at` None means now. `prompt` says what an `image` shows, for a
    backbone that takes prompts; an item has its own.

    `type` says what the user did, in place of a grade: view, click, cart, purchase, like, dislike or skip. The
    deployment decides what it is worth (`ServerInfo.event_weights`); one that is worth 0 is kept, and teaches nothing.
    `generation_id` or `recommendation_id` says what led to the event. `metadata` and `tags` are your own notes. All of
    these come back in exports.
    """

    user: str | User
    grade: float = 0.0
    item_id: str = ""
    image: bytes = field(default=b"", repr=False)
    event_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    occurred_at: datetime | None = None
    prompt: str = ""
    cancels: str = ""
    catalogue_item: str = ""
    catalogue: str = ""
    type: str = ""
    generation_id: str = ""
    recommendation_id: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: Sequence[str] = ()

    @classmethod
    def taking_back(cls, user: str | User, event_id: str) -> FeedbackEvent:
        """An event that takes back the user's event `event_id`."""
        return cls(user, 0.0, cancels=event_id)


@dataclass(frozen=True)
class Outcome:
    """The result for one event: its number `sequence` in the order of its user's events, or an `error`.

    `item_gone` says that an event with a type was accepted but teaches nothing, because its item is not there any more.
    """

    event_id: str
    sequence: int = 0
    duplicate: bool = False
    error: PapaError | None = None
    item_gone: bool = False

    @property
    def accepted(self) -> bool:
        """Whether the event was accepted and is durable."""
        return self.error is None


@dataclass(frozen=True)
class Revision:
    """One immutable adapter of one user, by its `name`. `parent` is the previous one's name; "" for the first."""

    name: str
    parent: str
    created_at: datetime
    events_applied: int
    events_total: int
    sha256: str


@dataclass(frozen=True)
class Usage:
    """What a user has of each quota; see Quotas. `remembered_labels` is 0 where that is not known."""

    revisions: int = 0
    items: int = 0
    event_ids: int = 0
    remembered_labels: int = 0


@dataclass(frozen=True)
class UserState:
    """A user at one moment; `current_revision` is None while the backbone serves.

    `usage` comes with `get_user` alone, and is None otherwise.
    """

    user: str
    tenant: str
    likes: int
    dislikes: int
    pending_events: int
    dead_letters: int
    current_revision: Revision | None
    usage: Usage | None = None


@dataclass(frozen=True)
class UserExport:
    """All data of a user: `files` by name. The files of the exported revision form a folder that peft itself loads."""

    state: UserState
    revisions: tuple[Revision, ...]
    files: dict[str, bytes] = field(repr=False)


@dataclass(frozen=True)
class Limits:
    """The limits of one call to a deployment; see info.proto. The defaults are those of a gateway's settings."""

    max_message_bytes: int = 8 * 2**20
    max_events: int = 1_000
    max_image_bytes: int = 2**20
    max_image_pixels: int = 2**22
    max_count: int = 64
    max_steps: int = 1_000
    max_prompt_characters: int = 1_000
    max_id_characters: int = 128
    max_generations: int = 100
    max_recommended: int = 64
    max_ranked: int = 256
    max_ranked_images: int = 16
    max_notes_bytes: int = 2_048


@dataclass(frozen=True)
class Quotas:
    """The most of each that one user may have; see info.proto. 0 where the deployment is of an earlier release, which
    reports no quotas."""

    revisions: int = 0
    items: int = 0
    event_ids: int = 0
    pending_events: int = 0
    remembered_labels: int = 0


@dataclass(frozen=True)
class ServerInfo:
    """A deployment: its version, its limits, and its backbone. `image_shape` is (channels, height, width) in pixels;
    before a generator has started there is no backbone, and name, hash and shape are "", "" and (0, 0, 0).
    `vocabulary` holds all words of its prompts where they are few, and nothing where any text is read. `overdraw` is
    that of a generation that asks for none. `quotas` bound what one user may have. `event_weights` says what each type
    of event is worth as a grade."""

    version: str
    limits: Limits
    backbone_name: str
    backbone_hash: str
    image_shape: tuple[int, int, int]
    takes_prompt: bool
    vocabulary: tuple[str, ...] = ()
    overdraw: float = 1.0
    quotas: Quotas = field(default_factory=Quotas)
    event_weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class DeadLetter:
    """An accepted event that no revision applied. `letter_id` is unique per user; `reason` says why."""

    letter_id: str
    user: str
    tenant: str
    event_id: str
    sequence: int
    grade: float
    revision: str
    accepted_at: datetime
    died_at: datetime
    attempts: int
    reason: str


@dataclass(frozen=True)
class DeletionReceipt:
    """The receipt of a deletion: the removed data and the time."""

    receipt_id: str
    deleted_at: datetime
    events: int
    dead_letters: int
    items: int
    revisions: int
    remains: str = ""
    """A description of data that is not removed yet."""


@dataclass(frozen=True)
class Interval:
    """An estimate, and the ends of its 95 % confidence interval. Its unit is the user."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class ArmRate:
    """Events of one `measure` (click, like or purchase) per item shown. `difference` is the rate minus the baseline's,
    and None for the baseline; `lift` is relative, and also None where too little was seen."""

    measure: str
    hits: int
    rate: Interval
    difference: Interval | None
    lift: Interval | None


@dataclass(frozen=True)
class ArmReport:
    """One arm of an experiment: its share of the users, the users seen, and the items that they were shown."""

    arm: str
    share: float
    users: int
    shown: int
    rates: tuple[ArmRate, ...]


@dataclass(frozen=True)
class ExperimentReport:
    """One experiment. The arms are compared with that named `baseline`."""

    experiment: str
    salt: str
    baseline: str
    arms: tuple[ArmReport, ...]


MetadataValue = str | float | bool | tuple[str, ...]
"""A value of an item's metadata: a text, a number, a flag, or several texts such as labels."""


@dataclass(frozen=True)
class NewItem:
    """An item of your catalogue, to add or replace. Give the encoded `image` (PNG, JPEG or WebP), or the `embedding`
    that you have computed by the deployment's `encoder`."""

    item_id: str
    image: bytes = field(default=b"", repr=False)
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    embedding: tuple[float, ...] = field(default=(), repr=False)
    encoder: str = ""


@dataclass(frozen=True)
class CatalogueItem:
    """An item as the catalogue holds it. `has_image`: it was given as a picture, so that feedback may name it."""

    item_id: str
    metadata: Mapping[str, MetadataValue]
    updated_at: datetime
    has_image: bool


class Put(Enum):
    """What became of an item that was put."""

    ADDED = "added"
    REPLACED = "replaced"
    UNCHANGED = "unchanged"


@dataclass(frozen=True)
class PutOutcome:
    """The result for one item: what became of it, or the `error` for which it was not stored."""

    item_id: str
    result: Put | None = None
    error: PapaError | None = None


class Reason(Enum):
    """Why an item was recommended."""

    NEAR_DRAWN = "near what your model draws"
    NEAR_LIKED = "near what you liked"
    EXPLORES = "explores"


@dataclass(frozen=True)
class AnyOf:
    """A filter: the value is one of these texts, or, where the value is several texts, one of them is."""

    texts: tuple[str, ...]
    of_several: bool = False


@dataclass(frozen=True)
class Between:
    """A filter: the value is a number of at least `low` and at most `high`; None is no bound."""

    low: float | None = None
    high: float | None = None


Condition = AnyOf | Between | str | float | bool
"""What an item's value must pass: a filter, or the text, the number or the flag that it must be."""


@dataclass(frozen=True)
class RecommendedItem:
    """An item of a catalogue that was chosen for a user. `like_probability` is None where the labels do not say."""

    item_id: str
    like_probability: float | None
    reason: Reason
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)


@dataclass(frozen=True)
class Recommendation:
    """Items of a catalogue for a user, in the order in which to show them.

    `personal` is false where nothing is known of the user, who then gets the spread of what the backbone draws.
    `revision` is that whose taste this is, "" for none.
    """

    recommendation_id: str
    items: tuple[RecommendedItem, ...]
    revision: str
    personal: bool


@dataclass(frozen=True)
class RankedItem:
    """An item or a picture that was ranked: its position in the request, and its id, "" for a picture."""

    index: int
    item_id: str
    like_probability: float | None


@dataclass(frozen=True)
class Ranking:
    """Items or pictures, the likeliest to be liked first; in the order of the request where nothing is known.

    `missing` are ids that the catalogue does not have.
    """

    items: tuple[RankedItem, ...]
    missing: tuple[str, ...]
    revision: str


@dataclass(frozen=True)
class Catalogue:
    """One catalogue: how many items it has, and the encoder of their embeddings."""

    name: str
    items: int
    encoder: str


@dataclass(frozen=True)
class CatalogueList:
    """The catalogues of a tenant. `encoder` is the deployment's present one, of `embedding_size` numbers."""

    catalogues: tuple[Catalogue, ...]
    encoder: str
    embedding_size: int
