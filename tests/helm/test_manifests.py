"""Every example and every toggle renders to manifests that fit their schemas."""

from __future__ import annotations

import functools
import itertools

import pytest
from helm_python.chart import lint

from tests.helm.rendering import CHART, CUSTOM, EXAMPLES, ROOT, check, example, merged, need_custom_schemas, render
from tests.helm.toggles import TOGGLES


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_free_of_lint(name):
    report = lint(CHART, example(name), strict=True, kube_version="v1.30.0")
    assert report["errors"] == []
    assert [each for each in report["messages"] if each["severity"] > 1] == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_fit_the_kubernetes_schemas(name):
    manifests = [each for each in render(example(name)) if each["kind"] not in CUSTOM]
    assert {"Deployment", "Service", "ConfigMap", "Pod"} <= {each["kind"] for each in manifests}
    for each in manifests:
        check(each)


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_fit_the_custom_schemas(name):
    need_custom_schemas()
    for each in render(example(name)):
        if each["kind"] in CUSTOM:
            check(each)


def groups():
    """Of up to five toggles, every two of which are in one group: the lines of the affine plane of order 5."""
    lines = [[(row, (slope * row + begin) % 5) for row in range(5)] for slope in range(5) for begin in range(5)]
    lines += [[(row, column) for column in range(5)] for row in range(5)]
    numbered = dict(enumerate(TOGGLES))
    found = [[numbered[5 * row + column] for row, column in line if 5 * row + column in numbered] for line in lines]
    return [group for group in found if len(group) > 1]


def test_every_two_toggles_are_in_a_group():
    together = {pair for group in groups() for pair in itertools.combinations(group, 2)}
    assert len(TOGGLES) <= 25
    assert together >= set(itertools.combinations(TOGGLES, 2))


@pytest.mark.parametrize("group", groups(), ids=" + ".join)
def test_toggles_fit_together(group):
    values = functools.reduce(merged, (TOGGLES[name] for name in group), example("dev"))
    for each in render(values):
        if each["kind"] not in CUSTOM:
            check(each)


@pytest.mark.parametrize("toggle", TOGGLES)
def test_toggles_fit_the_custom_schemas(toggle):
    need_custom_schemas()
    for each in render(merged(example("gpu"), TOGGLES[toggle])):
        if each["kind"] in CUSTOM:
            check(each)


def test_names_are_unique_and_owned_by_the_release():
    manifests = render(merged(example("dev"), TOGGLES["monitoring"]), release="shop")
    names = [(each["kind"], each["metadata"]["name"]) for each in manifests]
    assert len(names) == len(set(names))
    assert all(name.startswith("shop-papa") for _, name in names)
    assert all(each["metadata"]["labels"]["app.kubernetes.io/instance"] == "shop" for each in manifests)


def test_what_the_operations_page_names_is_there_in_a_release_called_papa():
    page = (ROOT / "docs" / "operations.md").read_text()
    names = {(each["kind"], each["metadata"]["name"]) for each in render(example("production"), release="papa")}
    for kind, name, command in (
        ("RayService", "papa", "wait rayservice/papa "),
        ("Deployment", "papa-gateway", "scale deployment/papa-gateway "),
        ("PersistentVolumeClaim", "papa-revisions", "claimName: papa-revisions}"),
    ):
        assert (kind, name) in names
        assert command in page
