"""`python -m papa_serving.local.ray_host FOLDER CPUS`: holds a local Ray until standard input ends.

A process of its own because Ray starts everything in its caller's process group: a SIGTERM or a hang-up to the group of
`papa up` would end Ray before the launcher could stop what runs on it. The end of the launcher, however it comes, ends
the input and so Ray.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import ray

OBJECT_STORE_BYTES = 200 * 2**20


def hold(folder: Path, cpus: int) -> None:
    """Prints the address on the one line of standard output, then waits."""
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
