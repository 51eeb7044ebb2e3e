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
AWS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}

HALVES = [
    ("az://c", HERE, "AZURE_STORAGE_ACCOUNT_KEY"),
    ("az://c", HERE | {"AZURE_STORAGE_ACCOUNT_KEY": ""}, "AZURE_STORAGE_ACCOUNT_KEY"),
    ("az://c", KEY, "Account must be specified"),
    *(("az://c", HERE | {name: CLIENT[name] for name in CLIENT if name != missing}, missing)
      for missing in ("AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_TENANT_ID")),
    ("az://c", HERE | {"AZURE_STORAGE_CLIENT_SECRET": "s"}, "AZURE_CLIENT_ID and AZURE_TENANT_ID"),
    ("az://c", HERE | {"AZURE_FEDERATED_TOKEN_FILE": "/nowhere"}, "AZURE_CLIENT_ID and AZURE_TENANT_ID"),
    ("az://c", HERE | {"AZURE_FEDERATED_TOKEN_FILE": "/nowhere", "AZURE_CLIENT_ID": "i", "AZURE_TENANT_ID": "t"},
     "AZURE_FEDERATED_TOKEN_FILE"),
    ("s3://b", {"AWS_ACCESS_KEY_ID": "id"}, "AWS_SECRET_ACCESS_KEY"),
    ("s3://b", AWS | {"AWS_SECRET_ACCESS_KEY": ""}, "AWS_SECRET_ACCESS_KEY"),
    ("s3://b", {"AWS_SECRET_ACCESS_KEY": "secret"}, "AWS_ACCESS_KEY_ID"),
    ("s3://b", {"AWS_SESSION_TOKEN": "t"}, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    ("s3://b", {"AWS_WEB_IDENTITY_TOKEN_FILE": "/nowhere"}, "AWS_ROLE_ARN"),
    ("s3://b", {"AWS_ROLE_ARN": "arn"}, "AWS_WEB_IDENTITY_TOKEN_FILE"),
    ("s3://b", {"AWS_ROLE_ARN": "arn", "AWS_WEB_IDENTITY_TOKEN_FILE": "/nowhere"}, "AWS_WEB_IDENTITY_TOKEN_FILE"),
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
    ("s3://b", AWS),
    ("s3://b", AWS | {"AWS_SESSION_TOKEN": "t"}),
    ("s3://b", {"AWS_REGION": "eu-central-1"}),
]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that says nothing of an object store."""
    for name in os.environ:
        if name.upper().startswith(("AWS_", "GOOGLE_", "AZURE_")):
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


def test_the_environment_does_not_complete_half_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CLIENT.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"store\.credentials: .*AZURE_CLIENT_SECRET"):
        opened("az://c", written(tmp_path, HERE | {"AZURE_CLIENT_ID": "id", "AZURE_TENANT_ID": "tenant"}))


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
