"""The chart's Serve configuration as the KubeRay operator deploys it, on this machine's ports and folders."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml
from ray import serve
from ray.serve._private.api import serve_start
from ray.serve.schema import ServeDeploySchema

from tests.cluster.nodes import until
from tests.helm.rendering import Manifest, example, merged, only, render, settings_in
from tests.ports import free_port


class Release:
    """Rendered from example values and changes to them; `folder` takes the place of the pods' volumes."""

    def __init__(self, values: Manifest, folder: Path) -> None:
        self._values, self._folder = values, folder
        self.port = free_port()
        self._http = free_port()

    def manifests(self, changes: Manifest) -> list[Manifest]:
        return render(merged(merged(example("dev"), self._values), changes))

    def settings(self) -> dict[str, str]:
        data: dict[str, str] = settings_in(self.manifests({}))
        return data

    def groups(self) -> dict[str, Manifest]:
        cluster = only(self.manifests({}), "RayService")["spec"]["rayClusterConfig"]
        return {group["groupName"]: group for group in cluster["workerGroupSpecs"]}

    def deploy(self, changes: Manifest | None = None, variables: dict[str, str] | None = None) -> None:
        """What `helm upgrade` with these changes leads to; `variables` go to the replicas of the generator.

        Returns once everything runs.
        """
        config = self._config(changes or {}, variables or {})
        client = serve_start(http_options=config["http_options"], grpc_options=config["grpc_options"])
        client.deploy_apps(ServeDeploySchema.model_validate(config))
        wanted = len(config["applications"])
        until(lambda: self._states(wanted) == {"RUNNING"} or "DEPLOY_FAILED" in self._states(wanted))
        assert self._states(wanted) == {"RUNNING"}, serve.status()

    def state(self, application: str) -> str:
        """Of its one deployment; "" where there is none yet."""
        deployments = serve.status().applications[application].deployments.values()
        return next((each.status.value for each in deployments), "")

    def _states(self, wanted: int) -> set[str]:
        applications = serve.status().applications
        states = {each.status.value for each in applications.values()}
        states |= {
            "RUNNING" if deployment.status.value == "HEALTHY" else deployment.status.value
            for each in applications.values()
            for deployment in each.deployments.values()
        }
        return states if len(applications) == wanted else {"DEPLOYING"}

    def _config(self, changes: Manifest, variables: dict[str, str]) -> dict[str, Any]:
        text = only(self.manifests(changes), "RayService")["spec"]["serveConfigV2"]
        config = copy.deepcopy(yaml.safe_load(text))
        config["grpc_options"]["port"] = self.port
        config["http_options"] = {"host": "127.0.0.1", "port": self._http}
        for application in config["applications"]:
            for deployment in application["deployments"]:
                environment = deployment["ray_actor_options"]["runtime_env"]["env_vars"]
                environment["PROMETHEUS_MULTIPROC_DIR"] = str(self._folder / "metrics")
                if application["name"] == "generator":
                    environment |= variables
        return config
