"""compose.yaml: hardened, pinned, on loopback; its files exist and its programs take them."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
import yaml
from papa_serving.cli.configuration import load
from papa_serving.settings.variables import in_environment

from tests.deploy.rules import DASHBOARDS, PLAIN, ROOT, RULES, program
from tests.helm.rendering import merged

DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
GPU = yaml.safe_load((DEPLOY / "compose.gpu.yaml").read_text())["services"]


@pytest.mark.parametrize("name", SERVICES)
def test_services_are_pinned_limited_and_cannot_write_their_images(name):
    service = SERVICES[name]
    assert re.search(r":v?\d+\.\d+\.\d+", service["image"])
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["init"] is True, "nobody would reap what the children of the first process leave behind"


def test_nothing_listens_beyond_this_machine():
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published and all(port.startswith("127.0.0.1:") for port in published)


def test_mounted_files_and_volumes_exist():
    for service in SERVICES.values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], mount
    build = SERVICES["papa"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()


def test_dependencies_that_must_be_healthy_say_when_they_are():
    for service in SERVICES.values():
        for dependency, condition in service.get("depends_on", {}).items():
            assert condition == {"condition": "service_healthy"}
            assert SERVICES[dependency]["healthcheck"]["test"]


def test_everything_that_can_be_asked_after_its_health_is():
    by_image = {"papa"}  # its Dockerfile has a HEALTHCHECK
    asked = {name for name, service in SERVICES.items() if "healthcheck" in service}
    assert set(SERVICES) - asked - by_image == {"redis-exporter"}


def test_the_environment_is_a_valid_configuration(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name, value in SERVICES["papa"]["environment"].items():
        monkeypatch.setenv(name, re.sub(r"\$\{\w+:-(.*)\}", r"\1", value))
    settings = load(None)
    assert settings.redis.url == "redis://redis:6379/0"
    grace = int(SERVICES["papa"]["stop_grace_period"].removesuffix("s"))
    assert grace > settings.generator.drain_seconds + settings.gateway.drain_seconds + settings.trainer.grace_seconds


def test_the_file_for_gpus_changes_the_service_alone_and_asks_for_one():
    """Compose lays mappings over mappings; what is no mapping is replaced."""
    assert set(GPU) == {"papa"}
    laid_over = merged(SERVICES["papa"], GPU["papa"])
    assert laid_over["build"]["dockerfile"] == SERVICES["papa"]["build"]["dockerfile"]
    assert laid_over["build"]["args"]["ACCELERATOR"] == "cu130"
    assert "cu130" in (DEPLOY / "Dockerfile.server").read_text()
    (device,) = laid_over["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    variables = {name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for name, value in laid_over["environment"].items()}
    with in_environment(variables):
        settings = load(None)
    assert (settings.generator.device, settings.trainer.device) == ("cuda", "cuda")
    assert settings.redis.url == "redis://redis:6379/0", "the rest is as it was"


def test_alerts_reach_an_alertmanager_that_has_a_receiver_for_them():
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())
    (target,) = config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    name, _, port = target.partition(":")
    assert f"127.0.0.1:{port}:{port}" in SERVICES[name]["ports"]
    alertmanager = yaml.safe_load((DEPLOY / "alertmanager" / "alertmanager.yaml").read_text())
    assert alertmanager["route"]["receiver"] in {each["name"] for each in alertmanager["receivers"]}


def test_redis_keeps_likes():
    command = SERVICES["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"


def test_prometheus_accepts_its_configuration(tmp_path):
    shutil.copytree(RULES, tmp_path / "rules")
    config = shutil.copy(DEPLOY / "prometheus" / "prometheus.yaml", tmp_path)
    done = subprocess.run(
        [program("promtool"), "check", "config", str(config)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("rules found") == len(PLAIN)


def test_every_target_says_of_which_release_it_is():
    """Rules and dashboards ask by namespace and release."""
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())["scrape_configs"]
    labels = [target["labels"] for each in scraped for target in each["static_configs"]]
    assert len(labels) == 2 and all(each == labels[0] and set(each) == {"namespace", "release"} for each in labels)


def test_grafana_finds_the_dashboards_and_the_data():
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert source["url"].split("/")[2].split(":")[0] in SERVICES
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "papa.yaml").read_text())["providers"]
    mounts = dict(reversed(each.removesuffix(":ro").rsplit(":", 1)) for each in SERVICES["grafana"]["volumes"])
    assert (DEPLOY / mounts[provider["options"]["path"]]).resolve() == DASHBOARDS
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home.startswith(provider["options"]["path"]) and (DASHBOARDS / home.rpartition("/")[2]).is_file()
