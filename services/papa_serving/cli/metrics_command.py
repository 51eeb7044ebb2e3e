"""`papa metrics`: what the processes beside this one have counted, for Prometheus."""

from __future__ import annotations

import os
import signal

from papa_serving.cli.configuration import ConfigFile, Overrides, load
from papa_serving.cli.output import AsJson, print_json_line, print_text
from papa_serving.local.failure import Failure

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def metrics(file: ConfigFile = None, overrides: Overrides = [], json: AsJson = False) -> None:  # noqa: B006
    """Serve the metrics that all processes with this data folder write, until Ctrl-C.

    Where there is no gateway process to do it, as in the pods of Ray's workers.
    """
    from papa_serving.gateway.binding import CannotBind
    from papa_serving.gateway.exposition import FOLDER, Exposition

    settings = load(file, overrides)
    folder = settings.data_dir / "metrics"
    folder.mkdir(parents=True, exist_ok=True)
    os.environ[FOLDER] = str(folder)
    # Blocked, then waited for: no signal falls between the start and the wait.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        exposition = Exposition(settings.metrics)
    except CannotBind as error:
        raise Failure(str(error), "choose another port with --set metrics.port=0") from error
    url = f"http://{exposition.address}/metrics"
    if json:
        print_json_line({"metrics": url, "folder": folder})
    else:
        print_text(f"metrics of {folder} at {url}")
    signal.sigwait(_SIGNALS)
    exposition.close()
