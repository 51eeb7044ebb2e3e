"""Revisions in an object store (S3, Google Cloud Storage, Azure Blob, by URL): one object per file.

An object store cannot rename a folder. A revision is therefore complete once it has the object `.complete`, which is
written last. Nothing is read of a revision without it.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError
from obstore.store import ObjectStore, from_url
from typing_extensions import override

from papa_serving.contracts.errors import RevisionNotFound, StorageUnavailable
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.revisions import Holding, RevisionStore, plain_name
from papa_serving.store.object_credentials import check_whole
from papa_serving.watched_file import WatchedFile

COMPLETE = ".complete"
"""The mark of a complete revision. It is not a plain name, so no file of a revision can have it."""

PROBES = ".check"

_RETRY_AFTER = 1.0
CLIENT_OPTIONS = (
    "allow_http",
    "allow_invalid_certificates",
    "connect_timeout",
    "default_content_type",
    "http1_only",
    "http2_keep_alive_interval",
    "http2_keep_alive_timeout",
    "http2_keep_alive_while_idle",
    "http2_only",
    "pool_idle_timeout",
    "pool_max_idle_per_host",
    "proxy_ca_certificate",
    "proxy_excludes",
    "proxy_url",
    "randomize_addresses",
    "read_timeout",
    "root_certificate",
    "timeout",
    "user_agent",
)
"""The options of obstore's HTTP client that a text can set. Its ClientConfig exists for type checkers only."""

_CLIENT_VARIABLE = re.compile(f"(?:(?:AWS|GOOGLE|AZURE)_)?({'|'.join(CLIENT_OPTIONS)})", re.IGNORECASE)
"""Variables that set an option of the HTTP client, which obstore wants apart from the others."""
_PREFIXES = ("AWS_", "GOOGLE_", "AZURE_")
_DIGEST = re.compile(r"[0-9a-f]{32}")
T = TypeVar("T")


def object_store(url: str, variables: Mapping[str, str] | None = None) -> ObjectStore:
    """Opens the objects below s3://, gs:// or az://…

    Credentials and endpoint come from the environment (AWS_*, GOOGLE_*, AZURE_*), and from `variables` of the same
    names, which win. Raises ValueError for any other URL and for a variable that the client does not know.
    """
    given = variables or {}
    config: Any = {name.lower(): value for name, value in given.items() if not _CLIENT_VARIABLE.fullmatch(name)}
    # Options that are passed take the place of all that the environment has, so these are passed as well.
    environment = {name: value for name, value in os.environ.items() if name.startswith(_PREFIXES)}
    options: Any = {**_client_options(environment), **_client_options(given)}
    try:
        return from_url(url, config=config, client_options=options or None)
    except (BaseError, ValueError) as error:
        raise ValueError(f"store.url: {str(error).strip().splitlines()[0]}") from error


def _client_options(variables: Mapping[str, str]) -> dict[str, str]:
    """The options of the HTTP client among variables, for instance `allow_http` for AWS_ALLOW_HTTP."""
    found = {name: _CLIENT_VARIABLE.fullmatch(name) for name in variables}
    return {match[1].lower(): variables[name] for name, match in found.items() if match}


def object_stores(url: str, credentials: Path | None) -> Callable[[], ObjectStore]:
    """Gives the objects below the URL, opened anew when a file in `credentials` was changed, added or removed.

    The folder holds one file for each variable. Raises ValueError as `object_store` does, for a part of a credential,
    and for a folder that cannot be read or holds nothing.
    """
    if credentials is None:
        check_whole(url, {}, os.environ)
        objects = object_store(url)
        return lambda: objects

    def opened() -> ObjectStore:
        given = {path.name: path.read_text().strip() for path in _variables(credentials)}
        if not given:
            raise ValueError("store.credentials: the folder holds no variable")
        check_whole(url, given, os.environ)
        return object_store(url, given)

    try:
        return WatchedFile(lambda: _variables(credentials), opened).value
    except OSError as error:
        raise ValueError(f"store.credentials: {error}") from error


def _variables(folder: Path) -> tuple[Path, ...]:
    """The files in a folder, without those that the kubelet keeps its versions in (`..data`)."""
    return tuple(sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_file()))


