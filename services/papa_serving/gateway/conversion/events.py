"""Converts feedback events of the public contract to those of the log. Each gives an event or an error."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from papa_serving import tracing
from papa_serving.contracts.attribution import Attribution, Notes
from papa_serving.contracts.catalogue import DEFAULT_CATALOGUE, CatalogueKey, Catalogues
from papa_serving.contracts.errors import (
    EncoderChanged,
    InvalidRequest,
    ItemNotFound,
    PapaError,
    StorageDamaged,
    Violation,
)
from papa_serving.contracts.feedback import FeedbackEvent
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.items import BackboneInfo
from papa_serving.contracts.samples import unpack_sample
from papa_serving.gateway.backends import KnownBackbone
from papa_serving.gateway.conversion import validation
from papa_serving.gateway.conversion.picture_reader import PictureReader
from papa_serving.gateway.conversion.pictures import INCOMPLETE, BadPicture, begins_as_picture
from papa_serving.gateway.rpc.admission import caller
from papa_serving.settings import AttributionSettings, GatewaySettings
from papa_serving.stubs.serving.v1 import feedback_pb2, types_pb2

Message = feedback_pb2.FeedbackEvent
Converted = FeedbackEvent | PapaError
Named = tuple[str, str]

_GRADES: dict[int, float] = {feedback_pb2.SIGNAL_LIKE: 1.0, feedback_pb2.SIGNAL_DISLIKE: -1.0}


@dataclass(frozen=True)
class _NoPicture:
    """Why a catalogue's item has no picture to learn from. Only the log knows whether the event needs one."""

    why: PapaError


class _NoPrompt(Exception):
    """A prompt for a backbone that takes none."""


class EventReader:
    """Validates and converts; images are decoded into the backbone's shape."""

    def __init__(
        self,
        limits: GatewaySettings,
        backbone: KnownBackbone,
        pictures: PictureReader,
        catalogues: Catalogues,
        attribution: AttributionSettings,
    ) -> None:
        self._limits, self._backbone, self._pictures, self._catalogues = limits, backbone, pictures, catalogues
        self._attribution = attribution

    async def read(
        self, messages: Sequence[Message], path: Callable[[int], str], deadline: float | None = None
    ) -> list[Converted]:
        """Returns one result per message, in order. `path(i)` is the prefix of message i's fields in violations;
        `deadline` is of the monotonic clock.

        Messages are validated first, then their users are identified and charged, and only then pictures are decoded:
        no work is done for a caller before the right to it is known.
        """
        arrived = time.time()
        findings = [self._findings(message, path(index)) for index, message in enumerate(messages)]
        whose = _charged(message for index, message in enumerate(messages) if not findings[index])
        images = await asyncio.gather(
            *(
                self._image(message, path(index), findings[index], whose, deadline)
                for index, message in enumerate(messages)
            )
        )
        return [
            self._converted(message, findings[index], images[index], whose, arrived)
            for index, message in enumerate(messages)
        ]

    def _findings(self, message: Message, path: str) -> list[Violation]:
        violations: list[Violation] = []
        validation.check_event(message, path, self._limits, violations)
        data = f"{path}image.data"
        sized = all(violation.field != data for violation in violations)
        if message.WhichOneof("target") == "image" and sized and not begins_as_picture(message.image.data):
            violations.append(Violation(data, INCOMPLETE))
        return violations

    async def _image(
        self,
        message: Message,
        path: str,
        violations: list[Violation],
        whose: Mapping[Named, UserKey | PapaError],
        deadline: float | None,
    ) -> bytes | _NoPicture | PapaError:
        """Returns a packed sample, b"" where there is nothing to decode. Malformed images are added to `violations`;
        other errors are returned."""
        if message.WhichOneof("target") not in ("image", "catalogue_item") or violations:
            return b""
        user = whose[message.user.tenant, message.user.user]
        if isinstance(user, PapaError) or not self._grade(message, user):
            return b""  # refused with its user, or no label: nobody will learn from the picture
        try:
            backbone = await self._backbone.info()
            if message.WhichOneof("target") == "catalogue_item":
                return await self._stored(user.tenant, message.catalogue_item, backbone, path)
            return await self._decoded(user, message.image, backbone, deadline)
        except BadPicture as error:
            violations.append(Violation(f"{path}image.data", str(error)))
        except _NoPrompt:
            violations.append(Violation(f"{path}image.prompt", "the deployed backbone takes no prompt"))
        except PapaError as error:
            return error
        return b""

    async def _decoded(
        self, user: UserKey, image: feedback_pb2.CatalogueImage, backbone: BackboneInfo, deadline: float | None
    ) -> bytes:
        """Raises BadPicture, _NoPrompt, PapaError."""
        prompt = image.prompt
        if prompt and not backbone.takes_prompt:
            raise _NoPrompt
        if prompt and backbone.vocabulary.words:  # in a thread: long prompts of many events take long to read
            prompt = (await asyncio.to_thread(backbone.vocabulary.read, prompt)).prompt
        return await self._pictures.read(user, image.data, backbone.image_shape, prompt, deadline)

    async def _stored(
        self, tenant: str, named: feedback_pb2.NamedCatalogueItem, backbone: BackboneInfo, path: str
    ) -> bytes | _NoPicture:
        """The packed picture of a catalogue's item."""
        catalogue = CatalogueKey(tenant, named.catalogue or DEFAULT_CATALOGUE)
        (item,) = await self._catalogues.get(catalogue, [named.item_id])
        if item is None:
            return _NoPicture(ItemNotFound("the catalogue has no such item", field=f"{path}catalogue_item.item_id"))
        if not item.sample:
            what = "was put as an embedding, so there is no picture to learn from"
            return _NoPicture(InvalidRequest([Violation(f"{path}catalogue_item.item_id", what)]))
        try:
            shape = unpack_sample(item.sample).shape
        except ValueError as error:
            return _NoPicture(StorageDamaged(f"the picture of a catalogue's item cannot be read: {error}"))
        if shape != backbone.image_shape:
            what = "the item was put for another backbone: import it again"
            return _NoPicture(EncoderChanged(what, field=f"{path}catalogue_item"))
        return item.sample

    def _grade(self, message: Message, user: UserKey) -> float:
        """The grade of a valid event; 0 where it is no label."""
        if message.cancels:
            return 0.0
        if message.type:
            return _float32(self._attribution.weights_of(user.tenant)[message.type])
        return _float32(message.grade) or _GRADES[message.signal]

    def _converted(
        self,
        message: Message,
        violations: list[Violation],
        image: bytes | _NoPicture | PapaError,
        whose: Mapping[Named, UserKey | PapaError],
        arrived: float,
    ) -> FeedbackEvent | PapaError:
        if violations:
            return InvalidRequest(violations)
        if isinstance(image, PapaError):
            return image
        user = whose[message.user.tenant, message.user.user]
        if isinstance(user, PapaError):
            return user
        return FeedbackEvent(
            event_id=message.event_id,
            user=user,
            grade=self._grade(message, user),
            cancels=message.cancels,
            item_id=message.item_id,
            image=b"" if isinstance(image, _NoPicture) else image,
            picture=_picture(message),
            catalogue_item=_named(message),
            missing=image.why if isinstance(image, _NoPicture) else None,
            occurred_at=_seconds(message) if message.HasField("occurred_at") else arrived,
            traceparent=tracing.current().traceparent,
            attribution=_attribution(message),
        )


