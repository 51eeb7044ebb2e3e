"""The callers of one schedule: they speak to the gateway over gRPC and write down what they saw."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from papa_serving.stubs.serving.v1 import (
    feedback_pb2,
    feedback_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    types_pb2,
    user_pb2,
    user_pb2_grpc,
)

from tests.chaos.history import OPEN, History, Moved, Seen, Submitted
from tests.chaos.schedule import Visitor

CALL_SECONDS = 2.5
PAUSE = 0.03
RETRYABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED)
_STORAGE = "STORAGE_UNAVAILABLE"


@dataclass
class _Fate:
    """One event while it is under way."""

    event: feedback_pb2.FeedbackEvent
    invoked: float
    ended: float = OPEN
    outcome: str = "open"
    sequence: int = 0
    reason: str = ""
    doubtful: bool = False


class Callers:
    """`address` tells where the gateway is now. Once `patience` (monotonic) is over, nobody tries again."""

    def __init__(self, address: Callable[[], str], patience: float) -> None:
        self.odd: list[str] = []
        self.generated = 0
        self._address = address
        self._patience = patience
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._fates: dict[str, list[_Fate]] = {}
        self._moved: list[Moved] = []
        self._seen: list[Seen] = []

    def history(self) -> History:
        """Everything so far; what is under way is unknown."""
        submitted = [
            Submitted(
                user,
                fate.event.event_id,
                fate.invoked,
                fate.ended,
                "unknown" if fate.outcome == "open" or (fate.outcome == "refused" and fate.doubtful) else fate.outcome,  # type: ignore[arg-type]
                fate.sequence,
                fate.reason,
                fate.event.grade,
            )
            for user, fates in self._fates.items()
            for fate in fates
        ]
        return History(tuple(submitted), tuple(self._moved), tuple(self._seen))

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close()

    async def visit(self, visitor: Visitor) -> None:
        """One user's calls, one after another, and beside them what moves the pointer."""
        moves = [asyncio.create_task(self._move(visitor.name, kind, at)) for kind, at in visitor.moves]
        number = 0
        for pause, count in visitor.calls:
            await asyncio.sleep(pause)
            names = [f"{number + index}" for index in range(count)]
            number += count
            if visitor.special and number <= count:
                names[0] = f"{visitor.special}-{names[0]}"
            await self._submit(visitor, [f"{name}-{visitor.name}" for name in names])
            if visitor.reads:
                await self._read(visitor.name)
            if visitor.generates:
                await self._generate(visitor.name)
        await asyncio.gather(*moves)
        if visitor.reads:
            await self._read(visitor.name)

    async def _submit(self, visitor: Visitor, event_ids: list[str]) -> None:
        signal = feedback_pb2.SIGNAL_LIKE
        fates = [
            _Fate(feedback_pb2.FeedbackEvent(event_id=e, user=_user(visitor.name), item_id="item", signal=signal),
                  time.monotonic())
            for e in event_ids
        ]  # fmt: skip
        self._fates.setdefault(visitor.name, []).extend(fates)
        while open_ones := [fate for fate in fates if fate.outcome == "open"]:
            await self._attempt(open_ones)
            if visitor.gives_up or time.monotonic() > self._patience:
                return
            if any(fate.outcome == "open" for fate in open_ones):
                await asyncio.sleep(PAUSE)

    async def _attempt(self, fates: list[_Fate]) -> None:
        request = feedback_pb2.SubmitFeedbackRequest(events=[fate.event for fate in fates])
        answer = await self._once(
            lambda channel: feedback_pb2_grpc.FeedbackServiceStub(channel).SubmitFeedback(request, timeout=CALL_SECONDS)
        )
        now = time.monotonic()
        if isinstance(answer, feedback_pb2.SubmitFeedbackResponse):
            for fate, outcome in zip(fates, answer.outcomes, strict=True):
                if outcome.HasField("ack"):
                    fate.outcome, fate.ended, fate.sequence = "acknowledged", now, outcome.ack.sequence
                else:
                    _refused(fate, outcome.error.reason, now)
        else:
            for fate in fates:
                _refused(fate, answer, now)

    async def _read(self, user: str) -> None:
        invoked = time.monotonic()
        answer = await self._once(
            lambda channel: user_pb2_grpc.UserServiceStub(channel).GetUser(
                user_pb2.GetUserRequest(user=_user(user)), timeout=CALL_SECONDS
            )
        )
        if isinstance(answer, user_pb2.GetUserResponse):
            self._seen.append(Seen(user, invoked, time.monotonic(), answer.state.current_revision.revision))

    async def _generate(self, user: str) -> None:
        """Generates until there are items or a refusal, and checks the revision that made them."""
        request = generation_pb2.GenerateRequest(user=_user(user), count=2)
        invoked, last = time.monotonic(), ""
        while (now := time.monotonic()) < self._patience:
            answer = await self._once(
                lambda channel: generation_pb2_grpc.GenerationServiceStub(channel).Generate(
                    request, timeout=CALL_SECONDS
                )
            )
            if isinstance(answer, generation_pb2.GenerateResponse):
                self.generated += 1
                self._seen.append(Seen(user, now, time.monotonic(), answer.revision))
                return
            if answer not in ("", _STORAGE):  # of a deleted user, say
                return
            last = answer
            await asyncio.sleep(PAUSE)
        self.odd.append(f"nothing was generated within {time.monotonic() - invoked:.0f} s; the last reason: {last}")

    async def _move(self, user: str, kind: str, at: float) -> None:
        await asyncio.sleep(at)
        target = "" if kind != "rollback" else await self._oldest(user)
        if kind == "rollback" and not target:
            return
        invoked, known = time.monotonic(), False
        while not known and time.monotonic() < self._patience:
            answer = await self._once(lambda channel: _moving(channel, kind, user, target))
            known = not isinstance(answer, str)
            if not known:
                await asyncio.sleep(PAUSE)
        self._moved.append(Moved(user, kind, target, invoked, time.monotonic(), known))  # type: ignore[arg-type]

    async def _oldest(self, user: str) -> str:
        request = user_pb2.ListRevisionsRequest(user=_user(user))
        answer = await self._once(
            lambda channel: user_pb2_grpc.UserServiceStub(channel).ListRevisions(request, timeout=CALL_SECONDS)
        )
        found = [] if isinstance(answer, str) else list(answer.revisions)
        return found[-1].revision if found else ""

    async def _once(self, call: Callable[[grpc.aio.Channel], Awaitable[Any]]) -> Any:
        """The response, or the reason of the error: "" when nobody knows."""
        address = self._address()
        if not address:
            return _STORAGE
        if address not in self._channels:
            self._channels[address] = grpc.aio.insecure_channel(address)
        try:
            return await call(self._channels[address])
        except grpc.aio.AioRpcError as failure:
            reason = _reason(failure)
            if (failure.code() not in RETRYABLE and not reason) or failure.code() in (
                grpc.StatusCode.INTERNAL,
                grpc.StatusCode.UNKNOWN,
            ):
                self.odd.append(f"{failure.code().name}: {failure.details()}")
            return "" if failure.code() in RETRYABLE and reason != "BACKLOG_FULL" else reason


def _refused(fate: _Fate, reason: str, now: float) -> None:
    fate.reason = reason
    if reason in ("", _STORAGE):
        fate.doubtful = True
    elif reason != "BACKLOG_FULL":
        fate.outcome, fate.ended = "refused", now


def _moving(channel: grpc.aio.Channel, kind: str, user: str, target: str) -> Awaitable[Any]:
    users = user_pb2_grpc.UserServiceStub(channel)
    if kind == "delete":
        return users.DeleteUser(user_pb2.DeleteUserRequest(user=_user(user)), timeout=CALL_SECONDS)
    if kind == "reset":
        return users.ResetUser(user_pb2.ResetUserRequest(user=_user(user)), timeout=CALL_SECONDS)
    return users.RollbackAdapter(
        user_pb2.RollbackAdapterRequest(user=_user(user), revision=target), timeout=CALL_SECONDS
    )


def _user(name: str) -> types_pb2.User:
    return types_pb2.User(user=name)


def _reason(failure: grpc.aio.AioRpcError) -> str:
    status = rpc_status.from_call(failure)
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status is not None else ():
        detail.Unpack(info)
    return str(info.reason)
