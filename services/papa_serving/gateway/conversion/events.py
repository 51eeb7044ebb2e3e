"""Converts feedback events of the public contract to those of the log. Each gives an event or an error."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from papa_serving import tracing
from papa_serving.contracts.errors import InvalidRequest, PapaError, Violation
from papa_serving.contracts.feedback import FeedbackEvent
from papa_serving.contracts.identity import UserKey
from papa_serving.gateway.backends import KnownBackbone
from papa_serving.gateway.conversion import validation
from papa_serving.gateway.conversion.pictures import BadPicture, PictureReader
from papa_serving.gateway.rpc.admission import caller
from papa_serving.settings import GatewaySettings
from papa_serving.stubs.serving.v1 import feedback_pb2, types_pb2

Message = feedback_pb2.FeedbackEvent
Converted = FeedbackEvent | PapaError
Named = tuple[str, str]

_GRADES: dict[int, float] = {feedback_pb2.SIGNAL_LIKE: 1.0, feedback_pb2.SIGNAL_DISLIKE: -1.0}


class EventReader:
    """Validates and converts; images are decoded into the backbone's shape."""

    def __init__(self, limits: GatewaySettings, backbone: KnownBackbone, pictures: PictureReader) -> None:
        self._limits, self._backbone, self._pictures = limits, backbone, pictures

    async def read(self, messages: Sequence[Message], path: Callable[[int], str]) -> list[Converted]:
        """Returns one result per message, in order. `path(i)` is the prefix of message i's fields in violations."""
        findings = [self._findings(message, path(index)) for index, message in enumerate(messages)]
        pictures = [index for index, message in enumerate(messages) if message.WhichOneof("target") == "image"]
        images = await asyncio.gather(
            *(self._image(messages[index].image, path(index), findings[index]) for index in pictures)
        )
        decoded = dict(zip(pictures, images, strict=True))
        arrived = time.time()
        whose = _charged(message for index, message in enumerate(messages) if not findings[index])
        return [
            _converted(message, findings[index], decoded.get(index, b""), whose, arrived)
            for index, message in enumerate(messages)
        ]

    def _findings(self, message: Message, path: str) -> list[Violation]:
        violations: list[Violation] = []
        validation.check_event(message, path, self._limits, violations)
        return violations

    async def _image(
        self, image: feedback_pb2.CatalogueImage, path: str, violations: list[Violation]
    ) -> bytes | PapaError:
        """Returns a packed sample. Malformed images are added to `violations`; other errors are returned."""
        if any(violation.field.startswith(f"{path}image.") for violation in violations):
            return b""
        try:
            backbone = await self._backbone.info()
            if image.prompt and not backbone.takes_prompt:
                violations.append(Violation(f"{path}image.prompt", "the deployed backbone takes no prompt"))
                return b""
            return await self._pictures.read(image.data, backbone.image_shape, image.prompt)
        except BadPicture as error:
            violations.append(Violation(f"{path}image.data", str(error)))
            return b""
        except PapaError as error:
            return error


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


def _converted(
    message: Message,
    violations: list[Violation],
    image: bytes | PapaError,
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
        grade=message.grade or _GRADES[message.signal],
        item_id=message.item_id,
        image=image,
        occurred_at=_seconds(message) if message.HasField("occurred_at") else arrived,
        traceparent=tracing.current().traceparent,
    )


def _seconds(message: Message) -> float:
    return message.occurred_at.seconds + message.occurred_at.nanos / 1e9