class ObjectRevisionStore(RevisionStore):
    """Stores xx/digest/revision/file below the prefix of the URL. Keys consist of the digest and of checked names."""

    def __init__(self, objects: Callable[[], ObjectStore]) -> None:
        """`objects` gives the store with the credentials that hold at present."""
        self._open = objects

    @property
    def _objects(self) -> ObjectStore:
        return self._open()

    @override
    async def put(self, user: UserKey, revision: str, files: Mapping[str, bytes]) -> None:
        """Creates each object only if it does not exist, so the first write of each file stays."""
        folder = _folder(user.digest, revision)
        named = {plain_name(name): data for name, data in files.items()}
        await _in_thread(lambda: self._write(folder, named))

    @override
    async def get(self, user: UserKey, revision: str, name: str) -> bytes:
        """A look at the mark, then the file in whole."""
        return await self.read(user.digest, revision, name)

    @override
    async def delete_user(self, user: UserKey) -> int:
        """Removes unfinished revisions as well, without counting them."""
        return await _in_thread(lambda: self._remove(f"{user.digest[:2]}/{user.digest}"))

    @override
    async def holdings(self, digest: str = "") -> AsyncIterator[Holding]:
        """Lists all objects. Ages are this machine's time minus the object store's timestamps."""
        prefix = f"{_digest(digest)[:2]}/{digest}" if digest else ""
        for owner, revisions in sorted((await _in_thread(lambda: self._holdings(prefix))).items()):
            yield Holding(owner, revisions)

    @override
    async def read(self, digest: str, revision: str, name: str) -> bytes:
        """A look at the mark, then the file in whole."""
        folder, file = _folder(_digest(digest), revision), plain_name(name)
        data = await _in_thread(lambda: self._read(folder, file))
        if data is None:
            raise RevisionNotFound(f"the store holds no {name} of revision {revision}", field="revision")
        return data

    @override
    async def discard(self, digest: str, revision: str) -> None:
        """Removes the mark first."""
        folder = _folder(_digest(digest), revision)
        await _in_thread(lambda: self._remove(folder))

    @override
    async def check(self) -> None:
        """Writes and removes a small object."""
        await _in_thread(self._probe)

    def _write(self, folder: str, files: Mapping[str, bytes]) -> None:
        if self._has(f"{folder}/{COMPLETE}"):
            return
        for name, data in (*files.items(), (COMPLETE, b"")):
            with suppress(AlreadyExistsError):
                obstore.put(self._objects, f"{folder}/{name}", data, mode="create")

    def _read(self, folder: str, name: str) -> bytes | None:
        if not self._has(f"{folder}/{COMPLETE}"):
            return None
        try:
            return bytes(obstore.get(self._objects, f"{folder}/{name}").bytes())
        except (NotFoundError, FileNotFoundError):
            return None

    def _has(self, path: str) -> bool:
        try:
            obstore.head(self._objects, path)
        except (NotFoundError, FileNotFoundError):
            return False
        return True

    def _list(self, prefix: str) -> list[tuple[str, datetime]]:
        pages = obstore.list(self._objects, prefix or None)
        entries = [(entry["path"], entry["last_modified"]) for page in pages for entry in page]
        return [entry for entry in entries if not entry[0].startswith(f"{PROBES}/")]

    def _remove(self, prefix: str) -> int:
        """Removes the marks first, so that nobody reads a partial revision; returns the number of marks."""
        paths = [path for path, _ in self._list(prefix)]
        marks = [path for path in paths if path.endswith(f"/{COMPLETE}")]
        for part in (marks, sorted(set(paths) - set(marks))):
            if part:
                obstore.delete(self._objects, part)
        return len(marks)

    def _holdings(self, prefix: str) -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float]] = {}
        now = datetime.now(UTC)
        for path, modified in self._list(prefix):
            _, owner, revision, name = path.split("/")
            if name == COMPLETE:
                found.setdefault(owner, {})[revision] = max(0.0, (now - modified).total_seconds())
        return found

    def _probe(self) -> None:
        path = f"{PROBES}/{secrets.token_hex(8)}"
        obstore.put(self._objects, path, b"papa")
        obstore.delete(self._objects, path)


async def _in_thread(work: Callable[[], T]) -> T:
    """Runs blocking work in a thread. Errors of the object store become StorageUnavailable."""
    try:
        return await asyncio.to_thread(work)
    except (BaseError, OSError) as error:
        line = str(error).strip().splitlines()[0]
        raise StorageUnavailable(f"revision store: {line}", retry_after=_RETRY_AFTER) from error


def _folder(digest: str, revision: str) -> str:
    return f"{digest[:2]}/{digest}/{plain_name(revision)}"


def _digest(text: str) -> str:
    if not _DIGEST.fullmatch(text):
        raise ValueError(f"{text!r} is no digest of a user")
    return text
