"""Everything that the pods run exists: commands, parameters of Ray, the Serve configuration, settings."""

from __future__ import annotations

import shlex
import subprocess
import time

import pytest
import redis
import yaml
from papa_serving.cli.app import run
from papa_serving.cli.configuration import load
from papa_serving.generator import deployment as generator
from papa_serving.local.redis_process import find_redis_server
from papa_serving.local.serve_applications import APPLICATIONS
from papa_serving.trainer import deployment as trainer

from tests.helm.rendering import EXAMPLES, example, merged, only, pod_specs, render, settings_in


@pytest.mark.parametrize("name", EXAMPLES)
def test_papa_commands_exist_with_their_options(name, capsys):
    commands = {
        tuple(container["args"])
        for spec in pod_specs(render(example(name))).values()
        for container in (*spec["containers"], *spec.get("initContainers", []))
        if "args" in container and "papa-" in container["image"]
    }
    assert {command[0] for command in commands} == {"gateway", "metrics", "smoke", "store"}
    for command in commands:
        assert run([*command, "--help"]) == 0
        assert "Usage" in capsys.readouterr().out


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_rendered_environment_is_a_valid_configuration(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    environment = settings_in(render(example(name)))
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    settings = load(None)
    assert settings.redis.url.startswith("redis" if name == "dev" else "rediss")
    assert settings.gateway.generator == "demo-papa-generator:9000"


def test_config_reaches_the_settings_unchanged(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    config = {
        "trainer": {"max_wait": 0.5, "gate": {"min_diversity": 0.25}},
        "gateway": {"max_message_bytes": 33554432, "reflection": False},
        "store": {"event_id_ttl": 1209600},
    }
    environment = settings_in(render(merged(example("dev"), {"config": config})))
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    settings = load(None)
    assert settings.trainer.max_wait == 0.5
    assert settings.trainer.gate.min_diversity == 0.25
    assert settings.gateway.max_message_bytes == 33554432
    assert settings.gateway.reflection is False
    assert settings.store.event_id_ttl == 1209600


def test_redis_with_its_own_authority_user_and_database(monkeypatch):
    redis_values = {"database": 3, "username": "papa", "tls": {"caSecret": "ca", "caKey": "root.pem"}}
    manifests = render(merged(example("production"), {"redis": redis_values}))
    url = settings_in(manifests)["PAPA_REDIS__URL"]
    pool = redis.ConnectionPool.from_url(url)
    assert pool.connection_class is redis.SSLConnection
    assert pool.connection_kwargs["username"] == "papa"
    assert pool.connection_kwargs["db"] == 3
    path = pool.connection_kwargs["ssl_ca_certs"]
    for pod in ("demo-papa-gateway", "demo-papa generator", "demo-papa trainer"):
        spec = pod_specs(manifests)[pod]
        (mount,) = [each for each in spec["containers"][0]["volumeMounts"] if each["name"] == "redis-ca"]
        assert path == f"{mount['mountPath']}/root.pem"


@pytest.mark.parametrize("name", EXAMPLES)
def test_serve_takes_the_configuration(name):
    from ray.serve.schema import ServeDeploySchema

    text = only(render(example(name)), "RayService")["spec"]["serveConfigV2"]
    config = ServeDeploySchema.model_validate(yaml.safe_load(text))
    assert {each.name: each.import_path for each in config.applications} == APPLICATIONS
    assert config.grpc_options.grpc_servicer_functions == [generator.SERVICER]
    assert config.grpc_options.enable_reflection is False
    deployments = {each.name for application in config.applications for each in application.deployments}
    assert deployments == {"generator", "trainers"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_ray_knows_every_parameter_and_the_drain_command(name):
    from click.testing import CliRunner
    from ray.scripts.scripts import cli

    cluster = only(render(example(name)), "RayService")["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        line = " ".join(f"--{key}={value}" for key, value in group["rayStartParams"].items())
        parsed = CliRunner().invoke(cli, ["start", *shlex.split(line), "--help"])
        assert parsed.exit_code == 0, parsed.output
        for hook in [group["template"]["spec"]["containers"][0].get("lifecycle")]:
            if hook and "exec" in hook["preStop"]:
                command, _, _ = hook["preStop"]["exec"]["command"][-1].partition("&&")
                parsed = CliRunner().invoke(cli, [*shlex.split(command)[1:], "--help"])
                assert parsed.exit_code == 0, parsed.output


def test_pods_have_room_for_all_actors():
    """A generator pod holds one replica and no trainer; a trainer pod holds two trainers, one with a GPU."""
    from papa_serving.trainer.actor import CPUS

    for name in EXAMPLES:
        values = render(example(name))
        service = only(values, "RayService")["spec"]
        groups = {each["groupName"]: each for each in service["rayClusterConfig"]["workerGroupSpecs"]}
        applications = yaml.safe_load(service["serveConfigV2"])["applications"]
        replica = applications[0]["deployments"][0]
        (resources,) = shlex.split(groups["generator"]["rayStartParams"]["resources"])
        assert yaml.safe_load(resources) == replica["ray_actor_options"]["resources"] == {"papa_generator": 1}
        assert groups["generator"]["rayStartParams"]["num-cpus"] == "0"
        assert int(groups["generator"]["rayStartParams"]["num-gpus"]) == replica["ray_actor_options"]["num_gpus"]
        assert groups["generator"]["maxReplicas"] >= replica["autoscaling_config"]["max_replicas"]
        settings = settings_in(values)
        start = groups["trainer"]["rayStartParams"]
        actors_per_pod = int(start["num-cpus"]) / CPUS if start["num-gpus"] == "0" else int(start["num-gpus"])
        for bound, setting in (("minReplicas", "ACTORS"), ("maxReplicas", "AUTOSCALING__MAX_ACTORS")):
            actors, pods = int(settings[f"PAPA_TRAINER__{setting}"]), groups["trainer"][bound]
            assert pods * actors_per_pod >= actors > (pods - 1) * actors_per_pod


def test_nothing_is_scaled_beyond_pods_that_nobody_adds():
    manifests = render(merged(example("production"), {"ray": {"autoscaler": {"enabled": False}}}))
    service, settings = only(manifests, "RayService")["spec"], settings_in(manifests)
    for group in service["rayClusterConfig"]["workerGroupSpecs"]:
        assert group["minReplicas"] == group["maxReplicas"] == group["replicas"]
    replicas = yaml.safe_load(service["serveConfigV2"])["applications"][0]["deployments"][0]["autoscaling_config"]
    assert replicas["max_replicas"] == replicas["min_replicas"] == 3
    assert settings["PAPA_TRAINER__AUTOSCALING__MAX_ACTORS"] == settings["PAPA_TRAINER__ACTORS"] == "4"


def test_when_to_scale_changes_in_place_and_how_far_with_a_new_cluster():
    """KubeRay leaves the limits of running worker groups as they are."""

    def parts(**autoscaling):
        changed = {"generator": {"autoscaling": autoscaling.get("generator", {})}}
        manifests = render(merged(example("production"), merged(changed, {"trainer": autoscaling.get("trainer", {})})))
        service = only(manifests, "RayService")["spec"]
        return service["serveConfigV2"], [
            group["template"] for group in service["rayClusterConfig"]["workerGroupSpecs"]
        ]

    serve, pods = parts()
    when = {"generator": {"targetOngoingRequests": 3}, "trainer": {"autoscaling": {"targetAgeSeconds": 30}}}
    assert parts(**when)[0] != serve and parts(**when)[1] == pods
    assert yaml.safe_load(parts(**when)[0])["applications"][1]["deployments"][0]["user_config"]["target_age"] == 30
    assert parts(generator={"maxReplicas": 30})[1] != pods
    assert parts(trainer={"autoscaling": {"maxActors": 30}})[1] != pods


def without_secrets(manifests):
    """A token that is generated is another one at each render."""
    return [each for each in manifests if each["kind"] != "Secret"]


def test_what_the_generator_takes_over_while_it_runs_restarts_nothing():
    """It is in Serve's configuration and nowhere in a pod."""
    live = {"sampler": "ddim", "steps": 20, "exploration": 0.1, "teaching": 0.2, "guidance": 7.5}
    assert set(live) == set(generator.LIVE) - {"overdraw"}
    applications = yaml.safe_load(only(render(example("dev")), "RayService")["spec"]["serveConfigV2"])["applications"]
    assert set(applications[1]["deployments"][0]["user_config"]) == set(trainer.LIVE)
    before = render(merged(example("production"), {"config": {"generator": {"slots": 9}}}))
    after = render(merged(example("production"), {"config": {"generator": {"slots": 9, **live}}}))
    deployments = [
        yaml.safe_load(only(each, "RayService")["spec"].pop("serveConfigV2"))["applications"][0]["deployments"]
        for each in (before, after)
    ]
    assert [each[0]["user_config"] for each in deployments] == [{}, live]
    assert without_secrets(before) == without_secrets(after)
    environment = settings_in(after)
    assert environment["PAPA_GENERATOR__SLOTS"] == "9"


def test_gateways_tell_the_overdraw_that_replicas_take_over_while_they_run():
    """It is the one live setting that a gateway reads, too; Ray's pods do not."""

    def parts(overdraw):
        manifests = render(merged(example("production"), {"config": {"generator": {"overdraw": overdraw}}}))
        ray = only(manifests, "RayService")["spec"]
        serve = yaml.safe_load(ray.pop("serveConfigV2"))["applications"][0]["deployments"][0]["user_config"]
        maps = {each["metadata"]["name"]: each["data"] for each in manifests if each["kind"] == "ConfigMap"}
        gateway = pod_specs(manifests)["demo-papa-gateway"]["containers"][0]
        read = {
            name: value for each in gateway["envFrom"] for name, value in maps[each["configMapRef"]["name"]].items()
        }
        return serve, ray, float(read["PAPA_GENERATOR__OVERDRAW"])

    (serve, ray, told), (_, same, _) = parts(3.0), parts(1.5)
    assert (serve, told) == ({"overdraw": 3.0}, 3.0)
    assert ray == same, "no second cluster"


def test_the_trial_valkey_keeps_likes(tmp_path):
    """A real server with its arguments has an append-only file, evicts nothing and needs a password."""
    container = pod_specs(render(example("dev")))["demo-papa-valkey"]["containers"][0]
    arguments = [each.replace("/data", str(tmp_path)).replace("$(PASSWORD)", "secret") for each in container["args"]]
    socket = tmp_path / "s"
    command = [str(find_redis_server()), *arguments, "--port", "0", "--unixsocket", str(socket)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        client = redis.Redis(unix_socket_path=str(socket), password="secret", decode_responses=True)
        for _ in range(200):
            if socket.exists():
                break
            time.sleep(0.05)
        info = client.info()
        assert (info["aof_enabled"], info["maxmemory_policy"]) == (1, "noeviction")
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(unix_socket_path=str(socket)).ping()
    finally:
        server.kill()
        server.wait()
