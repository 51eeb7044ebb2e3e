"""The encoding of revision records and user states in Redis."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from papa_serving.contracts.errors import LineageConflict, RevisionNotFound, UserDeleted
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.items import BackboneInfo
from papa_serving.contracts.revisions import DeletionReceipt, Revision, UserState
from papa_serving.contracts.vocabulary import Vocabulary

_NAME = "revision"
"""The JSON field that holds a revision's name. It keeps its first spelling so that old records can be read."""

STATE_FIELDS = ("deleted", "likes", "dislikes", "pending", "dead", "record", "version", "revisions")
"""Fields of the user's hash, in the order that `decode_state` takes."""


def encode_revision(revision: Revision) -> str:
    """One line of JSON."""
    return json.dumps({_NAME: revision.name, **_but_name(asdict(revision))}, separators=(",", ":"))


def decode_revision(text: bytes) -> Revision:
    """The inverse of `encode_revision`; unknown fields of later versions are ignored."""
    fields = json.loads(text)
    known = {name: fields[name] for name in Revision.__dataclass_fields__ if name in fields}
    return Revision(name=fields[_NAME], **_but_name(known))


def _but_name(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != "name"}


def decode_state(user: UserKey, values: Sequence[bytes | None]) -> UserState:
    """Decodes the values of STATE_FIELDS. Raises UserDeleted."""
    deleted, likes, dislikes, pending, dead, record, version, revisions = values
    check_deletion(deleted)
    return UserState(
        user=user,
        likes=int(likes or 0),
        dislikes=int(dislikes or 0),
        pending=int(pending or 0),
        dead_letters=int(dead or 0),
        current=decode_revision(record) if record else None,
        version=int(version or 0),
        revisions=int(revisions or 0),
    )


def check_deletion(deleted: bytes | None) -> None:
    """Raises UserDeleted for a tombstone, and what `decode_receipt` raises for one that holds no receipt."""
    if deleted:
        decode_receipt(deleted)
        raise user_deleted()


def decode_receipt(text: bytes) -> DeletionReceipt:
    """Decodes the JSON that delete.lua leaves in the tombstone, with its time in milliseconds."""
    fields = json.loads(text)
    return DeletionReceipt(**{**fields, "deleted_at": fields["deleted_at"] / 1000})


_HASH = "backbone"
"""How the record about a backbone calls its hash, since the first one was written."""


def encode_backbone(info: BackboneInfo) -> str:
    """One line of JSON. An empty vocabulary gets no field, because earlier releases refuse unknown fields."""
    fields = asdict(info)
    if not info.vocabulary.words:
        del fields["vocabulary"]
    return json.dumps({_HASH: fields.pop("backbone_hash"), **fields})


def decode_backbone(text: bytes) -> BackboneInfo:
    """The inverse of `encode_backbone`; fields of later versions are left out."""
    fields = json.loads(text)
    channels, height, width = fields["image_shape"]
    vocabulary = fields.get("vocabulary", {})
    return BackboneInfo(
        backbone_hash=fields[_HASH],
        name=fields["name"],
        image_shape=(channels, height, width),
        takes_prompt=fields.get("takes_prompt", False),
        vocabulary=Vocabulary(tuple(vocabulary.get("words", ())), dict(vocabulary.get("near", {}))),
    )


def check_backbone(known: BackboneInfo, name: str, backbone_hash: str) -> None:
    """Raises ValueError when a store that belongs to the backbone `known` is opened with another one."""
    if known.backbone_hash == backbone_hash:
        return
    if _hash_version(known.backbone_hash) < _hash_version(backbone_hash):
        raise ValueError(former_hash(known))
    raise ValueError(
        f"this store belongs to the backbone {known.name} ({short_hash(known.backbone_hash)}), and its users' adapters "
        f"do not fit {name} ({short_hash(backbone_hash)}): choose another redis.prefix or data_dir"
    )


def former_hash(known: BackboneInfo) -> str:
    """The remedy for a store that names its backbone by a hash of a former version."""
    return (
        f"this store names its backbone {known.name} by a former version of its hash "
        f"({short_hash(known.backbone_hash)}): "
        "run papa store rehash once, with the backbone that the store has always been served with"
    )


def short_hash(backbone_hash: str) -> str:
    """Enough of a backbone's hash to tell it from others: its version and twelve digits."""
    version, dash, digits = backbone_hash.rpartition("-")
    return f"{version}{dash}{digits[:12]}"


def _hash_version(backbone_hash: str) -> int:
    """2 of "2-…"; 1 of a hash without a version, as the first ones were."""
    version = backbone_hash.rpartition("-")[0]
    return int(version) if version.isdecimal() else 1


def no_revision(name: str, kept: int) -> RevisionNotFound:
    """The one wording of that error; `kept`: how many revisions a user may have."""
    return RevisionNotFound(
        f"this user has no revision {name!r}; the newest {kept} are kept (store.user_revisions)", field="revision"
    )


def merging_elsewhere() -> LineageConflict:
    """The one wording of that error."""
    return LineageConflict("a merge of this user into another one has begun: finish that one")


def user_deleted() -> UserDeleted:
    """The one wording of that error."""
    return UserDeleted("this user was deleted; the id may be used again once the deletion has expired")
