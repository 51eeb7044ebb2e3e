"""A cluster as far as commands can be held against it: namespaces, Secrets, and what the chart renders."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import yaml

from tests.helm.rendering import CHART, Manifest, example, merged, pod_specs, render

RELEASE = "papa"
KINDS = {
    "deployment": "Deployment", "deploy": "Deployment", "statefulset": "StatefulSet", "service": "Service",
    "rayservice": "RayService", "cronjob": "CronJob", "job": "Job", "pod": "Pod", "secret": "Secret",
}  # fmt: skip
A_POD = "one"
"""What recorded_command.sh lists."""
OF_OPERATORS = {"crd", "rayclusters", "pods", "persistentvolumeclaims", "configmaps", "secrets", "serviceaccounts"}
"""Kinds that commands list or select, or that KubeRay makes."""


class TypedCluster:
    """Takes commands in order; each raises AssertionError where a real cluster would refuse it."""

    def __init__(self) -> None:
        self.namespaces: set[str] = set()
        self.operator = ""
        self.keys: dict[tuple[str, str], set[str]] = {}
        self.values: Manifest = {}
        self.made = {("Pod", "papa-restore"), ("Pod", A_POD)}
        self.pushed: set[str] = set()
        self._built: set[str] = set()
        everything = [*render(example("production"), RELEASE), *render(example("dev"), RELEASE)]
        self._there = {(each["kind"], each["metadata"]["name"]) for each in everything}
        self._labels = [each["metadata"]["labels"] for each in everything if "labels" in each["metadata"]]

    def docker(self, words: list[str], folder: Path) -> None:
        match words:
            case ["build", "--file", file, "--tag", tag, *_]:
                assert (folder / file).is_file(), file
                self._built.add(tag)
            case ["push", tag]:
                assert tag in self._built, tag
                self.pushed.add(tag)

    def helm(self, words: list[str], folder: Path) -> None:
        options = dict(pairwise(words))
        match words:
            case ["install", "kuberay-operator", *_]:
                self.operator = options["--version"]
            case ["install" | "upgrade", name, chart, *_]:
                assert (name, (folder / chart).resolve()) == (RELEASE, CHART)
                if "--create-namespace" in words:
                    self.namespaces.add(options["--namespace"])
                assert options["--namespace"] in self.namespaces, "no namespace"
                assert self.operator, "no KubeRay"
                self.values = yaml.safe_load((folder / options["--values"]).read_text())
                for path, value in re.findall(r"^([\w.]+)=(.*)$", options.get("--set", "")):
                    self.values = merged(self.values, _nested(path.split("."), yaml.safe_load(value)))
                self.check_references(self.values)
            case ["test" | "history" | "rollback" | "uninstall", name, *_]:
                assert name == RELEASE and self.values, words

    def kubectl(self, words: list[str]) -> None:
        if words[0] == "--namespace":
            assert words[1] in self.namespaces, f"no namespace {words[1]}"
            words = words[2:]
        for selector in (value for option, value in pairwise(words) if option == "--selector"):
            wanted = dict(each.split("=") for each in selector.split(","))
            wanted.pop("ray.io/node-type", None)
            assert [each for each in self._labels if wanted.items() <= each.items()], selector
        match words:
            case ["create", "namespace", name]:
                self.namespaces.add(name)
            case ["create", "secret", kind, name, *rest]:
                self._create("Secret", name, {".dockerconfigjson"} if kind == "docker-registry" else set(_keys(rest)))
            case ["create", "configmap", name, *rest]:
                self._create("ConfigMap", name, set(_keys(rest)))
            case ["create", "job", name, source]:
                assert ("CronJob", source.removeprefix("--from=cronjob/")) in self._there
                self.made.add(("Job", name))
            case ["delete", "namespace", name]:
                self.namespaces.remove(name)
            case ["apply", "--filename", "-"] | ["get", "crd", *_]:
                pass
            case [_, *rest]:
                for kind, name in _named(rest):
                    assert (kind, name) in self._there | self.made or (kind, name) in self.keys, (kind, name)

    def _create(self, kind: str, name: str, keys: set[str]) -> None:
        self.keys[(kind, name)] = keys

    def check_references(self, values: Manifest) -> None:
        """Every Secret and ConfigMap that a pod names is there, with the keys that it reads."""
        manifests = render(values, RELEASE)
        there = {(each["kind"], each["metadata"]["name"]) for each in manifests}
        for kind, name, key in references(manifests):
            if (kind, name) not in there:
                assert (kind, name) in self.keys, f"nobody has made the {kind} {name}"
                assert not key or key in self.keys[(kind, name)], f"{kind} {name} has no {key}"


def references(manifests: list[Manifest]) -> Iterator[tuple[str, str, str]]:
    """Kind, name and key ("" where it is all of it) of what pods read."""
    texts = [each for manifest in manifests for each in _texts(manifest)]
    for spec in pod_specs(manifests).values():
        for pull in spec.get("imagePullSecrets", []):
            yield "Secret", pull["name"], ".dockerconfigjson"
        secrets = {each["name"]: each["secret"]["secretName"] for each in spec.get("volumes", []) if "secret" in each}
        for container in (*spec["containers"], *spec.get("initContainers", [])):
            for source in container.get("envFrom", []):
                for kind, field in (("Secret", "secretRef"), ("ConfigMap", "configMapRef")):
                    if field in source:
                        yield kind, source[field]["name"], ""
            for mount in container.get("volumeMounts", []):
                if mount["name"] in secrets:
                    paths = {found for text in texts for found in re.findall(rf"{mount['mountPath']}/([\w.-]+)", text)}
                    for key in paths or {""}:
                        yield "Secret", secrets[mount["name"]], key
    for manifest in manifests:
        yield from _named_in(manifest)


def _named_in(manifest: object) -> Iterator[tuple[str, str, str]]:
    if isinstance(manifest, dict):
        if "secretKeyRef" in manifest:
            yield "Secret", manifest["secretKeyRef"]["name"], manifest["secretKeyRef"]["key"]
        for each in manifest.get("caCertificateRefs", []):
            yield each["kind"], each["name"], "ca.crt"
        for value in manifest.values():
            yield from _named_in(value)
    elif isinstance(manifest, list):
        for value in manifest:
            yield from _named_in(value)


def _texts(manifest: object) -> Iterator[str]:
    if isinstance(manifest, str):
        yield manifest
    elif isinstance(manifest, dict | list):
        for value in manifest.values() if isinstance(manifest, dict) else manifest:
            yield from _texts(value)


def _nested(path: list[str], value: object) -> Manifest:
    return {path[0]: _nested(path[1:], value) if path[1:] else value}


def _keys(words: list[str]) -> Iterator[str]:
    """Of --from-literal=key=value, --from-file=key=path and --from-file=path."""
    for word in words:
        if found := re.match(r"--from-(?:literal|file)=([^=]+)", word):
            yield found[1]


def _named(words: list[str]) -> Iterator[tuple[str, str]]:
    """The objects of a command: `kind/name`, or `kind name`."""
    plain = words[: words.index("--")] if "--" in words else words
    plain = [word for word in plain if not word.startswith("-")]
    for word in plain:
        if "/" in word and word.split("/")[0] in KINDS:
            yield KINDS[word.split("/")[0]], word.split("/")[1]
    for kind, name in pairwise(plain):
        if kind in KINDS and "/" not in name and name not in OF_OPERATORS and re.fullmatch(r"[a-z0-9-]+", name):
            yield KINDS[kind], name
