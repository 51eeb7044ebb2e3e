"""`papa data`: what it says; the downloads themselves are tested in tests/papa/test_published.py."""

from papa.backbone.published import PUBLISHED
from tests.cli.conftest import Papa


def test_the_list_names_sources_and_licences(papa: Papa) -> None:
    ended = papa("data", "list")
    for each in PUBLISHED.values():
        for told in (each.name, each.homepage, each.licence):
            assert told in ended.out
    assert [each["file"] for each in papa("data", "list", "--json").json] == [each.file for each in PUBLISHED.values()]


def test_an_unknown_name_is_refused_with_those_there_are(papa: Papa) -> None:
    ended = papa("data", "fetch", "mnits")
    assert ended.code == 2
    assert "'mnits' is none of fashion-mnist, mnist, cifar-10" in ended.err


def test_a_server_that_is_not_there_is_one_line(papa: Papa) -> None:
    ended = papa("data", "fetch", "mnist", "--mirror", "http://127.0.0.1:9/")
    assert ended.code == 1
    assert ended.err.startswith("papa: mnist was not fetched: ")
    assert "--mirror names another server" in ended.err
    assert ended.err.count("\n") == 1


def test_a_missing_data_set_is_named_with_the_command_that_gets_it(papa: Papa) -> None:
    ended = papa("backbone", "oracle", "data/mnist.npz", "--out", "oracle.safetensors")
    assert ended.code == 1
    assert "data/mnist.npz is missing (published data sets come with: papa data fetch mnist --out data)" in ended.err
