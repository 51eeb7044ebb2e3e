"""The record of an attack and its result."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from papa_serving.stubs.serving.v1 import feedback_pb2, types_pb2

from tests.gateway.support.methods import hidden
from tests.gateway.support.process import scraped
from tests.gateway.support.tokens import bearer

HIDDEN = "hidden"
"""The server's status was lost in grpc.aio's client: to be asked again."""

OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1))


@dataclass(frozen=True)
class Target:
    """A running gateway, as a caller sees it, and what belongs to it on this machine."""

    address: str
    health_address: str
    folder: Path
    redis: str
    token_of: Callable[[str], str]
    """Name → its bearer token: `mallory` and `alice` are users of tenant `shop`, `shop` and `other` whole tenants."""

    metrics: str = ""
    """host:port of its metrics."""

    log: Callable[[], str] = str
    """What it has written to its log so far."""

    def scraped(self) -> str:
        """What it has counted."""
        return scraped(self.metrics)

    def metadata(self, name: str) -> tuple[tuple[str, str], ...]:
        return bearer(self.token_of(name))


@dataclass(frozen=True)
class Found:
    """`held`: the defence did what docs/security.md promises; `what`: what happened, in a line."""

    held: bool
    what: str


@dataclass(frozen=True)
class Attack:
    """One row of the table. `run` is given the target and a scale: 1.0 in full, less in the tests."""

    name: str
    run: Callable[[Target, float], Awaitable[Found]]


@contextlib.asynccontextmanager
async def connected(address: str, **options: Any) -> AsyncIterator[grpc.aio.Channel]:
    """A connection that shares nothing with other channels of this process."""
    async with grpc.aio.insecure_channel(address, OWN_CONNECTION, **options) as channel:
        yield channel


def user(name: str = "mallory", tenant: str = "shop") -> types_pb2.User:
    return types_pb2.User(tenant=tenant, user=name)


def catalogue(data: bytes) -> feedback_pb2.CatalogueImage:
    """A picture of the caller's own."""
    return feedback_pb2.CatalogueImage(data=data)


async def answer_to(call: Any) -> str:
    """`OK`, or the code and reason of the refusal."""
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as failure:
        return HIDDEN if hidden(failure) else refused_with(failure)
    return "OK"


def refused_with(failure: grpc.aio.AioRpcError) -> str:
    status, info = rpc_status.from_call(failure), error_details_pb2.ErrorInfo()
    reasons = [info.reason for detail in (status.details if status else ()) if detail.Unpack(info)]
    return " ".join([failure.code().name, *reasons])


def counted(answers: list[str]) -> str:
    """`3 × OK, 2 × UNAUTHENTICATED …`, the most frequent first."""
    kinds = sorted(set(answers), key=answers.count, reverse=True)
    return ", ".join(f"{answers.count(kind)} × {kind}" for kind in kinds) or "nothing"


def quantile(values: list[float], share: float) -> float:
    """The value below which that share of `values` lies; nan without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan
