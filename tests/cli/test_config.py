"""File < environment < flags, shown without secrets, wrong fields named."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from papa_serving.settings import Settings
from papa_serving.settings.variables import settings_environment

from tests.cli.conftest import Papa


def test_flags_beat_the_environment_beats_the_file(papa: Papa, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("papa.toml").write_text("[trainer]\nmin_labels = 3\nmax_labels = 30\nmax_attempts = 7\n")
    monkeypatch.setenv("PAPA_TRAINER__MIN_LABELS", "4")
    monkeypatch.setenv("PAPA_TRAINER__MAX_LABELS", "40")
    trainer = papa("config", "show", "--json", "--set", "trainer.min_labels=5").json["trainer"]
    assert (trainer["min_labels"], trainer["max_labels"], trainer["max_attempts"]) == (5, 40, 7)
    assert trainer["lease"] == Settings().trainer.lease


def test_another_file_may_be_named(papa: Papa, tmp_path: Path) -> None:
    file = tmp_path / "other.toml"
    file.write_text('backbone = "mine"\n')
    assert papa("config", "show", "--json", "--config", str(file)).json["backbone"] == "mine"
    missing = papa("config", "validate", "--config", "nowhere.toml")
    assert (missing.code, missing.err) == (1, "papa: the settings file nowhere.toml does not exist\n")


def test_what_is_shown_is_a_settings_file_that_means_the_same(papa: Papa) -> None:
    shown = papa("config", "show", "--set", "trainer.gate.max_norm=2.5", "--set", "backbone=mine").out
    assert tomllib.loads(shown)["trainer"]["gate"]["max_norm"] == 2.5
    Path("papa.toml").write_text(shown)
    assert papa("config", "show").out == shown
    assert papa("config", "validate").out == "the settings are valid\n"


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_secrets_are_masked(papa: Papa, monkeypatch: pytest.MonkeyPatch, form: list[str]) -> None:
    monkeypatch.setenv("PAPA_REDIS__PASSWORD", "hush-hush")
    shown = papa("config", "show", *form).out
    assert "hush" not in shown
    assert "**********" in shown


@pytest.mark.parametrize(
    ("toml", "flags", "expected"),
    [
        ("[trainer]\nmin_labels = 0\n", [], "trainer.min_labels: Input should be greater than or equal to 1"),
        ("[trainer]\nmin_label = 1\n", [], "trainer.min_label: Extra inputs are not permitted"),
        ("", ["--set", "gateway.port=many"], "gateway.port: Input should be a valid integer"),
        ("", ["--set", "nothing.at.all=1"], "nothing: Extra inputs are not permitted"),
        ("not toml", [], "papa.toml is not valid TOML"),
        ("", ["--set", "gateway.port"], "--set takes SECTION.FIELD=VALUE"),
        ("", ["--set", "tracing.headers=a=b"], "tracing.headers is a secret"),
    ],
)
def test_what_is_wrong_is_named(papa: Papa, toml: str, flags: list[str], expected: str) -> None:
    Path("papa.toml").write_text(toml)
    ended = papa("config", "validate", *flags)
    assert ended.code == 1
    assert expected in ended.err
    assert ended.err.count("\n") == 1


def test_a_wrong_secret_is_not_repeated(papa: Papa, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAPA_REDIS__SOCKET_TIMEOUT", "hush-hush")
    assert "hush" not in papa("config", "validate").err


def test_a_variable_that_names_nothing_is_told_with_the_nearest(papa: Papa, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAPA_GATEWAY_PORT", "1")
    ended = papa("config", "validate")
    assert ended.code == 0
    assert "PAPA_GATEWAY_PORT names no setting; did you mean PAPA_GATEWAY__PORT?" in ended.err


@pytest.mark.parametrize(
    "variable", ["PAPA_GRAFANA_PASSWORD", "PAPA_DEVICE", "PAPA_TRAINER__OF_A_NEWER_RELEASE", "papa_odd"]
)
def test_a_variable_of_others_or_of_a_newer_release_is_no_error(
    papa: Papa, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "1")
    ended = papa("config", "validate")
    assert (ended.code, ended.err.count(f"the variable {variable} names no setting\n")) == (0, 1)


def test_what_kubernetes_sets_beside_a_service_is_passed_over(papa: Papa, monkeypatch: pytest.MonkeyPatch) -> None:
    links = {
        "PAPA_SERVICE_HOST": "10.0.0.1", "PAPA_SERVICE_PORT": "50051", "PAPA_SERVICE_PORT_GRPC": "50051",
        "PAPA_PORT": "tcp://10.0.0.1:50051", "PAPA_PORT_50051_TCP": "tcp://10.0.0.1:50051",
        "PAPA_PORT_50051_TCP_ADDR": "10.0.0.1", "PAPA_GATEWAY_SERVICE_HOST": "10.0.0.2",
        "PAPA_GATEWAY_PORT": "tcp://10.0.0.2:50051",
    }  # fmt: skip
    for name, value in links.items():
        monkeypatch.setenv(name, value)
    ended = papa("config", "validate")
    assert (ended.code, ended.err) == (0, "")


def test_a_variable_may_name_the_file_or_that_there_is_none(
    papa: Papa, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Path("papa.toml").write_text('backbone = "here"\n')
    (tmp_path / "other.toml").write_text('backbone = "there"\n')
    monkeypatch.setenv("PAPA_CONFIG", str(tmp_path / "other.toml"))
    assert papa("config", "show", "--json").json["backbone"] == "there"
    monkeypatch.setenv("PAPA_CONFIG", "")
    assert papa("config", "show", "--json").json["backbone"] == Settings.model_fields["backbone"].default


def test_a_child_process_takes_its_settings_from_its_parent_and_from_no_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`--config dev.toml` must not be mixed with the papa.toml of the folder."""
    monkeypatch.chdir(tmp_path)
    given = settings_environment(Settings())
    Path("papa.toml").write_text("[store]\npath = '/of/the/folder'\n[playground]\nper_page = 7\n")
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert Settings().store.path is None
    assert Settings().playground.per_page is None
