"""Messages at the edge of what is a message: odd ids, tiny grades, compression bombs."""

from __future__ import annotations

import asyncio
import os
import sys

import grpc
from papa_serving.contracts.feedback import FeedbackEvent
from papa_serving.contracts.identity import UserKey
from papa_serving.feedback import open_log
from papa_serving.settings import FeedbackSettings, RedisSettings, Settings
from papa_serving.stubs.serving.v1 import feedback_pb2, user_pb2

from tests.attack.pictures import png
from tests.attack.result import Attack, Found, Target, answer_to, catalogue, connected, counted, refused_with, user

ODD_IDS = {
    "a console's markup": "[/red][bold]x",
    "an ANSI sequence": "\x1b[2J\x1b[31mx",
    "an OSC 8 link": "\x1b]8;;http://127.0.0.1\x1b\\x\x1b]8;;\x1b\\",
    "text turned round": "\u202eevil\u202c",
    "an isolate": "\u2066evil\u2069",
    "C1 control characters": "\x9b31mx",
    "a line feed": "x\ny",
    "a line separator": "x\u2028y",
}
PRINTABLE = {
    "a family": "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "Persian": "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
}
PARTITIONS = 1


async def event_refused(target: Target, event: feedback_pb2.FeedbackEvent) -> str:
    """ "OK" where it was acknowledged, else the reason."""
    request = feedback_pb2.SubmitFeedbackRequest(events=[event]).SerializeToString()
    async with connected(target.address) as channel:
        call = channel.unary_unary("/papa.serving.v1.FeedbackService/SubmitFeedback")
        try:
            answer = await call(request, metadata=target.metadata("shop"), timeout=20)
        except grpc.aio.AioRpcError as failure:
            return refused_with(failure)
    (outcome,) = feedback_pb2.SubmitFeedbackResponse.FromString(answer).outcomes
    return outcome.error.reason if outcome.HasField("error") else "OK"


async def odd_ids(target: Target, scale: float) -> Found:
    """As event ids and as user ids: refused, and what is only unusual is taken."""
    found: dict[str, str] = {}
    for name, text in {**ODD_IDS, **PRINTABLE}.items():
        for field in ("event_id", "user"):
            named = {"event_id": text} if field == "event_id" else {"event_id": f"plain-{hash(text)}"}
            event = feedback_pb2.FeedbackEvent(
                **named, user=user(text if field == "user" else "alice"), image=catalogue(png(4)), grade=1.0
            )
            found[f"{name} as {field}"] = await event_refused(target, event)
    raw = [name for name, said in found.items() if said == "OK" and name.split(" as ")[0] in ODD_IDS]
    # Markup is printable text: it may be an id, and must be shown as it stands.
    raw = [name for name in raw if "markup" not in name]
    lost = [name for name, said in found.items() if said != "OK" and name.split(" as ")[0] in PRINTABLE]
    said = counted(list(found.values()))
    return Found(
        not raw and not lost, "; ".join([said, *(f"taken: {n}" for n in raw), *(f"refused: {n}" for n in lost)])
    )


async def on_a_terminal(target: Target, scale: float) -> Found:
    """Dead letters whose ids were written by an older release: `papa deadletters list` shows them, harmless."""
    log = open_log(Settings(redis=RedisSettings(url=target.redis), feedback=FeedbackSettings(partitions=PARTITIONS)))
    victim = UserKey("shop", "terminal")
    try:
        await log.append([FeedbackEvent(text, victim, 1e-30, image=_sample()) for text in ODD_IDS.values()])
        lease = await log.acquire(0, "attack", 30.0)
        assert lease is not None
        events = [event for event in await log.read(lease, "", 5_000) if event.user == victim]
        await log.bury(lease, events, "poison \x1b[31m[/red]")
    finally:
        await log.close()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "papa_serving.cli.main", "deadletters", "list", "--address", target.address,
        "--tenant", "shop", "--user", "terminal",
        env={**os.environ, "PAPA_CLIENT__TOKEN": target.token_of("shop"), "COLUMNS": "300", "FORCE_COLOR": "1"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 60)
    shown = out.decode()
    raw = [name for name in ("\x1b[2J", "\x1b]8", "\u202e", "\u2066", "\x9b") if name in shown]
    told = err.decode().strip().splitlines()[-1:] if process.returncode else []
    return Found(
        process.returncode == 0 and not raw and len(events) == len(ODD_IDS),
        f"{len(events)} letters, exit code {process.returncode}, {len(raw)} raw sequences {' '.join(told)}".strip(),
    )


def _sample() -> bytes:
    from papa_serving.gateway.conversion.pictures import decode

    return decode(png(28), (1, 28, 28), 2**22)


async def tiny_grades(target: Target, scale: float) -> Found:
    """Grades that float32 or the learner rounds to nothing."""
    grades = (1e-300, -1e-300, 1e-46, 1e-40, -5e-324, 1e-10, 0.00099)
    answers = [
        await event_refused(
            target,
            feedback_pb2.FeedbackEvent(
                event_id=f"tiny-{grade}", user=user("alice"), image=catalogue(png(4)), grade=grade
            ),
        )
        for grade in grades
    ]
    return Found("OK" not in answers, counted(answers))


async def compression_bomb(target: Target, scale: float) -> Found:
    """Messages of 64 MB of zeros that weigh 64 KB on the wire."""
    answers = []
    async with connected(target.address, compression=grpc.Compression.Gzip) as channel:
        for _ in range(max(1, int(6 * scale))):
            event = feedback_pb2.FeedbackEvent(event_id="bomb", user=user(), image=catalogue(bytes(64 * 2**20)))
            request = feedback_pb2.SubmitFeedbackRequest(events=[event]).SerializeToString()
            call = channel.unary_unary("/papa.serving.v1.FeedbackService/SubmitFeedback")
            answers.append(await answer_to(call(request, metadata=target.metadata("mallory"), timeout=60)))
    return Found({answer.split(" ")[0] for answer in answers} == {"RESOURCE_EXHAUSTED"}, counted(answers))


async def imports_of_junk(target: Target, scale: float) -> Found:
    """Adapters that are none, larger than an adapter may be, or with names that lead elsewhere."""
    answers = []
    async with connected(target.address) as channel:
        for name in ("../../x", "/etc/passwd", "adapter_model.bin", "\x1b[31m.safetensors", "adapter_config.json"):
            file = user_pb2.AdapterFile(name=name, data=b"{}" * 2**19, sha256="0" * 64)
            request = user_pb2.ImportAdapterRequest(
                user=user("alice"), backbone="b" * 64, files=[file]
            ).SerializeToString()
            call = channel.unary_unary("/papa.serving.v1.UserService/ImportAdapter")
            answers.append(await answer_to(call(request, metadata=target.metadata("shop"), timeout=20)))
    return Found({answer.split(" ")[0] for answer in answers} == {"INVALID_ARGUMENT"}, counted(answers))


ATTACKS = (
    Attack("ids with control, bidi and escape characters", odd_ids),
    Attack("such ids on the operator's terminal", on_a_terminal),
    Attack("grades that round to nothing", tiny_grades),
    Attack("compression bombs", compression_bomb),
    Attack("imports of junk", imports_of_junk),
)
