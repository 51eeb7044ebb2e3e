"""Revision files over memory and the file system."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3
import obstore
import pytest
from moto.server import ThreadedMotoServer
from papa_serving.contracts.errors import RevisionNotFound, StorageUnavailable
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.revisions import RevisionStore
from papa_serving.settings import Settings, StoreSettings
from papa_serving.store import open_revisions
from papa_serving.store.file_revisions import FileRevisionStore
from papa_serving.store.memory import MemoryRevisionStore
from papa_serving.store.object_revisions import (
    CLIENT_OPTIONS,
    COMPLETE,
    ObjectRevisionStore,
    object_store,
    object_stores,
)

NAME = "000001-0a0b0c0d"
FILES = {"manifest.json": b"{}", "adapter_model.safetensors": bytes(range(256)) * 40, "empty": b""}


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A bucket of a server that speaks S3, on a socket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        urlopen(Request(f"{endpoint}/bucket", method="PUT"), timeout=10).close()
        yield "s3://bucket"
    server.stop()


@pytest.fixture(params=["memory", "files", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> RevisionStore:
    if request.param == "s3":
        url = f"{request.getfixturevalue('s3')}/{secrets.token_hex(4)}"
        return open_revisions(Settings(store=StoreSettings(url=url)))
    return MemoryRevisionStore() if request.param == "memory" else FileRevisionStore(tmp_path / "revisions")


async def test_files_are_read_as_they_were_written(store: RevisionStore, user: UserKey) -> None:
    await store.put(user, NAME, FILES)
    assert {name: await store.get(user, NAME, name) for name in FILES} == FILES


async def test_what_is_not_there_is_not_found(store: RevisionStore, user: UserKey) -> None:
    await store.put(user, NAME, FILES)
    for key, revision, name in [
        (user, NAME, "other.json"),
        (user, "000002-0a0b0c0d", "manifest.json"),
        (UserKey(user.tenant, "other"), NAME, "manifest.json"),
    ]:
        with pytest.raises(RevisionNotFound):
            await store.get(key, revision, name)


async def test_a_revision_is_immutable(store: RevisionStore, user: UserKey) -> None:
    await store.put(user, NAME, FILES)
    await store.put(user, NAME, FILES)
    await store.put(user, NAME, {"manifest.json": b"changed"})
    assert await store.get(user, NAME, "manifest.json") == b"{}"


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "/etc/passwd", "a\\b", "a\x00", "é", "a" * 129, "a\n"]
)
async def test_only_plain_names_make_a_path(store: RevisionStore, user: UserKey, name: str) -> None:
    with pytest.raises(ValueError, match="plain name"):
        await store.put(user, name, FILES)
    with pytest.raises(ValueError, match="plain name"):
        await store.put(user, NAME, {name: b""})
    with pytest.raises(ValueError, match="plain name"):
        await store.get(user, name, "manifest.json")


async def test_deletion_removes_all_of_one_user(store: RevisionStore, user: UserKey) -> None:
    other = UserKey(user.tenant, "other")
    for revision in (NAME, "000002-0a0b0c0d"):
        await store.put(user, revision, FILES)
    await store.put(other, NAME, FILES)
    assert await store.delete_user(user) == 2
    assert await store.delete_user(user) == 0
    with pytest.raises(RevisionNotFound):
        await store.get(user, NAME, "manifest.json")
    assert await store.get(other, NAME, "manifest.json") == b"{}"


async def test_of_several_deletions_at_once_each_ends_well_and_every_revision_counts_once(
    store: RevisionStore, user: UserKey
) -> None:
    for number in range(12):
        await store.put(user, f"{number:06d}-0a0b0c0d", FILES)
    counts = await asyncio.gather(*(store.delete_user(user) for _ in range(6)))
    # An object store lists before it deletes: there the same revision may be counted by several.
    assert sum(counts) == 12 if isinstance(store, FileRevisionStore | MemoryRevisionStore) else max(counts) == 12
    assert [holding async for holding in store.holdings()] == []


async def test_writers_of_the_same_revision_do_not_disturb_one_another(store: RevisionStore, user: UserKey) -> None:
    await asyncio.gather(*(store.put(user, NAME, FILES) for _ in range(8)))
    assert {name: await store.get(user, NAME, name) for name in FILES} == FILES


async def test_a_sound_store_passes_its_check(store: RevisionStore) -> None:
    await store.check()


async def test_a_revision_whose_mark_is_missing_is_invisible_and_goes_with_the_user(s3: str, user: UserKey) -> None:
    objects = object_store(f"{s3}/{secrets.token_hex(4)}")
    store = ObjectRevisionStore(lambda: objects)
    await store.put(user, NAME, FILES)
    folder = f"{user.digest[:2]}/{user.digest}/{NAME}"
    await asyncio.to_thread(obstore.delete, objects, f"{folder}/{COMPLETE}")
    with pytest.raises(RevisionNotFound):
        await store.get(user, NAME, "manifest.json")
    assert [holding async for holding in store.holdings()] == []
    assert await store.delete_user(user) == 0
    assert [entry for page in obstore.list(objects) for entry in page] == []


async def test_holdings_and_discard_name_only_what_is_complete(store: RevisionStore, user: UserKey) -> None:
    for name in (NAME, "000002-0a0b0c0d"):
        await store.put(user, name, FILES)
    assert [set(holding.revisions) async for holding in store.holdings(user.digest)] == [{NAME, "000002-0a0b0c0d"}]
    await store.discard(user.digest, NAME)
    assert [set(holding.revisions) async for holding in store.holdings()] == [{"000002-0a0b0c0d"}]
    assert await store.read(user.digest, "000002-0a0b0c0d", "manifest.json") == b"{}"


async def test_a_bucket_that_is_not_there_is_unavailable_storage(s3: str, user: UserKey) -> None:
    objects = object_store("s3://nowhere")
    store = ObjectRevisionStore(lambda: objects)
    for attempt in (store.check(), store.put(user, NAME, FILES)):
        with pytest.raises(StorageUnavailable, match="revision store"):
            await attempt


def _config(objects: Any) -> Any:
    return objects.config


def _options(objects: Any) -> Any:
    return objects.client_options


Keys = tuple[Any, list[dict[str, str]]]


@pytest.fixture
def keys(s3: str, monkeypatch: pytest.MonkeyPatch) -> Keys:
    """A client of IAM, and two keys of one new account; every call to this S3 is checked from then on.

    The client shows the second key: calls to IAM are checked as well.
    """
    name = f"papa-{secrets.token_hex(4)}"
    policy = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]})
    iam = boto3.client("iam", region_name="us-east-1", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="all", PolicyDocument=policy)
    made = [iam.create_access_key(UserName=name)["AccessKey"] for _ in range(2)]
    found = [{"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]} for key in made]
    shown: Any = {variable.lower(): value for variable, value in found[1].items()}
    allowed = boto3.client("iam", region_name="us-east-1", endpoint_url=os.environ["AWS_ENDPOINT_URL"], **shown)
    monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0)
    return allowed, found


async def test_replaced_keys_of_an_object_store_are_taken_up(
    s3: str,
    keys: Keys,
    user: UserKey,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("papa_serving.watched_file.EVERY", 0.0)
    iam, (first, second) = keys
    for name, value in {**first, "AWS_ALLOW_HTTP": "true"}.items():
        (tmp_path / name).write_text(f"{value}\n")
    (tmp_path / "..data").mkdir()
    store = open_revisions(Settings(store=StoreSettings(url=f"{s3}/rotated", credentials=tmp_path)))
    await store.put(user, NAME, FILES)
    iam.delete_access_key(AccessKeyId=first["AWS_ACCESS_KEY_ID"])
    with pytest.raises(StorageUnavailable):
        await store.get(user, NAME, "manifest.json")
    for name, value in second.items():
        (tmp_path / name).write_text(value)
    assert await store.get(user, NAME, "manifest.json") == FILES["manifest.json"]
    (tmp_path / "AWS_ACCESS_KEY_ID").write_text(first["AWS_ACCESS_KEY_ID"])
    (tmp_path / "AWS_SECRET_ACCESS_KEY").unlink()
    assert await store.get(user, NAME, "manifest.json") == FILES["manifest.json"], "half a change is not taken up"
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1, "it is logged once"


async def test_a_removed_optional_key_of_an_object_store_is_taken_up(
    s3: str,
    keys: Keys,
    user: UserKey,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The token of a key for a while is gone once the Secret holds a key for good."""
    monkeypatch.setattr("papa_serving.watched_file.EVERY", 0.0)
    _, (first, second) = keys
    for name, value in {**first, "AWS_SESSION_TOKEN": "token", "AWS_REGION": "us-east-1"}.items():
        (tmp_path / name).write_text(value)
    opened = object_stores(f"{s3}/removed", tmp_path)
    assert _config(opened())["session_token"] == "token"
    (tmp_path / "AWS_SESSION_TOKEN").unlink()
    (tmp_path / "AWS_REGION").unlink()
    for name, value in second.items():
        (tmp_path / name).write_text(value)
    await ObjectRevisionStore(opened).put(user, NAME, FILES)
    assert _config(opened())["access_key_id"] == second["AWS_ACCESS_KEY_ID"]
    assert "session_token" not in _config(opened())
    (tmp_path / "AWS_SESSION_TOKEN").write_text("another")
    assert _config(opened())["session_token"] == "another", "a file that was added is a change"
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("left", [[], ["AWS_ACCESS_KEY_ID"], ["AWS_SECRET_ACCESS_KEY"], ["AWS_SESSION_TOKEN"]])
def test_a_folder_with_half_of_the_credentials_keeps_the_former_ones(
    left: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("papa_serving.watched_file.EVERY", 0.0)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "other")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "other")
    whole = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    for name in whole:
        (tmp_path / name).write_text("first")
    opened = object_stores("s3://bucket", tmp_path)
    former = opened()
    for name in set(whole) - set(left):
        (tmp_path / name).unlink()
    assert [opened() is former for _ in range(3)] == [True] * 3
    assert [record.levelname for record in caplog.records].count("ERROR") == 1
    for name in whole:
        (tmp_path / name).write_text("second")
    assert _config(opened())["secret_access_key"] == "second"
    for name in set(whole) - set(left):
        (tmp_path / name).unlink()
    opened()
    assert [record.levelname for record in caplog.records].count("ERROR") == 2, "a new fault is logged again"


