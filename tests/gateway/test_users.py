"""UserService: every method, and what a watcher sees."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from papa_serving.contracts.errors import StorageUnavailable
from papa_serving.contracts.feedback import FeedbackEvent
from papa_serving.contracts.identity import UserKey
from papa_serving.settings import AuthSettings
from papa_serving.stubs.serving.v1 import types_pb2, user_pb2
from prometheus_client import REGISTRY

from tests.gateway.support.doubles import revision
from tests.gateway.support.service import Service, eventually, refusal
from tests.gateway.support.tokens import AUDIENCE, ISSUER, Authority, bearer, jwks

ALICE, KEY = types_pb2.User(user="alice"), UserKey("default", "alice")


async def test_a_stranger_is_all_zero(service: Service) -> None:
    state = (await service.user.GetUser(user_pb2.GetUserRequest(user=ALICE))).state
    assert state == user_pb2.UserState(user=types_pb2.User(tenant="default", user="alice"))
    assert not state.HasField("current_revision")


async def test_the_state_of_a_user(service: Service) -> None:
    key = UserKey("shop", "bob")
    await service.log.append([FeedbackEvent(f"e{i}", key, grade, item_id="i") for i, grade in enumerate((1, 1, 1, -1))])
    lease = await service.log.acquire(key.partition(4), "trainer", 60)
    assert lease is not None
    await service.log.bury(lease, (await service.log.read(lease, "", 1)), "poison")
    service.users.commit(key, revision(4, "000003-aa"))
    state = (await service.user.GetUser(user_pb2.GetUserRequest(user=types_pb2.User(tenant="shop", user="bob")))).state
    assert (state.user.tenant, state.user.user) == ("shop", "bob")
    assert (state.likes, state.dislikes, state.pending_events, state.dead_letters) == (3, 1, 3, 1)
    current = state.current_revision
    assert (current.revision, current.parent, current.sha256) == ("000004-aa", "000003-aa", "ab" * 32)
    assert (current.events_applied, current.events_total) == (10, 40)
    assert current.created_at.ToMilliseconds() == 1_700_000_004_500


async def listed(service: Service, **asked: object) -> list[user_pb2.UserState]:
    """All pages of ListUsers."""
    states: list[user_pb2.UserState] = []
    token, more = "", True
    while more:
        request = user_pb2.ListUsersRequest(page_token=token, **asked)  # type: ignore[arg-type]
        page = await service.user.ListUsers(request)
        states += page.users
        token, more = page.next_page_token, bool(page.next_page_token)
    return states


@pytest.mark.parametrize("page_size", [0, 1, 3])
async def test_users_come_page_by_page_with_their_state(service: Service, page_size: int) -> None:
    keys = [UserKey(tenant, f"u{n}") for tenant in ("shop", "other") for n in range(7)]
    await service.log.append([FeedbackEvent(f"e{n}", key, 1.0, item_id="i") for key in keys for n in (1, 2)])
    service.users.commit(keys[0], revision(1))
    states = await listed(service, tenant="shop", page_size=page_size)
    assert sorted(state.user.user for state in states) == [f"u{n}" for n in range(7)]
    assert {(state.user.tenant, state.likes, state.pending_events) for state in states} == {("shop", 2, 2)}
    assert [state.user.user for state in states if state.HasField("current_revision")] == ["u0"]
    assert len(await listed(service, page_size=page_size)) == 14, "without authentication those of every tenant"
    await service.users.delete(keys[3])
    assert len(await listed(service, tenant="shop", page_size=page_size)) == 6


async def test_a_bad_request_for_users_names_every_field(service: Service) -> None:
    for token in ("nonsense", "YQ==", "YQBiAGM=", "\x00", "x" * 2_000):
        request = user_pb2.ListUsersRequest(tenant="a\nb", page_size=1001, page_token=token)
        refused = await refusal(service.user.ListUsers(request))
        assert set(refused.violations) == {"tenant", "page_size", "page_token"}


async def test_whose_users_a_credential_lists(unstarted: Service, tmp_path: Path) -> None:
    authority = Authority()
    (tmp_path / "keys.json").write_text(jwks(authority))
    await unstarted.start(
        auth=AuthSettings(mode="jwt", jwks=str(tmp_path / "keys.json"), audience=AUDIENCE, issuer=ISSUER)
    )
    for tenant in ("shop", "other"):
        await unstarted.log.append([FeedbackEvent("e", UserKey(tenant, "u"), 1.0, item_id="i")])

    async def ask(named: str, **claims: object) -> user_pb2.ListUsersResponse:
        request = user_pb2.ListUsersRequest(tenant=named)
        return await unstarted.user.ListUsers(request, metadata=bearer(authority.token(**claims)))

    for named in ("", "shop"):
        assert [state.user.tenant for state in (await ask(named, tenant="shop")).users] == ["shop"]
    for named, claims in (
        ("other", {}), ("", {"user": "u"}), ("shop", {"scope": "generate feedback"}),
    ):  # fmt: skip
        refused = await refusal(ask(named, **({"tenant": "shop"} | claims)))
        assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "FORBIDDEN")
        assert set(refused.violations) == (set() if "scope" in claims else {"tenant"})


async def test_a_watcher_sees_the_state_and_each_change(service: Service) -> None:
    watch = aiter(service.user.WatchUser(user_pb2.WatchUserRequest(user=ALICE)))
    assert (await anext(watch)).state.likes == 0
    service.users.change(KEY, likes=1)
    assert (await anext(watch)).state.likes == 1
    service.users.commit(KEY, revision(1))
    assert (await anext(watch)).state.current_revision.revision == "000001-aa"


async def test_a_watcher_that_leaves_is_forgotten(service: Service) -> None:
    call = service.user.WatchUser(user_pb2.WatchUserRequest(user=ALICE))
    await call.read()
    assert service.users.watchers(KEY) == 1
    call.cancel()
    await eventually(lambda: service.users.watchers(KEY) == 0)


async def test_a_watcher_is_told_of_a_deletion(service: Service) -> None:
    watch = aiter(service.user.WatchUser(user_pb2.WatchUserRequest(user=ALICE)))
    await anext(watch)
    await service.users.delete(KEY)
    assert (await refusal(watch)).reason == "USER_DELETED"


async def test_revisions_come_page_by_page_newest_first(service: Service) -> None:
    for number in range(1, 6):
        service.users.commit(KEY, revision(number))
    names, token = [], ""
    while True:
        page = await service.user.ListRevisions(
            user_pb2.ListRevisionsRequest(user=ALICE, page_size=2, page_token=token)
        )
        names.append([each.revision for each in page.revisions])
        token = page.next_page_token
        if not token:
            break
    assert names == [["000005-aa", "000004-aa"], ["000003-aa", "000002-aa"], ["000001-aa"]]
    everything = await service.user.ListRevisions(user_pb2.ListRevisionsRequest(user=ALICE))
    assert len(everything.revisions) == 5
    assert everything.next_page_token == ""


async def test_a_token_from_elsewhere(service: Service) -> None:
    request = user_pb2.ListRevisionsRequest(user=ALICE, page_token="000009-zz")
    refused = await refusal(service.user.ListRevisions(request))
    assert (refused.code, set(refused.violations)) == (grpc.StatusCode.INVALID_ARGUMENT, {"page_token"})


async def test_rollback_and_reset(service: Service) -> None:
    def moves() -> list[float]:
        causes = ("rolled_back", "reset")
        return [REGISTRY.get_sample_value("papa_revisions_total", {"cause": each}) or 0.0 for each in causes]

    before = moves()
    for number in (1, 2):
        service.users.commit(KEY, revision(number))
    back = await service.user.RollbackAdapter(user_pb2.RollbackAdapterRequest(user=ALICE, revision="000001-aa"))
    assert back.state.current_revision.revision == "000001-aa"
    unknown = user_pb2.RollbackAdapterRequest(user=ALICE, revision="000007-aa")
    refused = await refusal(service.user.RollbackAdapter(unknown))
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "REVISION_NOT_FOUND")
    reset = await service.user.ResetUser(user_pb2.ResetUserRequest(user=ALICE))
    assert not reset.state.HasField("current_revision")
    assert [after - was for after, was in zip(moves(), before, strict=True)] == [1, 1], "refusals are no moves"


async def test_a_deletion_gives_a_receipt_and_removes_the_files(service: Service) -> None:
    service.users.commit(KEY, revision(1))
    await service.log.append([FeedbackEvent("e", KEY, 1.0, item_id="i")])
    await service.revisions.put(KEY, "000001-aa", {"manifest.json": b"{}"})
    receipt = await service.user.DeleteUser(user_pb2.DeleteUserRequest(user=ALICE))
    assert receipt.receipt_id
    assert (receipt.events, receipt.dead_letters, receipt.items, receipt.revisions) == (1, 0, 1, 1)
    assert receipt.deleted_at.seconds > 1_700_000_000
    assert await service.revisions.delete_user(KEY) == 0, "the files are gone already"
    refused = await refusal(service.user.GetUser(user_pb2.GetUserRequest(user=ALICE)))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "USER_DELETED")


async def test_a_deletion_that_fails_half_way_is_completed_by_repeating_it(service: Service) -> None:
    await service.revisions.put(KEY, "000001-aa", {"manifest.json": b"{}"})
    service.revisions.failure = StorageUnavailable("disk")
    refused = await refusal(service.user.DeleteUser(user_pb2.DeleteUserRequest(user=ALICE)))
    assert refused.code is grpc.StatusCode.UNAVAILABLE
    service.revisions.failure = None
    assert (await service.user.DeleteUser(user_pb2.DeleteUserRequest(user=ALICE))).receipt_id
    assert await service.revisions.delete_user(KEY) == 0


@pytest.mark.parametrize(
    "method", ["GetUser", "WatchUser", "ListRevisions", "RollbackAdapter", "ResetUser", "DeleteUser"]
)
async def test_every_method_refuses_a_user_that_is_none(service: Service, method: str) -> None:
    for user in (None, types_pb2.User(user="\x7f"), types_pb2.User(user="x" * 129)):
        request = getattr(user_pb2, f"{method}Request")(user=user)
        refused = await refusal(getattr(service.user, method)(request))
        assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
        assert "user.user" in refused.violations


async def test_everything_wrong_with_a_request_at_once(service: Service) -> None:
    request = user_pb2.ListRevisionsRequest(page_size=1001, page_token="t" * 129)
    refused = await refusal(service.user.ListRevisions(request))
    assert set(refused.violations) == {"user.user", "page_size", "page_token"}
    rollback = user_pb2.RollbackAdapterRequest(revision="")
    assert set((await refusal(service.user.RollbackAdapter(rollback))).violations) == {"user.user", "revision"}


async def test_storage_that_does_not_answer(service: Service) -> None:
    service.users.failure = StorageUnavailable("down")
    refused = await refusal(service.user.GetUser(user_pb2.GetUserRequest(user=ALICE)))
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE")
    assert refused.retry_after is not None
