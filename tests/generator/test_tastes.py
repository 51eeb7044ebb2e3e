"""What the engine tells of a taste: the kinds it consists of, and how likely its user likes embedded pictures."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest
from papa_serving.contracts.catalogue import Encoder
from papa_serving.contracts.errors import EncoderChanged, InvalidRequest, QueueFull, UserDeleted
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.limits import MAX_JUDGED
from papa_serving.generator.tastes import Tastes
from papa_serving.stubs.engine.v1 import engine_pb2

from papa.adapter import Adapter, new_adapter
from papa.config import UpdateConfig
from papa.denoiser import Denoiser
from papa.prototypes import kinds
from papa.revision_files import STATE_FILE
from papa.updating import update
from tests.generator.support import ANN, PATIENCE, World
from tests.papa.support import likes_bright, shades, with_pool

Kind = engine_pb2.Kind


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    return with_pool(shades(*range(0, 256, 8)))


@pytest.fixture(scope="module")
def learnt(denoiser: Denoiser) -> Adapter:
    """Of a user who likes what is bright."""
    return update(denoiser, new_adapter(denoiser), likes_bright(), UpdateConfig(steps=1), 3)[0]


@pytest.fixture
def world(denoiser: Denoiser) -> Iterator[World]:
    world = World(denoiser)
    world.engine.start()
    yield world
    world.engine.stop(PATIENCE)


def tastes(world: World) -> Tastes:
    denoiser = world.denoiser
    encoder = Encoder("e", denoiser.feature_size)
    made = Tastes(world.adapters, world.revisions, denoiser.unrated, world.engine.embedder, encoder)
    made.teaching = 0.3
    return made


async def test_the_pool_is_embedded_once_and_as_learning_sees_it(world: World, denoiser: Denoiser) -> None:
    room = tastes(world)
    first, second = await asyncio.gather(room.pool(), room.pool())
    assert first is second
    assert first is not None and denoiser.pool is not None
    np.testing.assert_allclose(first.features.float(), denoiser.pool.features.float(), rtol=1e-2, atol=1e-3)


async def test_a_pool_that_finds_no_room_is_embedded_later(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    room = tastes(world)
    with monkeypatch.context() as full:
        full.setattr(world.engine.embedder, "submit", _refuse)
        with pytest.raises(QueueFull):
            await room.judge(asked(kinds=True))
    assert (await room.judge(asked(kinds=True))).kinds


def _refuse(*_: object) -> None:
    raise QueueFull("full")


def asked(*embeddings: bytes, kinds: bool = False, user: UserKey = ANN, encoder: str = "e") -> engine_pb2.JudgeRequest:
    return engine_pb2.JudgeRequest(
        tenant=user.tenant, user=user.user, embeddings=embeddings, kinds=kinds, encoder=encoder
    )


def origins(answer: engine_pb2.Judgement) -> set[int]:
    return {each.origin for each in answer.kinds}


async def commit(world: World, learnt: Adapter, **fields: object) -> None:
    given = {"weights": learnt.weights, "head": learnt.head, "replay": learnt.replay, **fields}
    await world.commit(ANN, "000001-aa", **given)  # type: ignore[arg-type]


async def test_the_head_of_the_newest_revision_judges(world: World, denoiser: Denoiser, learnt: Adapter) -> None:
    await commit(world, learnt)
    assert learnt.head is not None and denoiser.pool is not None
    features = denoiser.pool.features
    answer = await tastes(world).judge(asked(*(row.numpy().tobytes() for row in features)))
    np.testing.assert_allclose(answer.probabilities, learnt.head.probability(features.float()), atol=1e-6)
    assert (answer.revision, answer.labels, answer.teaching, len(answer.kinds)) == ("000001-aa", 12, 0.3, 0)
    broken = np.full(denoiser.feature_size, np.nan, "<f2").tobytes()
    assert np.isnan((await tastes(world).judge(asked(broken))).probabilities[0])


async def test_the_kinds_of_a_taste_are_named_once_the_labels_say_so(
    world: World, denoiser: Denoiser, learnt: Adapter
) -> None:
    answer = await tastes(world).judge(asked(kinds=True))
    assert (answer.revision, answer.labels, origins(answer)) == ("", 0, {Kind.ORIGIN_BACKBONE})
    await commit(world, learnt)
    answer = await tastes(world).judge(asked(kinds=True))
    assert origins(answer) >= {Kind.ORIGIN_DRAWN, Kind.ORIGIN_LIKED}
    for origin in origins(answer):
        mine = [each for each in answer.kinds if each.origin == origin]
        assert sum(each.share for each in mine) == pytest.approx(1.0)
        assert all(len(each.direction) == 2 * denoiser.feature_size for each in mine)
    expected = kinds(learnt.head, learnt.replay.features, learnt.replay.grades, denoiser.pool).drawn
    drawn = [np.frombuffer(each.direction, "<f2") for each in answer.kinds if each.origin == Kind.ORIGIN_DRAWN]
    np.testing.assert_allclose(np.stack(drawn), expected.directions.numpy(), atol=1e-3)


async def test_without_a_head_only_likes_are_known(world: World, learnt: Adapter) -> None:
    await commit(world, learnt, head=None)
    answer = await tastes(world).judge(asked(bytes(2 * world.denoiser.feature_size), kinds=True))
    assert (answer.revision, answer.labels, len(answer.probabilities)) == ("000001-aa", 0, 0)
    assert origins(answer) == {Kind.ORIGIN_LIKED, Kind.ORIGIN_BACKBONE}


async def test_a_damaged_state_leaves_the_head(world: World, learnt: Adapter) -> None:
    await commit(world, learnt, spoil=lambda files: {**files, STATE_FILE: files[STATE_FILE][:-1] + b"x"})
    answer = await tastes(world).judge(asked(kinds=True))
    assert answer.labels == 12
    assert Kind.ORIGIN_LIKED not in origins(answer)
    assert Kind.ORIGIN_DRAWN in origins(answer)


async def test_kinds_go_with_the_adapter(world: World, learnt: Adapter) -> None:
    await commit(world, learnt)
    room = tastes(world)
    await room.judge(asked(kinds=True))
    assert len(room._kinds) == 1
    await world.users.delete(ANN)
    with pytest.raises(UserDeleted):
        await room.judge(asked(kinds=True))
    assert len(room._kinds) == 0


async def test_the_engine_refuses_what_no_gateway_sends(world: World) -> None:
    good = bytes(2 * world.denoiser.feature_size)
    for request in (
        asked(*[good] * (MAX_JUDGED + 1)),
        asked(good[:-1]),
        asked(good, user=UserKey("t", "")),
        asked(good, user=UserKey("x" * 129, "u")),
    ):
        with pytest.raises(InvalidRequest):
            await tastes(world).judge(request)


async def test_embeddings_of_another_encoder_are_told_from_those_of_no_gateway(world: World) -> None:
    for request in (asked(kinds=True, encoder="another"), asked(b"of another size", encoder="another")):
        with pytest.raises(EncoderChanged, match="another"):
            await tastes(world).judge(request)
