"""Every RPC, over a real socket, with every kind of credential that must not do."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import jwt
import pytest
from papa_serving.contracts.identity import UserKey
from papa_serving.gateway.conversion.picture_reader import PictureReader
from papa_serving.gateway.rpc.admission import SCOPES
from papa_serving.settings import AuthSettings
from papa_serving.stubs.serving.v1 import feedback_pb2, types_pb2, user_pb2

from tests.gateway.support.methods import GOOD, METHODS, WITHOUT_USER, Method, like, refused_within
from tests.gateway.support.service import Refusal, Service, refusal
from tests.gateway.support.tokens import ALL, AUDIENCE, ISSUER, Authority, bearer, jwks

ALICE, BOB = types_pb2.User(user="alice"), types_pb2.User(user="bob")
RIVAL = types_pb2.User(tenant="rival", user="alice")
UNAUTHENTICATED, DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def settings(authority: Authority, tmp_path: Path) -> AuthSettings:
    path = tmp_path / "jwks.json"
    path.write_text(jwks(authority))
    return AuthSettings(mode="jwt", jwks=str(path), audience=AUDIENCE, issuer=ISSUER)


@pytest.fixture
async def guarded(unstarted: Service, settings: AuthSettings) -> AsyncIterator[Service]:
    await unstarted.start(auth=settings)
    yield unstarted


def publish(settings: AuthSettings, keys: str) -> None:
    Path(settings.jwks).write_text(keys)


async def answer(service: Service, method: Method, user: types_pb2.User, token: str | None) -> str | Refusal:
    """The refusal, or for what was let through the reason in the first outcome ("" for none)."""
    metadata = None if token is None else bearer(token)
    try:
        response = await method.first(service.channel, method.good(user), metadata=metadata)
    except grpc.aio.AioRpcError as failure:
        return Refusal(failure)
    return refused_within(response)


def test_no_method_is_forgotten() -> None:
    assert set(SCOPES) == {method.short for method in METHODS} | WITHOUT_USER
    assert set(GOOD) == {method.name for method in METHODS}


def bad_tokens(authority: Authority) -> dict[str, str | None]:
    stranger = Authority()
    public = authority.pem()
    confused = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": "first"}).encode()).decode().rstrip("=")
    body = authority.token().split(".")[1]
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(
        f"{confused}.{body}".encode(), public
    )
    return {
        "absent": None,
        "empty": "",
        "no JWT": "letmein",
        "nested": f"{'[' * 6500}.x.y",
        "expired": authority.token(exp=time.time() - 3600),
        "not yet valid": authority.token(nbf=time.time() + 3600),
        "without an end": authority.token(without=("exp",)),
        "another audience": authority.token(aud="somebody else"),
        "no audience": authority.token(without=("aud",)),
        "another issuer": authority.token(iss="https://elsewhere.example"),
        "a stranger's key": stranger.token(),
        "another key's name": authority.token(headers={"kid": "second"}),
        "unsigned": jwt.encode({"aud": AUDIENCE, "iss": ISSUER, "exp": time.time() + 600}, None, "none"),
        "the public key as a secret": f"{confused}.{body}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}",
        "no tenant": authority.token(without=("tenant",)),
        "an end beyond all floats": authority.token(exp=10**400),
        "a tenant that is no string": authority.token(tenant=["shop"]),
        "an empty user": authority.token(user=""),
        "too long": authority.token(padding="x" * 5_200),
    }


@every_method
async def test_a_credential_that_proves_nothing(guarded: Service, authority: Authority, method: Method) -> None:
    for kind, token in bad_tokens(authority).items():
        refused = await answer(guarded, method, ALICE, token)
        assert isinstance(refused, Refusal), kind
        assert (refused.code, refused.reason) == (UNAUTHENTICATED, "UNAUTHENTICATED"), kind
        assert token is None or len(token) < 8 or token not in refused.message


@every_method
async def test_whom_a_credential_reaches(guarded: Service, authority: Authority, method: Method) -> None:
    tenant_wide, of_alice = authority.token(), authority.token(user="alice")
    for user, token in ((RIVAL, tenant_wide), (RIVAL, of_alice), (BOB, of_alice)):
        refused = await answer(guarded, method, user, token)
        reason = refused.reason if isinstance(refused, Refusal) else refused
        assert reason == "FORBIDDEN"
        assert not isinstance(refused, Refusal) or refused.code is DENIED
    assert guarded.engine.requests == []
    assert guarded.log.accepted == []
    # A token of one user reaches no second one, whom a merge needs.
    own = () if method.name == "MergeUsers" else ((ALICE, of_alice),)
    for user, token in ((BOB, tenant_wide), *own):
        passed = await answer(guarded, method, user, token)
        reason = passed.reason if isinstance(passed, Refusal) else passed
        assert reason in ("", "REVISION_NOT_FOUND", "CATALOGUE_NOT_FOUND"), "it has reached the servicer"


async def test_no_picture_is_decoded_for_who_may_not_send_it(
    guarded: Service, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoding costs seconds where somebody means it to; being refused must cost nothing."""
    asked: list[UserKey] = []

    async def read(_: PictureReader, user: UserKey, *_arguments: object) -> bytes:
        asked.append(user)
        return b"decoded"

    monkeypatch.setattr(PictureReader, "read", read)
    image = feedback_pb2.CatalogueImage(data=b"\x89PNG\r\n\x1a\n")
    events = [
        feedback_pb2.FeedbackEvent(event_id=user.user, user=user, image=image, signal=feedback_pb2.SIGNAL_LIKE)
        for user in (RIVAL, BOB, ALICE)
    ]
    request = feedback_pb2.SubmitFeedbackRequest(events=events)
    response = await guarded.feedback.SubmitFeedback(request, metadata=bearer(authority.token(user="alice")))
    assert [outcome.error.reason for outcome in response.outcomes] == ["FORBIDDEN", "FORBIDDEN", ""]
    assert [user.user for user in asked] == ["alice"]


