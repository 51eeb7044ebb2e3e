"""`python -m papa_serving.local.ray_host FOLDER CPUS`: holds a local Ray until standard input ends.

Ray starts its processes in the process group of its caller. A SIGTERM or hang-up to the group of `papa up` would
therefore end Ray before the launcher could stop the applications, so Ray is started from a separate process. When the
launcher ends, for whatever reason, its end of the pipe closes and Ray ends too.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import ray

OBJECT_STORE_BYTES = 200 * 2**20


def hold(folder: Path, cpus: int) -> None:
    """Starts Ray, prints its address as the only line of standard output, and waits."""
    context = ray.init(
        address="local",
        num_cpus=cpus,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=str(folder),
    )
    print(context.address_info["address"], flush=True)  # type: ignore[attr-defined]
    sys.stdin.read()
    ray.shutdown()


if __name__ == "__main__":
    hold(Path(sys.argv[1]), int(sys.argv[2]))
