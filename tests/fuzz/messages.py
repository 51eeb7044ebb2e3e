"""Messages that nobody should send, from a seed: random, odd, mutated from good ones, and good ones between them."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from papa_serving.stubs.serving.v1 import feedback_pb2, generation_pb2, types_pb2
from PIL import Image

from tests.attack.pictures import many_scans
from tests.gateway.support.methods import Method

TEXTS = [
    "", "a", "alice", "bob", "default", "base", "000001-aa", "1-1", "e", "i", "shop", " ", "\0", "\n", "a\0b",
    "../../etc/passwd", "/etc/passwd", "..", ".", "a/b", "C:\\x", "%2e%2e%2f", "{p00}:user:x", "*", "~", "'; DROP",
    "{{7*7}}", "${jndi:ldap://x}", "\u202ealice", "é☃𝄞", "\ufeff", "\ud7ff", "\U0010ffff", "x" * 128, "x" * 129,
    "é" * 128, "x" * 1_000, "x" * 1_001, "adapter_config.json", "adapter_model.safetensors", "manifest.json", "NaN",
    "\u200d", "a\u200db", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\u2066a\u2069", "\x1b[31ma",
    "\x1b]8;;x\x1b\\a\x1b]8;;\x1b\\", "\x9b31m", "[/red]", "[bold]", "a\u0301", "\U000e0041", "\u2028",
]  # fmt: skip
NUMBERS = [0, 1, 2, 3, 63, 64, 65, 100, 1_000, 1_001, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]
REALS = [
    0.0, -0.0, 1.0, -1.0, 0.5, 1.0000001, 5e-324, 1e-300, -1e-46, 1e-40, 0.00099, 0.001, 1e308,
    math.nan, math.inf, -math.inf,
]  # fmt: skip
LARGEST = 64 * 2**10

TAME: dict[int, tuple[Any, ...]] = {
    FieldDescriptor.CPPTYPE_STRING: ("alice", "bob", "", "000001-aa", "1-1", "e", "i"),
    FieldDescriptor.CPPTYPE_BOOL: (True, False),
    FieldDescriptor.CPPTYPE_ENUM: (1, 2),
    FieldDescriptor.CPPTYPE_DOUBLE: (0.5, 1.0),
    FieldDescriptor.CPPTYPE_FLOAT: (0.5, 1.0),
}
"""Values that most fields may have; 1 or 2 for numbers."""

_Fill = Callable[[Random, FieldDescriptor], Any]


@cache
def pictures() -> tuple[bytes, ...]:
    """Small ones in every format, a bomb by its header alone, a JPEG of many scans, and no picture."""
    found = []
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP"):
        buffer = io.BytesIO()
        Image.new("RGB", (5, 7), (9, 99, 199)).save(buffer, kind)
        found.append(buffer.getvalue())
    bomb = bytearray(found[0])
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    return (*found, bytes(bomb), many_scans(64, 4_000), b"", b"GIF89a", b"\x89PNG\r\n\x1a\n")


def _bytes(chance: Random, field: FieldDescriptor) -> bytes:
    if chance.random() < 0.7:
        return pictures()[0] if chance.random() < 0.3 else mutated(chance.choice(pictures()), chance)
    return chance.randbytes(chance.choice((0, 1, 40, 1_000, LARGEST)) if chance.random() < 0.1 else 24)


def _whole(chance: Random, bits: int, signed: bool) -> int:
    number = chance.choice(NUMBERS) if chance.random() < 0.8 else chance.getrandbits(bits)
    number %= 2**bits
    return number - 2**bits if signed and number >= 2 ** (bits - 1) else number


_FILLS: dict[int, _Fill] = {
    FieldDescriptor.CPPTYPE_STRING: lambda chance, field: (
        _bytes(chance, field) if field.type == FieldDescriptor.TYPE_BYTES else chance.choice(TEXTS)
    ),
    FieldDescriptor.CPPTYPE_BOOL: lambda chance, _: chance.random() < 0.5,
    FieldDescriptor.CPPTYPE_INT32: lambda chance, _: _whole(chance, 32, True),
    FieldDescriptor.CPPTYPE_INT64: lambda chance, _: _whole(chance, 64, True),
    FieldDescriptor.CPPTYPE_UINT32: lambda chance, _: _whole(chance, 32, False),
    FieldDescriptor.CPPTYPE_UINT64: lambda chance, _: _whole(chance, 64, False),
    FieldDescriptor.CPPTYPE_ENUM: lambda chance, _: chance.choice((0, 1, 2, 3, 4, 99, -1, 2**31 - 1)),
    FieldDescriptor.CPPTYPE_DOUBLE: lambda chance, _: chance.choice(REALS),
    FieldDescriptor.CPPTYPE_FLOAT: lambda chance, _: chance.choice(REALS),
}


def odd(descriptor: Descriptor, chance: Random, depth: int = 0) -> Message:
    """Every field set or not, to values at the edges of what is allowed and beyond."""
    message: Any = message_factory.GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if chance.random() < 0.25:
            continue
        if field.is_repeated:
            for _ in range(chance.choice((0, 1, 1, 2, 5, 60 if depth == 0 and chance.random() < 0.02 else 3))):
                value = getattr(message, field.name)
                if field.message_type is None:
                    value.append(_value(field, chance))
                elif field.message_type.GetOptions().map_entry:
                    _put_entry(value, odd(field.message_type, chance, depth + 1))
                else:
                    value.append(odd(field.message_type, chance, depth + 1))
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(odd(field.message_type, chance, depth + 1))
        else:
            setattr(message, field.name, _value(field, chance))
    return message  # type: ignore[no-any-return]


def _put_entry(container: Any, entry: Any) -> None:
    """Puts an entry into a map field."""
    if isinstance(entry.value, Message):
        container[entry.key].CopyFrom(entry.value)
    else:
        container[entry.key] = entry.value


def _value(field: FieldDescriptor, chance: Random) -> Any:
    """More often tame than not: else hardly a message would get past the validation."""
    if field.type != FieldDescriptor.TYPE_BYTES and chance.random() < 0.7:
        return chance.choice(TAME.get(field.cpp_type, (1, 2)))
    return _FILLS[field.cpp_type](chance, field)


def mutated(data: bytes, chance: Random) -> bytes:
    """Some bytes replaced, inserted, removed or repeated."""
    changed = bytearray(data)
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(4):
            case 0:
                changed[at : at + 1] = chance.randbytes(1)
            case 1:
                changed[at:at] = chance.randbytes(chance.randrange(8))
            case 2:
                del changed[at : at + chance.randrange(8)]
            case 3:
                changed[at:at] = changed[: chance.randrange(64)]
    return bytes(changed)


def user(chance: Random) -> types_pb2.User:
    return types_pb2.User(tenant=chance.choice(("", "", "shop")), user=chance.choice(TEXTS))


def message(method: Method, chance: Random) -> bytes:
    """One request of this method, or bytes that are none."""
    kind = chance.random()
    if kind < 0.45:
        return odd(method.descriptor.input_type, chance).SerializeToString()
    good = _good(method, chance).SerializeToString()
    if kind < 0.85:
        return mutated(good, chance)
    return good if kind < 0.95 else chance.randbytes(chance.randrange(200))


def _good(method: Method, chance: Random) -> Message:
    """A request that passes validation. One in three generations has every option; of feedback, one in three takes back
    what was said, or may have been, and one in three names an item of a catalogue."""
    whom, kind = user(chance), chance.randrange(3)
    request: Any = method.good(whom)
    if kind == 0 and method.name in ("Generate", "StreamGenerate"):
        request.MergeFrom(type(request)(**_options(chance)))
    elif kind == 0 and method.name == "GenerateMany":
        request.requests[0].MergeFrom(generation_pb2.GenerateRequest(**_options(chance)))
    elif kind < 2 and method.name in ("SubmitFeedback", "StreamFeedback"):
        event = feedback_pb2.FeedbackEvent(event_id=f"{kind}-{chance.randrange(9)}", user=whom)
        if kind == 0:
            event.cancels = chance.choice(TEXTS)
        else:
            event.catalogue_item.item_id, event.grade = chance.choice(("shoe", *TEXTS)), 0.5
        if method.name == "StreamFeedback":
            return feedback_pb2.StreamFeedbackRequest(event=event)
        request.events.append(event)
    return request  # type: ignore[no-any-return]


def _options(chance: Random) -> dict[str, Any]:
    """What a generation may choose, each within its bounds for a backbone without prompts."""
    kind = chance.choice((generation_pb2.IMAGE_FORMAT_WEBP, generation_pb2.IMAGE_FORMAT_JPEG))
    image = generation_pb2.ImageOptions(format=kind, max_edge=chance.choice((1, 64, 4_096)), quality=70)
    return {"sampler": 1, "exploration": 0.5, "overdraw": chance.choice((1.0, 4.0)), "image": image}


def readable(method: Method, data: bytes) -> bool:
    """Whether it is a message of this method at all."""
    try:
        message_factory.GetMessageClass(method.descriptor.input_type).FromString(data)
    except Exception:
        return False
    return True


def metadata(chance: Random) -> tuple[tuple[str, str], ...]:
    """Random metadata: often none, sometimes keys that the gateway reads, with any value that HTTP/2 allows."""
    if chance.random() < 0.7:
        return ()
    name = chance.choice(("x-request-id", "traceparent", "authorization", "grpc-accept-encoding", "x-other"))
    return ((name, "".join(chr(chance.randrange(32, 127)) for _ in range(chance.choice((0, 5, 55, 200))))),)
