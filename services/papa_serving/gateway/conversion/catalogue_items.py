"""Converts items of catalogues between the public contract and the store's, and validates what callers send."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from papa_serving.contracts.catalogue import DEFAULT_CATALOGUE, CatalogueItem, CatalogueKey, Encoder, Metadata, Value
from papa_serving.contracts.errors import EncoderChanged, InvalidRequest, PapaError, Violation
from papa_serving.contracts.identity import UserKey
from papa_serving.gateway.backends import KnownBackbone, KnownEncoder
from papa_serving.gateway.conversion import validation
from papa_serving.gateway.conversion.picture_reader import PictureReader
from papa_serving.gateway.conversion.pictures import INCOMPLETE, BadPicture, begins_as_picture
from papa_serving.gateway.rpc.admission import caller
from papa_serving.settings import GatewaySettings
from papa_serving.stubs.serving.v1 import catalogue_pb2

MAX_KEYS, MAX_TEXT, MAX_TEXTS = 32, 256, 32
"""The most keys of an item's metadata, characters of a text, and texts of one key."""
MAX_METADATA_BYTES = 8 * 2**10
"""The most bytes of all keys and values of an item's metadata, as the message encodes them."""
LARGEST_NUMBER = 1e15
"""Numbers of metadata are smaller in absolute value: beyond, not every whole one has a float of its own."""
KEY_RULE = "a key has 1 to 64 letters, digits and underscores, and does not begin with a digit"
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)


@dataclass(frozen=True)
class Draft:
    """A valid item whose embedding may still be missing: then `item.sample` holds the picture to embed."""

    catalogue: CatalogueKey
    item: CatalogueItem


class ItemReader:
    """Validates and converts items; pictures are decoded into the backbone's shape."""

    def __init__(
        self, limits: GatewaySettings, backbone: KnownBackbone, encoder: KnownEncoder, pictures: PictureReader
    ) -> None:
        self._limits, self._backbone, self._encoder, self._pictures = limits, backbone, encoder, pictures

    async def fingerprinted(self, messages: Sequence[catalogue_pb2.PutItemsRequest]) -> list[Draft | PapaError]:
        """What each message asks for, or why it is refused, without any work for its picture yet."""
        encoder = await self._encoder.get()
        return [self._fingerprinted(message, encoder) for message in messages]

    async def decoded(
        self, drafts: Sequence[Draft], messages: Sequence[catalogue_pb2.PutItemsRequest], deadline: float | None
    ) -> list[Draft | PapaError]:
        """The drafts with their pictures decoded; those that come with an embedding stay as they are."""
        return await asyncio.gather(
            *(self._decoded(draft, message, deadline) for draft, message in zip(drafts, messages, strict=True))
        )

    def _fingerprinted(self, message: catalogue_pb2.PutItemsRequest, encoder: Encoder) -> Draft | PapaError:
        violations: list[Violation] = []
        check_catalogue(message.catalogue, violations)
        self._check_item(message.item, encoder, violations)
        if violations:
            return InvalidRequest(violations)
        given = message.item.embedding
        if message.item.WhichOneof("content") == "embedding" and given.encoder != encoder.name:
            return EncoderChanged(
                f"embedding.encoder is {given.encoder!r}, and this deployment's is {encoder.name!r}", field="embedding"
            )
        try:
            tenant = caller.get().charge_tenant(message.catalogue.tenant)
        except PapaError as error:
            return error
        return Draft(CatalogueKey(tenant, message.catalogue.name or DEFAULT_CATALOGUE), _item(message.item, encoder))

    async def _decoded(
        self, draft: Draft, message: catalogue_pb2.PutItemsRequest, deadline: float | None
    ) -> Draft | PapaError:
        if draft.item.embedding:
            return draft
        try:
            shape = (await self._backbone.info()).image_shape
            owner = UserKey(draft.catalogue.tenant, "")
            sample = await self._pictures.read(owner, message.item.image, shape, deadline=deadline)
        except BadPicture as error:
            return InvalidRequest([Violation("item.image", str(error))])
        except PapaError as error:
            return error
        item = draft.item
        return Draft(
            draft.catalogue,
            CatalogueItem(item.item_id, b"", item.encoder, item.metadata, sample, item.fingerprint),
        )

    def _check_item(self, item: catalogue_pb2.NewItem, encoder: Encoder, violations: list[Violation]) -> None:
        validation.check_id(item.item_id, "item.item_id", violations)
        match item.WhichOneof("content"):
            case "image":
                if not 1 <= len(item.image) <= self._limits.max_image_bytes:
                    what = f"must be 1 to {self._limits.max_image_bytes} bytes"
                    violations.append(Violation("item.image", what))
                elif not begins_as_picture(item.image):
                    violations.append(Violation("item.image", INCOMPLETE))
            case "embedding":
                _check_embedding(item.embedding, encoder, violations)
            case _:
                violations.append(Violation("item.content", "give an image or an embedding"))
        _check_metadata(item, violations)