@every_method
async def test_what_a_scope_is_for(guarded: Service, authority: Authority, method: Method) -> None:
    for scope in ALL.split():
        passed = await answer(guarded, method, ALICE, authority.token(scope=[scope]))
        if scope in SCOPES[method.short]:
            assert not isinstance(passed, Refusal) or passed.code is not DENIED
        else:
            assert isinstance(passed, Refusal)
            assert (passed.code, passed.reason) == (DENIED, "FORBIDDEN")
    for scope in ("", "read", "Generate", 7, [["admin"]]):
        refused = await answer(guarded, method, ALICE, authority.token(scope=scope))
        assert isinstance(refused, Refusal)
        assert refused.code is DENIED


async def test_health_is_open_and_reflection_is_not(guarded: Service) -> None:
    await guarded.until_serving("papa.serving.v1.FeedbackService")
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await guarded.reflected()
    assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_reflection_can_be_asked_for(unstarted: Service, settings: AuthSettings) -> None:
    await unstarted.start(auth=settings, reflection=True)
    assert "papa.serving.v1.UserService" in await unstarted.reflected()


async def test_a_watch_ends_with_its_credential(unstarted: Service, settings: AuthSettings) -> None:
    authority = Authority()
    publish(settings, jwks(authority))
    await unstarted.start(auth=settings.model_copy(update={"leeway": 0.0}))
    short = bearer(authority.token(exp=time.time() + 1.5))
    watch = unstarted.user.WatchUser(user_pb2.WatchUserRequest(user=ALICE), metadata=short)
    assert (await anext(aiter(watch))).state.likes == 0
    feedback = unstarted.feedback.StreamFeedback(metadata=short)
    await feedback.write(feedback_pb2.StreamFeedbackRequest(event=like(ALICE)))
    assert (await feedback.read()).outcome.ack.sequence == 1
    for end in (refusal(watch), refusal(feedback.read())):
        refused = await end
        assert (refused.code, refused.reason) == (UNAUTHENTICATED, "CREDENTIAL_EXPIRED")


async def test_keys_rotate_without_a_restart(
    unstarted: Service, settings: AuthSettings, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("papa_serving.watched_file.EVERY", 0.0)
    await unstarted.start(auth=settings)
    second, get = Authority("second"), METHODS[[method.name for method in METHODS].index("GetUser")]
    assert await answer(unstarted, get, ALICE, authority.token()) == ""
    assert isinstance(await answer(unstarted, get, ALICE, second.token()), Refusal)
    publish(settings, "{")
    assert await answer(unstarted, get, ALICE, authority.token()) == "", "a broken file changes nothing"
    publish(settings, jwks(authority, second))
    for each in (authority, second):
        assert await answer(unstarted, get, ALICE, each.token()) == ""
    publish(settings, second.pem().decode())
    assert await answer(unstarted, get, ALICE, second.token()) == ""
    assert isinstance(await answer(unstarted, get, ALICE, authority.token()), Refusal)


async def test_a_tenant_cannot_take_all_places(
    unstarted: Service, settings: AuthSettings, authority: Authority
) -> None:
    await unstarted.start(auth=settings, rates={"tenant_calls": 2})
    mine, watch = bearer(authority.token()), user_pb2.WatchUserRequest(user=ALICE)
    watches = [unstarted.user.WatchUser(watch, metadata=mine) for _ in range(2)]
    for each in watches:
        await anext(aiter(each))
    refused = await refusal(unstarted.user.GetUser(user_pb2.GetUserRequest(user=ALICE), metadata=mine))
    assert refused.reason == "OVERLOADED"
    assert refused.retry_after is not None
    others = bearer(authority.token(tenant="other"))
    await unstarted.user.GetUser(user_pb2.GetUserRequest(user=ALICE), metadata=others)
    watches[0].cancel()

    async def free() -> None:
        while True:
            try:
                await unstarted.user.GetUser(user_pb2.GetUserRequest(user=ALICE), metadata=mine)
            except grpc.aio.AioRpcError:
                continue
            return

    await asyncio.wait_for(free(), 60)
