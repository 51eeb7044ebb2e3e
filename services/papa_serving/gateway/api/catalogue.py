"""CatalogueService: takes, removes and tells of the items of a tenant's catalogues."""

# ruff: noqa: N802, D102 - the protos name the methods and say what they do

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace

from papa_serving.contracts.catalogue import DEFAULT_CATALOGUE, CatalogueKey, Catalogues, Encoder, ListedItem, Put
from papa_serving.contracts.errors import InvalidRequest, ItemNotFound, PapaError, Violation
from papa_serving.contracts.limits import MAX_EMBEDDED, MAX_ID
from papa_serving.gateway.api.users import timestamp
from papa_serving.gateway.backends import KnownEncoder
from papa_serving.gateway.conversion import validation
from papa_serving.gateway.conversion.catalogue_items import Draft, ItemReader, check_catalogue, value_to_wire
from papa_serving.gateway.engine_client import EngineClient
from papa_serving.gateway.rpc.admission import caller
from papa_serving.gateway.rpc.drain import Drain
from papa_serving.gateway.rpc.edge import Context
from papa_serving.gateway.rpc.inflow import Inflow
from papa_serving.gateway.rpc.status import public_message, retry_after
from papa_serving.metrics import CATALOGUE_ITEMS
from papa_serving.settings import GatewaySettings
from papa_serving.stubs.serving.v1 import catalogue_pb2, catalogue_pb2_grpc

log = logging.getLogger(__name__)

GROUP = 32
GROUP_BYTES = 4 * 2**20
"""The most that one stream buffers while its worker embeds. Beyond it, HTTP/2's flow control stops the caller."""
EMBED_BYTES = 16 * 2**20
"""The most bytes of pictures in one call of the engine."""
MAX_DELETED = 1_000
DEFAULT_PAGE = 100

_RESULTS = {Put.ADDED: catalogue_pb2.PUT_RESULT_ADDED, Put.REPLACED: catalogue_pb2.PUT_RESULT_REPLACED}
Request = catalogue_pb2.PutItemsRequest
Response = catalogue_pb2.PutItemsResponse


