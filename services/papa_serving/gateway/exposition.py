"""/metrics over HTTP. It covers all processes that share PROMETHEUS_MULTIPROC_DIR, or this one alone without it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from wsgiref.simple_server import WSGIServer

from prometheus_client import REGISTRY, CollectorRegistry, Metric, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from papa_serving.gateway.binding import CannotBind
from papa_serving.settings import MetricsSettings
from papa_serving.settings.addresses import host_port

FOLDER = "PROMETHEUS_MULTIPROC_DIR"


class Exposition:
    """Serves the endpoint on a thread of its own."""

    def __init__(self, settings: MetricsSettings) -> None:
        """Raises CannotBind."""
        self._server: WSGIServer
        try:
            self._server, self._thread = start_http_server(settings.port, settings.host, _registry())
        except OSError as error:
            raise CannotBind("metrics", settings.host, settings.port) from error
        self.address = host_port(settings.host, self._server.server_port)

    def close(self) -> None:
        """Stops serving, and takes this process out of the gauges of living processes."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        if FOLDER in os.environ:
            mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]


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