@pytest.fixture
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that says nothing of an object store."""
    for name in os.environ:
        if name.startswith(("AWS_", "GOOGLE_", "AZURE_")):
            monkeypatch.delenv(name)


@pytest.mark.usefixtures("no_variables")
@pytest.mark.parametrize("scheme", [("AWS", "s3"), ("GOOGLE", "gs"), ("AZURE", "az")])
def test_options_of_the_http_client_reach_the_object_store(
    scheme: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix, kind = scheme
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv(f"{prefix}_PROXY_EXCLUDES", "minio,127.0.0.1")
    monkeypatch.setenv(f"{prefix}_READ_TIMEOUT", "7s")
    monkeypatch.setenv("USER_AGENT", "somebody else's")
    assert _options(object_store(f"{kind}://bucket")) == {"proxy_excludes": "minio,127.0.0.1", "read_timeout": "7s"}
    both = object_store(f"{kind}://bucket", {f"{prefix}_READ_TIMEOUT": "9s", f"{prefix}_HTTP1_ONLY": "true"})
    assert _options(both) == {"proxy_excludes": "minio,127.0.0.1", "read_timeout": "9s", "http1_only": "true"}


@pytest.mark.usefixtures("no_variables")
@pytest.mark.parametrize("name", ["AWS_USER_AGENT", "aws_user_agent", "USER_AGENT"])
def test_a_file_sets_an_option_of_the_http_client(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("papa\n")
    assert _options(object_stores("s3://bucket", tmp_path)()) == {"user_agent": "papa"}


def test_every_option_of_the_installed_http_client_is_known() -> None:
    stub = ast.parse((Path(obstore.__file__).parent / "_store" / "_client.pyi").read_text())
    (described,) = (node for node in stub.body if isinstance(node, ast.ClassDef) and node.name == "ClientConfig")
    fields = {ast.unparse(node.target) for node in described.body if isinstance(node, ast.AnnAssign)}
    assert set(CLIENT_OPTIONS) == fields - {"default_headers"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("AWS_NONSENSE", "aws_nonsense"),
        ("AWS_ROOT_CERTIFICATE", r"store\.url: No certificates"),
        ("AWS_ACCESS_KEY_ID", r"store\.credentials: .*AWS_SECRET_ACCESS_KEY"),
        ("..data", r"store\.credentials: .* no variable"),
        ("", r"store\.credentials"),
    ],
)
def test_a_folder_of_variables_that_cannot_be_used_is_refused(name: str, said: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    if name:
        folder.mkdir()
        (folder / name).write_text("x")
    with pytest.raises(ValueError, match=said):
        open_revisions(Settings(store=StoreSettings(url="s3://bucket", credentials=folder)))


def test_a_url_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"store\.url"):
        open_revisions(Settings(store=StoreSettings(url="ftp://host/x")))


async def test_the_path_holds_nothing_of_the_callers_strings(tmp_path: Path) -> None:
    user = UserKey("../../tenant", "..\\user\x00/..")
    await FileRevisionStore(tmp_path).put(user, NAME, FILES)
    folder = tmp_path / user.digest[:2] / user.digest / NAME
    assert files_below(tmp_path) == {folder / name for name in FILES}


async def test_an_unfinished_writing_is_invisible_and_goes_with_the_user(
    tmp_path: Path, user: UserKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileRevisionStore(tmp_path)

    def power_cut(self: Path, target: Path) -> None:
        raise SystemExit("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", power_cut)
        with pytest.raises(SystemExit):
            await store.put(user, NAME, FILES)
    with pytest.raises(RevisionNotFound):
        await store.get(user, NAME, "manifest.json")
    await store.put(user, NAME, FILES)
    assert await store.delete_user(user) == 1
    assert files_below(tmp_path) == set()


async def test_a_deletion_that_was_cut_short_is_invisible_and_ended_by_the_next(
    tmp_path: Path, user: UserKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileRevisionStore(tmp_path)
    await store.put(user, NAME, FILES)

    def power_cut(*_: object) -> None:
        raise SystemExit("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", power_cut)
        with pytest.raises(SystemExit):
            await store.delete_user(user)
    assert files_below(tmp_path) != set()
    assert [holding async for holding in store.holdings()] == []
    with pytest.raises(RevisionNotFound):
        await store.get(user, NAME, "manifest.json")
    assert await store.delete_user(user) == 0
    assert files_below(tmp_path) == set()


async def test_a_folder_is_complete_and_synchronised_before_it_gets_its_name(
    tmp_path: Path, user: UserKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    synchronised: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def noting_fsync(descriptor: int) -> None:
        synchronised.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def noting_rename(self: Path, target: Path) -> Path:
        synchronised.append(f"rename to {target.name}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(Path, "rename", noting_rename)
    await FileRevisionStore(tmp_path).put(user, NAME, FILES)
    at = synchronised.index(f"rename to {NAME}")
    assert set(FILES) <= set(synchronised[:at])
    assert synchronised[at - 1].startswith(f".{NAME}.")
    assert synchronised[at + 1] == user.digest


async def test_a_full_or_broken_disk_is_unavailable_storage(tmp_path: Path, user: UserKey) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = FileRevisionStore(tmp_path / "file" / "below")
    for attempt in (store.check(), store.put(user, NAME, FILES)):
        with pytest.raises(StorageUnavailable, match="revision store"):
            await attempt


async def test_a_deletion_during_writings_disturbs_none_of_them(tmp_path: Path) -> None:
    store = FileRevisionStore(tmp_path)
    for n in range(20):
        user = UserKey("shop", str(n))
        writings = [asyncio.create_task(store.put(user, f"{m:06d}-0a0b0c0d", FILES)) for m in range(4)]
        await asyncio.sleep(0.001 * (n % 5))
        outcomes = await asyncio.gather(store.delete_user(user), *writings, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} <= {int, type(None)}
        await store.delete_user(user)
    assert files_below(tmp_path) == set()


async def test_the_folder_of_the_settings_is_used(tmp_path: Path, user: UserKey) -> None:
    await open_revisions(Settings(data_dir=tmp_path)).put(user, NAME, FILES)
    assert (tmp_path / "revisions" / user.digest[:2] / user.digest / NAME / "manifest.json").is_file()
