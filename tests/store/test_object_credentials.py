"""Half of an object store's credentials is refused at the start, by the name of what is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from papa_serving.settings import Settings, StoreSettings
from papa_serving.store import open_revisions

HERE = {"AZURE_STORAGE_ACCOUNT_NAME": "shop"}
KEY = {"AZURE_STORAGE_ACCOUNT_KEY": "a2V5"}
CLIENT = {"AZURE_CLIENT_ID": "id", "AZURE_CLIENT_SECRET": "secret", "AZURE_TENANT_ID": "tenant"}
FEDERATED = {"AZURE_CLIENT_ID": "id", "AZURE_TENANT_ID": "tenant", "AZURE_FEDERATED_TOKEN_FILE": "/nowhere"}
FABRIC = {
    "AZURE_FABRIC_TOKEN_SERVICE_URL": "http://127.0.0.1/token",
    "AZURE_FABRIC_WORKLOAD_HOST": "host",
    "AZURE_FABRIC_SESSION_TOKEN": "t",
    "AZURE_FABRIC_CLUSTER_IDENTIFIER": "cluster",
}
AWS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}
ROLE = {"AWS_ROLE_ARN": "arn", "AWS_WEB_IDENTITY_TOKEN_FILE": "/nowhere"}

HALVES = [
    ("az://c", HERE, "AZURE_STORAGE_ACCOUNT_KEY"),
    ("az://c", HERE | {"AZURE_STORAGE_ACCOUNT_KEY": ""}, "AZURE_STORAGE_ACCOUNT_KEY"),
    ("az://c", KEY, "Account must be specified"),
    *(("az://c", HERE | {name: CLIENT[name] for name in CLIENT if name != missing}, missing)
      for missing in ("AZURE_CLIENT_ID", "AZURE_TENANT_ID")),
    *(("az://c", HERE | {flag: value}, "AZURE_STORAGE_ACCOUNT_KEY")
      for flag in ("AZURE_USE_AZURE_CLI", "AZURE_SKIP_SIGNATURE", "AZURE_STORAGE_USE_EMULATOR")
      for value in ("false", "0", "Off")),
    *(("az://c", HERE, way_out) for way_out in (
        "AZURE_MSI_ENDPOINT", "AZURE_CLIENT_ID", "AZURE_OBJECT_ID", "AZURE_MSI_RESOURCE_ID", "AZURE_USE_AZURE_CLI",
        "AZURE_SKIP_SIGNATURE", "AZURE_STORAGE_USE_EMULATOR",
    )),
    ("az://c", HERE | {"AZURE_CREDENTIAL_TYPE": "auto"}, "AZURE_STORAGE_ACCOUNT_KEY"),
    ("az://c", HERE | {"AZURE_CREDENTIAL_TYPE": "client_secret"}, "client_secret"),
    ("az://c", HERE | {"AZURE_TENANT_ID": "tenant"}, "AZURE_CLIENT_ID"),
    ("az://c", HERE | {name: FABRIC[name] for name in list(FABRIC)[:3]}, "AZURE_FABRIC_CLUSTER_IDENTIFIER"),
    ("az://c", HERE | {"AZURE_STORAGE_CLIENT_SECRET": "s"}, "AZURE_CLIENT_ID and AZURE_TENANT_ID"),
    ("az://c", HERE | {"AZURE_FEDERATED_TOKEN_FILE": "/nowhere"}, "AZURE_CLIENT_ID and AZURE_TENANT_ID"),
    ("az://c", HERE | FEDERATED, "AZURE_FEDERATED_TOKEN_FILE"),
    # The client prefers the token's file to both, so without it the first write is sure to fail.
    ("az://c", HERE | FEDERATED | CLIENT, "AZURE_FEDERATED_TOKEN_FILE"),
    ("az://c", HERE | FEDERATED | {"AZURE_STORAGE_SAS_TOKEN": "sv=1&sig=2"}, "AZURE_FEDERATED_TOKEN_FILE"),
    ("s3://b", {"AWS_ACCESS_KEY_ID": "id"}, "AWS_SECRET_ACCESS_KEY"),
    ("s3://b", AWS | {"AWS_SECRET_ACCESS_KEY": ""}, "AWS_SECRET_ACCESS_KEY"),
    ("s3://b", {"AWS_SECRET_ACCESS_KEY": "secret"}, "AWS_ACCESS_KEY_ID"),
    ("s3://b", {"AWS_SESSION_TOKEN": "t"}, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    ("s3://b", {"AWS_WEB_IDENTITY_TOKEN_FILE": "/nowhere"}, "AWS_ROLE_ARN"),
    ("s3://b", {"AWS_ROLE_ARN": "arn"}, "AWS_WEB_IDENTITY_TOKEN_FILE"),
    ("s3://b", ROLE, "AWS_WEB_IDENTITY_TOKEN_FILE"),
    ("s3://b", {"AWS_SKIP_SIGNATURE": "false", "AWS_SESSION_TOKEN": "t"}, "AWS_ACCESS_KEY_ID"),
    ("s3://b", {"AWS_SKIP_SIGNATURE": "true", "AWS_ACCESS_KEY_ID": "id"}, "AWS_SECRET_ACCESS_KEY"),
    ("gs://b", {"GOOGLE_SERVICE_ACCOUNT_KEY": '{"client_email": "a@b"}'}, "private_key"),
    ("gs://b", {"GOOGLE_SERVICE_ACCOUNT": "/nowhere"}, "/nowhere"),
]  # fmt: skip
WHOLES = [
    ("az://c", HERE | KEY),
    ("az://c", HERE | {"azure_storage_access_key": "a2V5"}),
    ("az://c", HERE | CLIENT),
    ("az://c", HERE | KEY | {"AZURE_TENANT_ID": "of something else"}),
    ("az://c", HERE | {"AZURE_CLIENT_ID": "of a managed identity"}),
    ("az://c", HERE | {"AZURE_MSI_ENDPOINT": "http://169.254.169.254/metadata/identity/oauth2/token"}),
    *(("az://c", HERE | {flag: value})
      for flag in ("AZURE_USE_AZURE_CLI", "AZURE_SKIP_SIGNATURE", "AZURE_STORAGE_USE_EMULATOR")
      for value in ("true", "1", "Yes")),
    ("az://c", {"AZURE_STORAGE_USE_EMULATOR": "true"}),
    ("az://c", HERE | {"IDENTITY_ENDPOINT": "http://127.0.0.1/identity"}),
    ("az://c", HERE | {"AZURE_MSI_RESOURCE_ID": "/subscriptions/s/identity"}),
    ("az://c", HERE | {"AZURE_OBJECT_ID": "object"}),
    ("az://c", HERE | {"AZURE_CLIENT_ID": "of a user-assigned identity", "AZURE_TENANT_ID": "tenant"}),
    ("az://c", HERE | {"AZURE_CREDENTIAL_TYPE": "managed_identity"}),
    ("az://c", HERE | FABRIC),
    *(("az://c", HERE | FEDERATED | other) for other in (
        KEY, FABRIC, {"AZURE_STORAGE_TOKEN": "t"}, {"AZURE_SKIP_SIGNATURE": "true"},
        {"AZURE_STORAGE_USE_EMULATOR": "true"}, {"AZURE_CREDENTIAL_TYPE": "managed_identity"},
    )),
    ("az://c", HERE | KEY | {"AZURE_FEDERATED_TOKEN_FILE": "/nowhere"}),
    *(("s3://b", stray | {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/credentials"})
      for stray in ({"AWS_ROLE_ARN": "arn"}, {"AWS_WEB_IDENTITY_TOKEN_FILE": "/nowhere"}, {"AWS_SESSION_TOKEN": "t"})),
    ("s3://b", {"AWS_ROLE_ARN": "arn", "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials",
                "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/var/run/token"}),
    *(("s3://b", stray | {"AWS_SKIP_SIGNATURE": "true"})
      for stray in ({"AWS_SESSION_TOKEN": "t"}, {"AWS_ROLE_ARN": "arn"}, ROLE)),
    ("s3://b", AWS | ROLE),
    ("s3://b", AWS),
    ("s3://b", AWS | {"AWS_SESSION_TOKEN": "t"}),
    ("s3://b", {"AWS_REGION": "eu-central-1"}),
]  # fmt: skip
ELSEWHERE = [
    ("az://c", HERE | KEY | ROLE),
    ("s3://b", AWS | FEDERATED),
    ("gs://b", FEDERATED | ROLE),
]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that says nothing of an object store."""
    for name in os.environ:
        if name.upper().startswith(("AWS_", "GOOGLE_", "AZURE_", "IDENTITY_")):
            monkeypatch.delenv(name)


