"""The connection of a client to the gateway: address, TLS, token and channel options."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc

from papa_serving.contracts.channels import channel_options, target_of

MAX_MESSAGE_BYTES = 64 * 2**20

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # A restarted gateway is found again within seconds; the library's own limit is two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # A WatchUser may be silent for hours: pings find a dead connection behind it.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)


@dataclass(frozen=True)
class Tls:
    """TLS with these root certificates or the system's. Key and chain (PEM) are for a gateway with mutual TLS."""

    root_certificates: bytes | None = None
    private_key: bytes | None = field(default=None, repr=False)
    certificate_chain: bytes | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """The channel credentials for grpc."""
        return grpc.ssl_channel_credentials(self.root_certificates, self.private_key, self.certificate_chain)


@dataclass(frozen=True)
class Connection:
    """`address` is host:port, or the same behind http:// or https://.

    `token` is sent as a bearer token with each call. A function is called each time, so the token may rotate.
    """

    address: str
    tls: Tls | None = None
    token: str | Callable[[], str] | None = field(default=None, repr=False)

    def channel(self) -> grpc.Channel:
        """A channel for blocking calls. Raises InvalidRequest for a malformed address."""
        target, tls = self._target()
        options = channel_options(target, CHANNEL_OPTIONS)
        if tls is None:
            return grpc.insecure_channel(target, options)
        return grpc.secure_channel(target, tls.credentials(), options)

    def aio_channel(self) -> grpc.aio.Channel:
        """A channel of the running event loop. Raises InvalidRequest for a malformed address."""
        target, tls = self._target()
        options = channel_options(target, CHANNEL_OPTIONS)
        if tls is None:
            return grpc.aio.insecure_channel(target, options)
        return grpc.aio.secure_channel(target, tls.credentials(), options)

    def _target(self) -> tuple[str, Tls | None]:
        """An https:// address uses TLS, with the system's root certificates unless others are given."""
        target, asks_for_tls = target_of(self.address)
        return target, self.tls or (Tls() if asks_for_tls else None)

    def metadata(self, request_id: str) -> tuple[tuple[str, str], ...]:
        """The metadata of one call: its id, credential and trace context."""
        known = (("x-request-id", request_id), *trace_metadata())
        if self.token is None:
            return known
        token = self.token() if callable(self.token) else self.token
        return (("authorization", f"Bearer {token}"), *known)


def trace_metadata() -> tuple[tuple[str, str], ...]:
    """The W3C traceparent of the current span; empty without one.

    It does not import opentelemetry: a program that has a current span has imported it already.
    """
    opentelemetry = sys.modules.get("opentelemetry.trace")
    if opentelemetry is None:
        return ()
    context = opentelemetry.get_current_span().get_span_context()
    if not context.is_valid:
        return ()
    flags = int(context.trace_flags) & 0xFF
    return (("traceparent", f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags:02x}"),)
