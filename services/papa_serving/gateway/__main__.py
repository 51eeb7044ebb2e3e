"""`python -m papa_serving.gateway`: the gateway's process. It prints one ready line, serves, and drains on a signal."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from papa_serving import tracing
from papa_serving.gateway.backends import open_backends
from papa_serving.gateway.exposition import Exposition
from papa_serving.gateway.server import Gateway
from papa_serving.logs import JsonFormatter, configure
from papa_serving.metrics import BUILD_INFO
from papa_serving.settings import GeneratorSettings, Settings
from papa_serving.settings.addresses import CannotBind
from papa_serving.store import observe_storage
from papa_serving.watched_file import current_secret

log = logging.getLogger("papa_serving.gateway")

STOPPED, FAILED = 0, 1
MAX_FILES = 65_536
_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(settings: Settings) -> int:
    """Runs the gateway until SIGTERM, SIGINT or SIGHUP and returns the exit code.

    Standard output gets one line, as soon as calls are taken: a JSON object with `message` "ready" and the addresses
    `grpc` and `metrics`. Everything else is a log on standard error.
    """
    configure(settings.log)
    logging.captureWarnings(True)
    _raise_file_limit()
    return asyncio.run(_serve(settings))


def _raise_file_limit() -> None:
    """Every connection is a file descriptor, and systems give a process 1,024 until it asks for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


async def _serve(settings: Settings) -> int:
    try:
        tracing.begin(settings.tracing, "papa-gateway")
        backends = open_backends(settings)
        token, overdraw = _engine_token(settings.generator), settings.generator.default_overdraw
        gateway = Gateway(settings.gateway, backends, None, token, overdraw, settings.attribution)
    except (ValueError, OSError) as error:
        log.error("%s", error)
        return FAILED
    stopping = _stop_signals()
    try:
        await gateway.start()
        exposition = Exposition(settings.metrics)
    except CannotBind as error:
        log.error("%s", error)
        await gateway.close()
        return FAILED
    BUILD_INFO.labels(_version(), settings.backbone).set(1)
    observing = asyncio.create_task(observe_storage(settings))
    _announce(gateway.address, exposition.address)
    await stopping.wait()
    observing.cancel()
    log.info("draining")
    await gateway.drain()
    exposition.close()
    await asyncio.to_thread(tracing.end, settings.tracing.timeout)
    log.info("stopped")
    return STOPPED


def _engine_token(settings: GeneratorSettings) -> Callable[[], str]:
    """Gives the first of the tokens that the engine accepts now; "" when it asks for none."""
    accepted = current_secret(settings.token, settings.token_file)
    return lambda: next(iter(accepted().split()), "")


def _stop_signals() -> asyncio.Event:
    """Set by the first SIGTERM, SIGINT or SIGHUP; a second one ends the process as it would any other."""
    stopping, loop = asyncio.Event(), asyncio.get_running_loop()
    # nohup has SIGHUP ignored, and so asks to live on.
    live_on = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    numbers = [each for each in _STOPPING if each != signal.SIGHUP or not live_on]

    def stop() -> None:
        stopping.set()
        for number in numbers:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in numbers:
        loop.add_signal_handler(number, stop)
    return stopping


def _version() -> str:
    try:
        return version("papa-serving")
    except PackageNotFoundError:
        return "source"


def _announce(grpc_address: str, metrics_address: str) -> None:
    record = logging.makeLogRecord(
        {
            "name": log.name,
            "levelno": logging.INFO,
            "levelname": "INFO",
            "msg": "ready",
            "grpc": grpc_address,
            "metrics": metrics_address,
        }
    )
    sys.stdout.write(f"{JsonFormatter().format(record)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(Settings()))
