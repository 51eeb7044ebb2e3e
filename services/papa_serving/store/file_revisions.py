"""Revisions on a file system: one folder per revision, written under another name and then renamed."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from typing_extensions import override

from papa_serving.contracts.errors import RevisionNotFound, StorageUnavailable
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.revisions import Holding, RevisionStore, plain_name

_RETRY_AFTER = 1.0
_DELETED_MEANWHILE = 8
"""Number of retries of a write when the user's folder is deleted meanwhile."""
_DIGEST = re.compile(r"[0-9a-f]{32}")
T = TypeVar("T")


class FileRevisionStore(RevisionStore):
    """Stores `root`/xx/digest/revision/file. Paths consist only of the user's digest and of checked names.

    A folder under its final name is complete and on disk: files, folder and parents are synchronised before and after
    the rename. Names that begin with a dot are unfinished or are being removed.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    @override
    async def put(self, user: UserKey, revision: str, files: Mapping[str, bytes]) -> None:
        """The first complete write stays. Raises ValueError for names that are not plain."""
        folder = self._folder(user, revision)
        await _in_thread(lambda: _write_folder(self._root, folder, {plain_name(n): data for n, data in files.items()}))

    @override
    async def get(self, user: UserKey, revision: str, name: str) -> bytes:
        path = self._folder(user, revision) / plain_name(name)
        data = await _in_thread(lambda: _read_file(path))
        if data is None:
            raise RevisionNotFound(f"the store holds no {name} of revision {revision}", field="revision")
        return data

    @override
    async def delete_user(self, user: UserKey) -> int:
        """Removes unfinished revisions as well, without counting them."""
        return await _in_thread(lambda: _remove_folder(self._user_folder(user)))

    @override
    async def holdings(self, digest: str = "") -> AsyncIterator[Holding]:
        """Lists one folder per user. Ages follow the file system's clock."""
        pattern = f"{_digest(digest)[:2]}/{digest}" if digest else "[0-9a-f][0-9a-f]/*"
        for folder in await _in_thread(lambda: sorted(self._root.glob(pattern))):
            if folder.name.startswith("."):  # being deleted
                continue
            if revisions := await _in_thread(lambda folder=folder: _ages(folder)):  # type: ignore[misc]
                yield Holding(folder.name, revisions)

    @override
    async def read(self, digest: str, revision: str, name: str) -> bytes:
        path = self._root / _digest(digest)[:2] / digest / plain_name(revision) / plain_name(name)
        data = await _in_thread(lambda: _read_file(path))
        if data is None:
            raise RevisionNotFound(f"the store holds no {name} of revision {revision}", field="revision")
        return data

    @override
    async def discard(self, digest: str, revision: str) -> None:
        """Renames the folder before removing it, so that nobody reads a partial revision."""
        folder = self._root / _digest(digest)[:2] / digest / plain_name(revision)
        await _in_thread(lambda: _discard(folder))

    @override
    async def check(self) -> None:
        """Writes, synchronises and removes a small file."""
        await _in_thread(lambda: _probe(self._root))

    def _user_folder(self, user: UserKey) -> Path:
        digest = user.digest
        return self._root / digest[:2] / digest

    def _folder(self, user: UserKey, revision: str) -> Path:
        return self._user_folder(user) / plain_name(revision)


async def _in_thread(work: Callable[[], T]) -> T:
    """Runs blocking work in a thread. Errors of the file system become StorageUnavailable."""
    try:
        return await asyncio.to_thread(work)
    except OSError as error:
        raise StorageUnavailable(f"revision store: {error.strerror or error}", retry_after=_RETRY_AFTER) from error


def _write_folder(root: Path, folder: Path, files: Mapping[str, bytes]) -> None:
    for _ in range(_DELETED_MEANWHILE):
        with suppress(FileNotFoundError, FileExistsError):
            return _write_once(root, folder, files)
    return _write_once(root, folder, files)


def _write_once(root: Path, folder: Path, files: Mapping[str, bytes]) -> None:
    """Raises FileNotFoundError when the user is deleted at the same time, and FileExistsError when the folder existed
    when it was to be made but not when it was to be used."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not folder.exists():
        _write_and_rename(folder, files)
    # Also when another process made them: after the return, a pointer may name the revision.
    for level in (folder.parent, folder.parent.parent, root):
        _synchronise(level)


def _write_and_rename(folder: Path, files: Mapping[str, bytes]) -> None:
    unfinished = _beside(folder)
    unfinished.mkdir()
    try:
        for name, data in files.items():
            _write_file(unfinished / name, data)
        _synchronise(unfinished)
        unfinished.rename(folder)
    except OSError:
        shutil.rmtree(unfinished, ignore_errors=True)
        if not folder.exists():  # else somebody wrote the same revision meanwhile
            raise


def _read_file(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _write_file(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _synchronise(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_folder(folder: Path) -> int:
    """Renames the folder before removing it, so that only one of several concurrent deletions gets it.

    Also removes what an interrupted deletion has left.
    """
    revisions, doomed = 0, _beside(folder)
    try:
        folder.rename(doomed)
        revisions = sum(not entry.name.startswith(".") for entry in doomed.iterdir())
    except FileNotFoundError:  # nothing there, or somebody else has it
        pass
    remains = list(folder.parent.glob(f".{folder.name}.*"))
    for each in remains:
        _remove_whole(each)
    if remains:
        _synchronise(folder.parent)
    return revisions


def _remove_whole(folder: Path) -> None:
    """Removes a folder, also while others remove it."""
    while folder.exists():
        with suppress(FileNotFoundError):
            shutil.rmtree(folder)


def _beside(folder: Path) -> Path:
    """A new name beside the folder that nobody reads and nobody else uses."""
    return folder.parent / f".{folder.name}.{secrets.token_hex(8)}"


def _digest(text: str) -> str:
    if not _DIGEST.fullmatch(text):
        raise ValueError(f"{text!r} is no digest of a user")
    return text


def _ages(folder: Path) -> dict[str, float]:
    now = time.time()
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
        return {entry.name: max(0.0, now - entry.stat().st_mtime) for entry in entries}
    except FileNotFoundError:  # deleted meanwhile
        return {}


def _discard(folder: Path) -> None:
    doomed = _beside(folder)
    try:
        folder.rename(doomed)
    except FileNotFoundError:
        return
    _remove_whole(doomed)


def _probe(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    path = root / f".check.{secrets.token_hex(8)}"
    try:
        _write_file(path, b"papa")
    finally:
        path.unlink(missing_ok=True)
