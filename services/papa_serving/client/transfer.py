"""Assembles a user's export from its messages, and builds the request that imports an adapter."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from papa_serving.client import wire
from papa_serving.client.records import Revision, UserExport, UserState
from papa_serving.contracts.errors import InvalidRequest, Violation
from papa_serving.contracts.limits import ADAPTER_FILES
from papa_serving.stubs.serving.v1 import types_pb2, user_pb2

MANIFEST = "manifest.json"


class Assembly:
    """Assembles the messages of one ExportUser call, in order."""

    def __init__(self) -> None:
        self._state: UserState | None = None
        self._revisions: list[Revision] = []
        self._pieces: dict[str, list[bytes]] = {}
        self._files: dict[str, bytes] = {}

    def add(self, message: user_pb2.ExportUserResponse) -> None:
        """Adds a message. Raises ValueError for a file with a wrong checksum."""
        match message.WhichOneof("part"):
            case "state":
                self._state = wire.user_state(message.state)
            case "revision":
                self._revisions.append(wire.revision(message.revision))
            case "chunk":
                self._add_chunk(message.chunk)

    def result(self) -> UserExport:
        """Returns the export. Raises ValueError if a part is missing."""
        if self._state is None or self._pieces:
            raise ValueError("the export ended before its time")
        return UserExport(self._state, tuple(self._revisions), self._files)

    def _add_chunk(self, chunk: user_pb2.FileChunk) -> None:
        pieces = self._pieces.setdefault(chunk.name, [])
        pieces.append(chunk.data)
        if chunk.sha256:
            data = b"".join(self._pieces.pop(chunk.name))
            if hashlib.sha256(data).hexdigest() != chunk.sha256:
                raise ValueError(f"{chunk.name} did not arrive as it was sent")
            self._files[chunk.name] = data


def import_request(
    user: types_pb2.User, files: Mapping[str, bytes], backbone_hash: str
) -> user_pb2.ImportAdapterRequest:
    """The request with an adapter's files. Without a hash it takes that of the manifest. Raises InvalidRequest."""
    chosen = {name: files[name] for name in ADAPTER_FILES if name in files}
    request = wire.request(user_pb2.ImportAdapterRequest, user, backbone=backbone_hash or _backbone_hash(chosen))
    for name, data in chosen.items():
        request.files.add(name=name, data=data, sha256=hashlib.sha256(data).hexdigest())
    return request


def _backbone_hash(files: Mapping[str, bytes]) -> str:
    try:
        return str(json.loads(files[MANIFEST])["backbone"])
    except (KeyError, TypeError, ValueError) as error:
        advice = f"name the hash of the backbone: there is no {MANIFEST} that does"
        raise InvalidRequest([Violation("backbone", advice)]) from error
