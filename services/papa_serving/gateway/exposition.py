"""/metrics over HTTP. It covers all processes that share PROMETHEUS_MULTIPROC_DIR, or this one alone without it."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import REGISTRY, CollectorRegistry, Metric, make_wsgi_app
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector
from typing_extensions import override

from papa_serving.settings import MetricsSettings
from papa_serving.settings.addresses import CannotBind, host_port

_log = logging.getLogger(__name__)

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
MAX_SCRAPES = 16
"""The most connections at once. Scrapers are not authenticated; a newer connection takes the place of the oldest."""
SCRAPE_SECONDS = 10.0
"""Seconds of silence before a connection is closed."""


class Exposition:
    """Serves the endpoint on threads of its own."""

    def __init__(self, settings: MetricsSettings) -> None:
        """Raises CannotBind."""
        try:
            kind = _Scrapes if _has_ipv4(settings.host) else _ScrapesOverIPv6
            self._server = make_server(settings.host, settings.port, make_wsgi_app(_registry()), kind, _Scrape)
        except OSError as error:
            raise CannotBind("metrics", settings.host, settings.port) from error
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.address = host_port(settings.host, self._server.server_port)

    def close(self) -> None:
        """Stops serving, and takes this process out of the gauges of living processes."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        if FOLDER in os.environ:
            mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]


def _has_ipv4(host: str) -> bool:
    """Whether a host can be listened on over IPv4. Raises OSError for a name that is not known."""
    resolved = socket.getaddrinfo(host or None, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return any(family == socket.AF_INET for family, *_ in resolved)


class _Scrape(WSGIRequestHandler):
    """One connection."""

    timeout = SCRAPE_SECONDS

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Logs nothing, because scrapes are routine."""


class _Scrapes(ThreadingMixIn, WSGIServer):
    """One thread for each of at most MAX_SCRAPES connections; a further connection closes the oldest."""

    daemon_threads = True
    # Connections that the kernel accepts ahead of us. With the library's 5, a crowd of silent ones has a scraper's
    # handshake dropped, to be tried again after seconds.
    request_queue_size = socket.SOMAXCONN

    def __init__(self, *given: Any) -> None:
        self._open: dict[socket.socket, None] = {}
        self._lock = threading.Lock()
        super().__init__(*given)

    @override
    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open[request] = None
            excess = list(self._open)[: len(self._open) - MAX_SCRAPES] if len(self._open) > MAX_SCRAPES else []
        for oldest in excess:
            with suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    @override
    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        _log.debug("a connection to the metrics ended early", exc_info=True)


class _ScrapesOverIPv6(_Scrapes):
    """The same on an IPv6 address."""

    address_family = socket.AF_INET6


class LivingProcesses(MultiProcessCollector):
    """Sums metrics over processes. Killed processes leave the gauges that count only living ones."""

    def __init__(self, registry: CollectorRegistry, folder: Path) -> None:
        super().__init__(registry, str(folder))  # type: ignore[no-untyped-call]
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        """Forgets dead processes, then collects. Every scrape calls it."""
        for pid in {int(path.stem.rpartition("_")[2]) for path in self._folder.glob("gauge_live*.db")}:
            if not _alive(pid):
                mark_process_dead(pid, str(self._folder))  # type: ignore[no-untyped-call]
        return super().collect()  # type: ignore[no-untyped-call, no-any-return]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _registry() -> Collector:
    if FOLDER not in os.environ:
        return REGISTRY
    registry = CollectorRegistry()
    LivingProcesses(registry, Path(os.environ[FOLDER]))
    return registry