class CatalogueService(catalogue_pb2_grpc.CatalogueServiceServicer):
    """Embeds pictures through the engine and stores items in the catalogues."""

    def __init__(
        self,
        limits: GatewaySettings,
        catalogues: Catalogues,
        engine: EngineClient,
        encoder: KnownEncoder,
        reader: ItemReader,
        drain: Drain,
    ) -> None:
        self._page_bytes = limits.max_message_bytes // 2
        self._catalogues, self._engine, self._encoder = catalogues, engine, encoder
        self._reader, self._drain = reader, drain

    async def PutItems(self, request_iterator: AsyncIterator[Request], context: Context) -> AsyncIterator[Response]:
        """Handles whatever has arrived as one group while the next group is being read."""
        remaining = context.time_remaining()
        deadline = None if remaining is None else time.monotonic() + remaining
        inflow = Inflow[Request](GROUP, GROUP_BYTES)
        filling = asyncio.create_task(inflow.fill(request_iterator, lambda request: request))
        try:
            while True:
                async with self._drain.endless_wait():
                    group = await inflow.take()
                if not group:
                    return
                for part in _without_repeats(group):
                    for response in await self._put(part, deadline):
                        yield response
                del group
        finally:
            filling.cancel()

    async def DeleteItems(
        self, request: catalogue_pb2.DeleteItemsRequest, context: Context
    ) -> catalogue_pb2.DeleteItemsResponse:
        violations: list[Violation] = []
        if not 1 <= len(request.item_ids) <= MAX_DELETED:
            raise InvalidRequest([Violation("item_ids", f"must be 1 to {MAX_DELETED} ids")])
        for index, item_id in enumerate(request.item_ids):
            validation.check_id(item_id, f"item_ids[{index}]", violations)
        catalogue = _catalogue(request.catalogue, violations, len(request.item_ids))
        deleted = await self._catalogues.delete(catalogue, request.item_ids)
        CATALOGUE_ITEMS.labels("deleted").inc(deleted)
        return catalogue_pb2.DeleteItemsResponse(deleted=deleted)

    async def GetItem(
        self, request: catalogue_pb2.CatalogueServiceGetItemRequest, context: Context
    ) -> catalogue_pb2.CatalogueServiceGetItemResponse:
        violations: list[Violation] = []
        validation.check_id(request.item_id, "item_id", violations)
        (item,) = await self._catalogues.get(_catalogue(request.catalogue, violations), [request.item_id])
        if item is None:
            raise ItemNotFound("the catalogue has no such item", field="item_id")
        listed = ListedItem(item.item_id, item.metadata, bool(item.sample), item.fingerprint, item.updated_at)
        return catalogue_pb2.CatalogueServiceGetItemResponse(item=_listed(listed))

    async def ListItems(
        self, request: catalogue_pb2.ListItemsRequest, context: Context
    ) -> catalogue_pb2.ListItemsResponse:
        """The token of a page is the id of its last item. A page ends early where its items are large."""
        violations: list[Violation] = []
        if request.page_size > validation.MAX_PAGE:
            violations.append(Violation("page_size", f"must be at most {validation.MAX_PAGE}"))
        if len(request.page_token) > MAX_ID:
            violations.append(Violation("page_token", "is not a token of this service"))
        catalogue = _catalogue(request.catalogue, violations)
        size = request.page_size or DEFAULT_PAGE
        page = await self._catalogues.page(catalogue, size, request.page_token)
        response = catalogue_pb2.ListItemsResponse(next_page_token=page.after)
        room = self._page_bytes
        for item in map(_listed, page.items):
            room -= item.ByteSize()
            if room < 0 and response.items:
                response.next_page_token = response.items[-1].item_id
                break
            response.items.append(item)
        return response

    async def ListCatalogues(
        self, request: catalogue_pb2.ListCataloguesRequest, context: Context
    ) -> catalogue_pb2.ListCataloguesResponse:
        violations: list[Violation] = []
        if request.tenant:
            validation.check_id(request.tenant, "tenant", violations)
        validation.refuse(violations)
        tenant = caller.get().charge_tenant(request.tenant)
        try:
            encoder = await self._encoder.get()
        except PapaError as error:  # the catalogues can be told without it
            log.info("the encoder is not known: %s", error.message)
            encoder = Encoder("", 0)
        return catalogue_pb2.ListCataloguesResponse(
            catalogues=[
                catalogue_pb2.CatalogueInfo(name=each.name, items=each.items, encoder=each.encoder)
                for each in await self._catalogues.of_tenant(tenant)
            ],
            encoder=encoder.name,
            embedding_size=encoder.size,
        )

    async def _put(self, messages: Sequence[Request], deadline: float | None) -> list[Response]:
        """Stores a group of different items. One response per message, in order; an error never ends the group."""
        try:
            results = await self._stored(messages, deadline)
        except PapaError as error:
            results = [error] * len(messages)
        for result in results:
            CATALOGUE_ITEMS.labels(result.reason if isinstance(result, PapaError) else _outcome(result)).inc()
        return [_response(message.item.item_id, each) for message, each in zip(messages, results, strict=True)]

    async def _stored(
        self, messages: Sequence[Request], deadline: float | None
    ) -> list[catalogue_pb2.PutResult.ValueType | PapaError]:
        results: list[catalogue_pb2.PutResult.ValueType | PapaError] = [catalogue_pb2.PUT_RESULT_UNCHANGED] * len(
            messages
        )
        changed: dict[int, Draft] = {}
        for index, draft in enumerate(await self._reader.fingerprinted(messages)):
            if isinstance(draft, PapaError):
                results[index] = draft
                continue
            try:
                (known,) = await self._catalogues.fingerprints(draft.catalogue, [draft.item.item_id])
            except PapaError as error:
                results[index] = error
                continue
            if known != draft.item.fingerprint:
                changed[index] = draft
        decoded = await self._reader.decoded(list(changed.values()), [messages[index] for index in changed], deadline)
        ready = dict(zip(changed, decoded, strict=True))
        embedded = await self._embedded({i: each for i, each in ready.items() if isinstance(each, Draft)})
        done = {**ready, **embedded}
        stored = await asyncio.gather(*map(self._store, done.values()))
        for index, result in zip(done, stored, strict=True):
            results[index] = result
        return results

    async def _embedded(self, drafts: dict[int, Draft]) -> dict[int, Draft | PapaError]:
        """The drafts, all with an embedding. Its error for those of a call that failed."""
        missing = [index for index, draft in drafts.items() if not draft.item.embedding]
        done: dict[int, Draft | PapaError] = dict(drafts.items())
        while missing:
            size = len(drafts[missing[0]].item.sample)
            part = missing[: max(1, min(MAX_EMBEDDED, EMBED_BYTES // size))]
            missing = missing[len(part) :]
            by_tenant: dict[str, list[int]] = {}
            for index in part:
                by_tenant.setdefault(drafts[index].catalogue.tenant, []).append(index)
            for tenant, indexes in by_tenant.items():
                try:
                    answer = await self._engine.embed(tenant, [drafts[index].item.sample for index in indexes])
                except PapaError as error:
                    done.update(dict.fromkeys(indexes, error))
                    continue
                for index, embedding in zip(indexes, answer.embeddings, strict=True):
                    item = replace(drafts[index].item, embedding=embedding, encoder=answer.encoder)
                    done[index] = replace(drafts[index], item=item)
        return done

    async def _store(self, draft: Draft | PapaError) -> catalogue_pb2.PutResult.ValueType | PapaError:
        if isinstance(draft, PapaError):
            return draft
        try:
            return _RESULTS[await self._catalogues.put(draft.catalogue, draft.item)]
        except PapaError as error:
            return error


def _without_repeats(group: Sequence[Request]) -> Iterator[list[Request]]:
    """Splits a group so that no part names an item twice: of two the later one counts."""
    part: list[Request] = []
    seen: set[tuple[str, str, str]] = set()
    for message in group:
        name = (message.catalogue.tenant, message.catalogue.name, message.item.item_id)
        if name in seen:
            yield part
            part, seen = [], set()
        part.append(message)
        seen.add(name)
    yield part


def _catalogue(message: catalogue_pb2.Catalogue, violations: list[Violation], cost: int = 1) -> CatalogueKey:
    """Charges the tenant and returns the catalogue. Raises its violations together with those found before."""
    check_catalogue(message, violations)
    validation.refuse(violations)
    return CatalogueKey(caller.get().charge_tenant(message.tenant, cost), message.name or DEFAULT_CATALOGUE)


def _listed(item: ListedItem) -> catalogue_pb2.CatalogueItem:
    return catalogue_pb2.CatalogueItem(
        item_id=item.item_id,
        metadata={key: value_to_wire(value) for key, value in item.metadata.items()},
        updated_at=timestamp(item.updated_at),
        has_image=item.has_image,
    )


def _outcome(result: catalogue_pb2.PutResult.ValueType) -> str:
    return catalogue_pb2.PutResult.Name(result).removeprefix("PUT_RESULT_").lower()


def _response(item_id: str, result: catalogue_pb2.PutResult.ValueType | PapaError) -> Response:
    if not isinstance(result, PapaError):
        return Response(item_id=item_id, ack=catalogue_pb2.PutAck(result=result))
    error = catalogue_pb2.ItemError(
        code=int(result.status),
        reason=result.reason,
        message=public_message(result),
        field=result.field,
        retry_after_seconds=retry_after(result) or 0.0,
    )
    return Response(item_id=item_id, error=error)
