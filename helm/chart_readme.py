"""README.md of the chart: what it needs, how it is installed, and a table of all values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

HEAD = """# The papa chart

Installs the gateway (Deployment), generator and trainer (a RayService of KubeRay) and what belongs to them. It needs
Kubernetes 1.30 or newer, the KubeRay operator 1.6 or newer (however installed), a volume that several pods can write,
and two Redis (or Valkey) servers, unless it is a trial. How to install, upgrade, back up and mend it is told in
docs/operations.md; `examples/` holds values for a laptop, for production and for GPUs.

The images are built for amd64 and for arm64, each on a machine of its kind; all that they hold has wheels for both.
Nodes of both kinds in one cluster need images of both in one manifest list, or a `nodeSelector` on kubernetes.io/arch.

KubeRay's `NewClusterWithIncrementalUpgrade` is not offered: it shifts the weights of an HTTPRoute, which carries no
gRPC, and names its Services after each cluster. With `NewCluster` generators of both clusters serve side by side while
the old ones end.

    helm install papa helm/papa --values helm/papa/examples/dev.yaml
    helm test papa

This page is generated from values.yaml (`make generated`).

| value | default | meaning |
|---|---|---|
"""

_KEY = re.compile(r"^( *)([A-Za-z0-9]+):")
_MEANING = re.compile(r"^ *# -- (.*)$")
_CONTINUED = re.compile(r"^ *# (?!-- )(.*)$")


def readme(text: str, values: dict[str, Any]) -> str:
    """The page, from values.yaml as text (for its comments) and as data (for the defaults)."""
    rows = (f"| `{path}` | `{_shown(_at(values, path))}` | {meaning} |" for path, meaning in meanings(text))
    return HEAD + "\n".join(rows) + "\n"


def meanings(text: str) -> Iterator[tuple[str, str]]:
    """Path and meaning of each value that has a comment "# -- …", in order."""
    path: list[tuple[int, str]] = []
    meaning: list[str] = []
    for line in text.splitlines():
        if found := _MEANING.match(line):
            meaning = [found[1]]
        elif meaning and (found := _CONTINUED.match(line)):
            meaning.append(found[1])
        elif found := _KEY.match(line):
            depth = len(found[1])
            path = [each for each in path if each[0] < depth] + [(depth, found[2])]
            if meaning:
                yield ".".join(name for _, name in path), " ".join(meaning).replace("|", "\\|")
            meaning = []


def _at(values: dict[str, Any], path: str) -> object:
    place: Any = values
    for name in path.split("."):
        place = place[name]
    return place


def _shown(value: object) -> str:
    return json.dumps(value).replace("|", "\\|")