def violations_of(results: Sequence[Converted]) -> list[Violation]:
    """All violations of a batch."""
    return [violation for result in results if isinstance(result, InvalidRequest) for violation in result.violations]


def _charged(messages: Iterable[Message]) -> dict[Named, UserKey | PapaError]:
    """Charges each user of a group once, for all of their events: no event is refused and a later one accepted.

    Returns the key of each user, or the error that all of the user's events get.
    """
    events = Counter((message.user.tenant, message.user.user) for message in messages)
    found: dict[Named, UserKey | PapaError] = {}
    for (tenant, user), number in events.items():
        try:
            found[tenant, user] = caller.get().charge(types_pb2.User(tenant=tenant, user=user), number)
        except PapaError as error:
            found[tenant, user] = error
    return found


def _attribution(message: Message) -> Attribution:
    return Attribution(
        type=message.type,
        generation_id=message.generation_id,
        recommendation_id=message.recommendation_id,
        notes=Notes(dict(message.metadata), tuple(message.tags)),
    )


def _picture(message: Message) -> bytes:
    """A digest of the picture and prompt of a typed event as the caller sent them; b"" for other events."""
    if not message.type or message.WhichOneof("target") != "image":
        return b""
    prompt = hashlib.blake2b(message.image.prompt.encode(), digest_size=16)
    return prompt.digest() + hashlib.blake2b(message.image.data, digest_size=16).digest()


def _named(message: Message) -> tuple[str, str] | None:
    """The names of the catalogue and of its item that the event is about."""
    if message.WhichOneof("target") != "catalogue_item":
        return None
    return message.catalogue_item.catalogue or DEFAULT_CATALOGUE, message.catalogue_item.item_id


def _float32(grade: float) -> float:
    """The grade as the trainer will see it, so that an event that is accepted can be applied."""
    return float(np.float32(grade))


def _seconds(message: Message) -> float:
    return message.occurred_at.seconds + message.occurred_at.nanos / 1e9
