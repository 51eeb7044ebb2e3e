"""Turns an adapter made elsewhere into the files of a revision."""

from __future__ import annotations

from collections.abc import Mapping

from papa.adoption import Adoption
from papa.revision_files import MANIFEST_FILE, AdapterDamagedError, Origin, digest, pack
from papa_serving.contracts.errors import InvalidRequest, Violation
from papa_serving.stubs.engine.v1 import engine_pb2


class Packer:
    """Checks and packs; blocking, for a worker thread. The backbone is not run."""

    def __init__(self, adoption: Adoption) -> None:
        self._adoption = adoption

    def pack(self, request: engine_pb2.PackAdapterRequest) -> engine_pb2.PackedAdapter:
        """The files of a revision that replaces `parent`. Raises InvalidRequest."""
        files: Mapping[str, bytes] = dict(request.files)
        denoiser = self._adoption.denoiser
        try:
            adapter = self._adoption.adopt(files, request.backbone)
        except AdapterDamagedError as error:
            raise _refused(error) from error
        origin = Origin(denoiser.backbone_hash, request.parent, request.created_at)
        packed = pack(adapter, denoiser.layout, self._adoption.config, origin)
        manifest = digest(packed[MANIFEST_FILE])
        return engine_pb2.PackedAdapter(files=packed, sha256=manifest, remembered=len(adapter.replay))


def _refused(error: AdapterDamagedError) -> InvalidRequest:
    field = "backbone" if error.reason == "backbone" else "files"
    return InvalidRequest([Violation(field, f"{error.reason}: {error}")])
