"""Pictures that cost more than they weigh."""

from __future__ import annotations

import asyncio
import io
import struct
import time
import zlib

import grpc
from papa_serving.stubs.serving.v1 import feedback_pb2
from PIL import Image

from tests.attack.result import Attack, Found, Target, catalogue, connected, counted, refused_with, user

PATIENCE = 60.0


def png(size: int) -> bytes:
    """A grey square."""
    return encoded(Image.new("L", (size, size), 99), "PNG")


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def many_scans(size: int, length: int) -> bytes:
    """A progressive JPEG whose last refinement scan is repeated until it has `length` bytes."""
    data = encoded(Image.new("L", (size, size), 99), "JPEG", progressive=True, quality=90)
    last = data.rindex(b"\xff\xda")
    tables = data.rfind(b"\xff\xc4", data.rindex(b"\xff\xda", 0, last), last)
    scan = data[tables if tables > 0 else last : -2]
    return data[:-2] + scan * ((length - len(data)) // len(scan)) + b"\xff\xd9"


def bomb(side: int) -> bytes:
    """A PNG that announces side × side pixels and holds a few."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(2**20)))
        + chunk(b"IEND", b"")
    )


def hostile() -> dict[str, bytes]:
    """Each with a name that says what it is."""
    grey = Image.new("L", (64, 64), 99)
    return {
        "JPEG of 40 KB, scans repeated": many_scans(2_000, 40_000),
        "JPEG of 80 KB, scans repeated": many_scans(2_000, 80_000),
        "PNG of 60,000 × 60,000": bomb(60_000),
        "PNG cut short": png(64)[:-20],
        "GIF of many frames": encoded(
            grey, "GIF", save_all=True, append_images=[Image.new("L", (64, 64), n) for n in range(200)]
        ),
        "TIFF": encoded(grey, "TIFF"),
        "BMP": encoded(grey, "BMP"),
        "EPS": encoded(grey, "EPS"),
    }


async def sent(target: Target, picture: bytes, event_id: str, tenant: str = "shop") -> str:
    """The outcome of one like that carries the picture, as mallory."""
    event = feedback_pb2.FeedbackEvent(
        event_id=event_id, user=user("mallory", tenant), image=catalogue(picture), signal=feedback_pb2.SIGNAL_LIKE
    )
    request = feedback_pb2.SubmitFeedbackRequest(events=[event]).SerializeToString()
    async with connected(target.address) as channel:
        call = channel.unary_unary("/papa.serving.v1.FeedbackService/SubmitFeedback")
        try:
            answer = await call(request, metadata=target.metadata("mallory"), timeout=PATIENCE)
        except grpc.aio.AioRpcError as failure:
            return refused_with(failure)
    (outcome,) = feedback_pb2.SubmitFeedbackResponse.FromString(answer).outcomes
    return outcome.error.reason if outcome.HasField("error") else "acknowledged"


async def own(target: Target, scale: float) -> Found:
    """Every hostile picture, several at once, for the attacker's own user: a typed answer each."""
    rounds = max(1, int(4 * scale))
    made = [(f"own-{number}-{name}", data) for number in range(rounds) for name, data in hostile().items()]
    answers = await asyncio.gather(*(sent(target, data, name.replace(" ", "_")) for name, data in made))
    wrong = [
        answer for answer in answers if answer.split(" ")[0] in ("INTERNAL", "UNKNOWN", "UNAVAILABLE", "CANCELLED")
    ]
    return Found(not wrong, counted(list(answers)))


async def foreign(target: Target, scale: float) -> Found:
    """The same for another tenant: refused before anything is decoded, so a small one and a hostile one take alike."""
    dear, cheap = many_scans(2_000, 80_000), png(4)
    seconds: dict[bytes, float] = {}
    answers = []
    for picture in (cheap, dear):
        begun = time.monotonic()
        answers += [await sent(target, picture, f"foreign-{n}", "other") for n in range(max(2, int(8 * scale)))]
        seconds[picture] = time.monotonic() - begun
    refused = {answer.split(" ")[0] for answer in answers} == {"PERMISSION_DENIED"}
    ratio = seconds[dear] / seconds[cheap]
    return Found(
        refused and ratio < 20, f"{counted(answers)}; the hostile ones took {ratio:.1f} × the time of small ones"
    )


ATTACKS = (
    Attack("hostile pictures for the own user", own),
    Attack("hostile pictures for a foreign tenant", foreign),
)
