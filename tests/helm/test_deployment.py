"""The rendered Serve configuration deploys on a real Ray: both applications run, on what the pods offer."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import yaml
from papa_serving.local.redis_process import RedisProcess

from tests.helm.rendering import ROOT, example, only, render, settings_in
from tests.ports import free_port
from tests.trainer.tiny_backbone import write_tiny_backbone


def test_the_rendered_configuration_runs_on_ray(tmp_path):
    manifests = render(example("dev"))
    config = yaml.safe_load(only(manifests, "RayService")["spec"]["serveConfigV2"])
    data = tmp_path / "data"
    rewrite = {"/var/lib/papa/metrics": str(data / "metrics")}
    for application in config["applications"]:
        for deployment in application["deployments"]:
            variables = deployment["ray_actor_options"]["runtime_env"]["env_vars"]
            variables |= {name: rewrite[value] for name, value in variables.items()}
    config["grpc_options"]["port"], config["http_options"] = free_port(), {"host": "127.0.0.1", "port": free_port()}
    with RedisProcess(tmp_path / "redis") as redis:
        local = {
            "PAPA_DATA_DIR": str(data),
            "PAPA_STORE__PATH": str(tmp_path / "revisions"),
            "PAPA_BACKBONE": str(write_tiny_backbone(tmp_path / "backbone")),
            "PAPA_REDIS__URL": redis.url,
            "PAPA_GENERATOR__INSECURE": "true",  # in the cluster a Secret gives the engine its token
            "PYTHONPATH": str(ROOT),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        environment = {**os.environ, **settings_in(manifests), **local}
        done = subprocess.run(
            [sys.executable, "-m", "tests.helm.deploy_serve_config"],
            input=json.dumps(config), env=environment, cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("outcome ")]
    outcome = json.loads(line.removeprefix("outcome "))
    assert outcome["states"] == {"generator": "RUNNING", "trainer": "RUNNING"}
    assert outcome["generators"] == 0, "the replica takes the whole resource of its pod"
    assert outcome["cpus"] == 0.5, "one trainer takes half of what its pod offers, the replica nothing"
    assert "gauge" in outcome["metrics"], "the processes write where the exporter looks"
