"""DeadLetterService: what is listed, what a retry and a drop do, and whose letters nobody else reaches."""

from __future__ import annotations

import grpc
import pytest
from papa_serving.contracts.identity import UserKey
from papa_serving.gateway.api import dead_letters
from papa_serving.gateway.auth.identity import Identity, Scope
from papa_serving.stubs.serving.v1 import dead_letter_pb2 as pb2
from papa_serving.stubs.serving.v1 import types_pb2

from tests.gateway.support.service import Service, bury, refusal

ALICE, BOB, FOREIGN = UserKey("shop", "alice"), UserKey("shop", "bob"), UserKey("other", "alice")


def message(key: UserKey) -> types_pb2.User:
    return types_pb2.User(tenant=key.tenant, user=key.user)


async def listed(service: Service, **request: object) -> list[tuple[str, str, str]]:
    """Over all pages: tenant, user, event id."""
    found, token, more = [], "", True
    while more:
        page = await service.dead_letters.ListDeadLetters(pb2.ListDeadLettersRequest(page_token=token, **request))
        found += [(each.user.tenant, each.user.user, each.event_id) for each in page.dead_letters]
        token = page.next_page_token
        more = bool(token)
    return found


async def test_a_letter_is_told_in_whole(service: Service) -> None:
    (letter,) = await bury(service, ALICE, "e1")
    (told,) = (await service.dead_letters.ListDeadLetters(pb2.ListDeadLettersRequest())).dead_letters
    assert told.letter_id == letter.letter_id
    assert (told.user, told.event_id, told.sequence, told.grade) == (message(ALICE), "e1", 1, -0.5)
    assert (told.reason, told.attempts) == ("poison", 0)
    assert told.accepted_at.ToNanoseconds() <= told.died_at.ToNanoseconds()


@pytest.mark.parametrize("page_size", [1, 2, 0])
@pytest.mark.parametrize("chunk", [1, 500])
async def test_lists_of_everybody_of_a_tenant_and_of_a_user(
    service: Service, page_size: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "CHUNK", chunk)
    for user in (ALICE, BOB, FOREIGN):
        await bury(service, user, "e1", "e2")
    of = {user: [(user.tenant, user.user, "e1"), (user.tenant, user.user, "e2")] for user in (ALICE, BOB, FOREIGN)}
    everybody = [letter for letters in of.values() for letter in letters]
    assert sorted(await listed(service, page_size=page_size)) == sorted(everybody)
    tenant = types_pb2.User(tenant="shop")
    assert sorted(await listed(service, page_size=page_size, user=tenant)) == sorted(of[ALICE] + of[BOB])
    assert await listed(service, page_size=page_size, user=message(BOB)) == of[BOB]
    assert await listed(service, page_size=page_size, user=types_pb2.User(user="nobody")) == []


async def test_a_page_looks_through_a_bounded_number_of_letters(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "CHUNK", 1)
    monkeypatch.setattr(dead_letters, "MOST_CHUNKS", 2)
    await bury(service, ALICE, *(f"e{number}" for number in range(5)))
    await bury(service, BOB, "late")
    assert await listed(service, user=message(BOB)) == [("shop", "bob", "late")]


async def test_a_retry_appends_the_event_again(service: Service) -> None:
    (letter,) = await bury(service, ALICE, "e1")
    request = pb2.RetryDeadLetterRequest(user=message(ALICE), letter_id=letter.letter_id)
    assert (await service.dead_letters.RetryDeadLetter(request)).found
    state = await service.users.get(ALICE)
    assert (state.pending, state.dead_letters) == (1, 0)
    assert not (await service.dead_letters.RetryDeadLetter(request)).found


async def test_a_drop_removes_it_for_good(service: Service) -> None:
    (letter,) = await bury(service, ALICE, "e1")
    request = pb2.DropDeadLetterRequest(user=message(ALICE), letter_id=letter.letter_id)
    assert (await service.dead_letters.DropDeadLetter(request)).found
    state = await service.users.get(ALICE)
    assert (state.pending, state.dead_letters) == (0, 0)
    assert not (await service.dead_letters.DropDeadLetter(request)).found


async def test_another_users_letter_is_not_found_whatever_its_id(service: Service) -> None:
    """Also when both users are in the partition whose stream the id belongs to."""
    neighbour = next(
        user for user in (UserKey("shop", f"u{n}") for n in range(100)) if user.partition(4) == ALICE.partition(4)
    )
    (letter,) = await bury(service, ALICE, "e1")
    for call, kind in (
        (service.dead_letters.RetryDeadLetter, pb2.RetryDeadLetterRequest),
        (service.dead_letters.DropDeadLetter, pb2.DropDeadLetterRequest),
    ):
        assert not (await call(kind(user=message(neighbour), letter_id=letter.letter_id))).found
    assert (await service.users.get(ALICE)).dead_letters == 1


async def test_what_is_wrong_with_a_request_is_named(service: Service) -> None:
    list_them, drop = service.dead_letters.ListDeadLetters, service.dead_letters.DropDeadLetter
    for call, field in (
        (list_them(pb2.ListDeadLettersRequest(page_size=1001)), "page_size"),
        (list_them(pb2.ListDeadLettersRequest(page_token="9.")), "page_token"),
        (list_them(pb2.ListDeadLettersRequest(page_token="x")), "page_token"),
        (list_them(pb2.ListDeadLettersRequest(user=types_pb2.User(user="a\n"))), "user.user"),
        (drop(pb2.DropDeadLetterRequest(user=message(ALICE), letter_id="+")), "letter_id"),
        (drop(pb2.DropDeadLetterRequest(letter_id="1-1")), "user.user"),
    ):
        refused = await refusal(call)
        assert (refused.code, set(refused.violations)) == (grpc.StatusCode.INVALID_ARGUMENT, {field})


async def test_a_bound_credential_sees_its_own_tenant_only(unstarted: Service) -> None:
    async def authenticate(metadata: object) -> Identity:
        return Identity("shop", True, scopes=frozenset({Scope.ADMIN}))

    await unstarted.start(authenticate)
    await bury(unstarted, ALICE, "e1")
    (foreign,) = await bury(unstarted, FOREIGN, "e2")
    assert await listed(unstarted) == [("shop", "alice", "e1")]
    assert await listed(unstarted, user=types_pb2.User()) == [("shop", "alice", "e1")]
    for request in (message(FOREIGN), types_pb2.User(tenant="other")):
        refused = await refusal(unstarted.dead_letters.ListDeadLetters(pb2.ListDeadLettersRequest(user=request)))
        assert refused.code is grpc.StatusCode.PERMISSION_DENIED
    request = pb2.DropDeadLetterRequest(user=message(FOREIGN), letter_id=foreign.letter_id)
    assert (await refusal(unstarted.dead_letters.DropDeadLetter(request))).code is grpc.StatusCode.PERMISSION_DENIED
    assert (await unstarted.users.get(FOREIGN)).dead_letters == 1