def opened(url: str, folder: Path | None = None) -> None:
    open_revisions(Settings(store=StoreSettings(url=url, credentials=folder)))


def written(folder: Path, variables: dict[str, str]) -> Path:
    for name, value in variables.items():
        (folder / name).write_text(value)
    return folder


@pytest.mark.parametrize(("url", "half", "missing"), HALVES)
def test_half_a_credential_is_refused_by_the_name_of_what_is_missing(
    url: str, half: dict[str, str], missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=rf"store\.(credentials|url): .*{missing}"):
        opened(url, written(tmp_path, half))
    for name, value in half.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=rf"store\.url: .*{missing}"):
        opened(url)


@pytest.mark.parametrize(("url", "whole"), WHOLES)
def test_a_whole_credential_is_not(
    url: str, whole: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(url, written(tmp_path, whole))
    for name, value in whole.items():
        monkeypatch.setenv(name, value)
    opened(url)


@pytest.mark.parametrize(("url", "variables"), ELSEWHERE)
def test_the_credential_of_another_provider_is_not_looked_at(
    url: str, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    opened(url)


@pytest.mark.parametrize(
    ("url", "half", "missing", "environment"),
    [
        ("az://c", HERE | {"AZURE_CLIENT_ID": "id", "AZURE_CLIENT_SECRET": "s"}, "AZURE_TENANT_ID", CLIENT),
        ("az://c", HERE | {"AZURE_CLIENT_SECRET": "s", "AZURE_TENANT_ID": "t"}, "AZURE_CLIENT_ID", CLIENT | FEDERATED),
        ("s3://b", {"AWS_ACCESS_KEY_ID": "id"}, "AWS_SECRET_ACCESS_KEY", AWS | ROLE),
        ("s3://b", {"AWS_SESSION_TOKEN": "t"}, "AWS_SECRET_ACCESS_KEY", AWS),
    ],
)
def test_the_environment_does_not_complete_half_of_a_folder(
    url: str,
    half: dict[str, str],
    missing: str,
    environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=rf"store\.credentials: .*{missing}"):
        opened(url, written(tmp_path, half))


@pytest.mark.parametrize(
    ("url", "folder", "environment"),
    [
        ("s3://b", {"AWS_ROLE_ARN": "another"}, {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/credentials"}),
        ("s3://b", {"AWS_ROLE_ARN": "another"}, ROLE | {"AWS_WEB_IDENTITY_TOKEN_FILE": __file__}),
        ("s3://b", {"AWS_SESSION_TOKEN": "stray"}, {"AWS_SKIP_SIGNATURE": "true"}),
        ("az://c", HERE, {"IDENTITY_ENDPOINT": "http://127.0.0.1/identity", "IDENTITY_HEADER": "h"}),
        ("az://c", HERE | {"AZURE_TENANT_ID": "another"}, FEDERATED | {"AZURE_FEDERATED_TOKEN_FILE": __file__}),
        ("az://c", HERE | {"AZURE_CLIENT_SECRET": "stray"}, {"AZURE_USE_AZURE_CLI": "true"}),
    ],
)
def test_an_identity_may_be_named_in_both_places(
    url: str, folder: dict[str, str], environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    opened(url, written(tmp_path, folder))


@pytest.mark.parametrize("name", ["ACCOUNT_KEY", "access_key", "AZURE_STORAGE_MASTER_KEY"])
def test_a_folder_may_use_the_other_names_of_the_client(name: str, tmp_path: Path) -> None:
    opened("az://c", written(tmp_path, HERE | {name: "a2V5"}))


def test_the_environment_of_other_programs_is_no_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIENT_ID", "of something else")
    monkeypatch.setenv("MSI_ENDPOINT", "the client does not read it")
    with pytest.raises(ValueError, match="AZURE_STORAGE_ACCOUNT_KEY"):
        opened("az://c", written(tmp_path, HERE))


def test_a_platform_may_give_the_identity_and_the_folder_the_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("a token")
    folder = tmp_path / "credentials"
    folder.mkdir()
    for name, value in {**CLIENT, "AZURE_FEDERATED_TOKEN_FILE": str(token)}.items():
        if name != "AZURE_CLIENT_SECRET":
            monkeypatch.setenv(name, value)
    opened("az://c", written(folder, HERE))
