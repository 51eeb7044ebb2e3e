"""Deploys the Serve configuration on standard input, as the KubeRay operator would, into a Ray of its own.

That Ray has the resources of one pod of each group. Prints one JSON object: the applications' states, what is left of
the resources, and the kinds of metrics that were written.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import ray
from ray import serve
from ray.serve._private.api import serve_start
from ray.serve.schema import ServeDeploySchema

SECONDS = 200


def main(config: dict, folder: str) -> None:
    ray.init(
        num_cpus=1,
        resources={"papa_generator": 1, "papa_trainer": 1},
        include_dashboard=False,
        object_store_memory=80 * 2**20,
        log_to_driver=False,
        _temp_dir=folder,
    )
    client = serve_start(http_options=config["http_options"], grpc_options=config["grpc_options"])
    client.deploy_apps(ServeDeploySchema.model_validate(config))
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        states = {name: each.status.value for name, each in serve.status().applications.items()}
        if len(states) == len(config["applications"]) and "DEPLOYING" not in states.values():
            break
        time.sleep(0.5)
    left = ray.available_resources()
    metrics = Path(os.environ["PAPA_DATA_DIR"]) / "metrics"
    written = sorted({path.name.partition("_")[0] for path in metrics.glob("*.db")})
    outcome = {
        "states": states,
        "cpus": left.get("CPU", 0),
        "generators": left.get("papa_generator", 0),
        "metrics": written,
    }
    serve.shutdown()
    ray.shutdown()
    print(f"outcome {json.dumps(outcome)}", flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="papa-ray-", ignore_cleanup_errors=True) as folder:
        main(json.load(sys.stdin), folder)