def check_catalogue(catalogue: catalogue_pb2.Catalogue, violations: list[Violation]) -> None:
    """Checks the two names; each may be empty."""
    for name in ("tenant", "name"):
        if text := getattr(catalogue, name):
            validation.check_id(text, f"catalogue.{name}", violations)


def is_key(text: str) -> bool:
    """Whether metadata may have this key (`KEY_RULE`)."""
    return _KEY.fullmatch(text) is not None


def value_to_wire(value: Value) -> catalogue_pb2.MetadataValue:
    """One value of the metadata in the public contract."""
    if isinstance(value, tuple):
        return catalogue_pb2.MetadataValue(texts=catalogue_pb2.Texts(values=value))
    if isinstance(value, bool):
        return catalogue_pb2.MetadataValue(flag=value)
    if isinstance(value, str):
        return catalogue_pb2.MetadataValue(text=value)
    return catalogue_pb2.MetadataValue(number=value)


def _check_embedding(embedding: catalogue_pb2.Embedding, encoder: Encoder, violations: list[Violation]) -> None:
    if len(embedding.values) != encoder.size:
        violations.append(Violation("item.embedding.values", f"must be {encoder.size} numbers"))
        return
    values = _half(embedding)
    if not np.isfinite(values).all() or not values.any():
        violations.append(Violation("item.embedding.values", "must be finite in half precision, and not all 0"))


def _half(embedding: catalogue_pb2.Embedding) -> NDArray[np.float16]:
    """The numbers as they are stored; what half precision cannot hold becomes infinite."""
    with np.errstate(over="ignore"):
        return np.array(embedding.values, np.float32).astype("<f2")


def _check_metadata(item: catalogue_pb2.NewItem, violations: list[Violation]) -> None:
    if len(item.metadata) > MAX_KEYS:
        violations.append(Violation("item.metadata", f"must have at most {MAX_KEYS} keys"))
        return
    if sum(len(key.encode()) + value.ByteSize() for key, value in item.metadata.items()) > MAX_METADATA_BYTES:
        violations.append(Violation("item.metadata", f"must have at most {MAX_METADATA_BYTES} bytes in all"))
        return
    for key, value in item.metadata.items():
        if not is_key(key):
            violations.append(Violation("item.metadata", KEY_RULE))
        elif advice := _advice(value):
            violations.append(Violation(f"item.metadata[{key!r}]", advice))


def _advice(value: catalogue_pb2.MetadataValue) -> str:
    """What to change about a value; "" for a good one."""
    match value.WhichOneof("kind"):
        case "text" if len(value.text) > MAX_TEXT:
            return f"must be at most {MAX_TEXT} characters"
        case "texts" if len(value.texts.values) > MAX_TEXTS:
            return f"must be at most {MAX_TEXTS} texts"
        case "texts" if any(len(text) > MAX_TEXT for text in value.texts.values):
            return f"must be texts of at most {MAX_TEXT} characters"
        case "number" if not (math.isfinite(value.number) and abs(value.number) < LARGEST_NUMBER):
            return f"must be finite, and below {LARGEST_NUMBER:g}"
        case None:
            return "has no value"
    return ""


def _item(message: catalogue_pb2.NewItem, encoder: Encoder) -> CatalogueItem:
    metadata = {key: _value(value) for key, value in sorted(message.metadata.items())}
    embedding = _half(message.embedding).tobytes()
    return CatalogueItem(
        item_id=message.item_id,
        embedding=embedding,
        encoder=encoder.name,
        metadata=metadata,
        fingerprint=_fingerprint(message.image or embedding, metadata, encoder),
    )


def _fingerprint(content: bytes, metadata: Metadata, encoder: Encoder) -> str:
    described = json.dumps([encoder.name, metadata], sort_keys=True).encode()
    return hashlib.sha256(hashlib.sha256(described).digest() + content).hexdigest()


def _value(message: catalogue_pb2.MetadataValue) -> Value:
    match message.WhichOneof("kind"):
        case "texts":
            return tuple(message.texts.values)
        case "flag":
            return message.flag
        case "text":
            return message.text
        case _:
            return message.number
