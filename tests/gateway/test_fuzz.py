"""Random and mutated messages: every answer is a message or a typed error, and the gateway lives on."""

from __future__ import annotations

import random

import grpc
import pytest

from services.stubs.serving.v1 import feedback_pb2, generation_pb2, types_pb2, user_pb2
from tests.gateway.service import Refusal, Service

ALICE = types_pb2.User(tenant="shop", user="alice")
EVENT = feedback_pb2.FeedbackEvent(event_id="e", user=ALICE, item_id="i", grade=0.5)
METHODS = {
    "GenerationService/Generate": generation_pb2.GenerateRequest(user=ALICE, count=2, seed=1, steps=3, revision="r"),
    "GenerationService/StreamGenerate": generation_pb2.StreamGenerateRequest(user=ALICE, count=2, exploration=0.5),
    "FeedbackService/SubmitFeedback": feedback_pb2.SubmitFeedbackRequest(events=[EVENT, EVENT]),
    "FeedbackService/StreamFeedback": feedback_pb2.StreamFeedbackRequest(event=EVENT),
    "UserService/GetUser": user_pb2.GetUserRequest(user=ALICE),
    "UserService/ListRevisions": user_pb2.ListRevisionsRequest(user=ALICE, page_size=3, page_token="t"),
    "UserService/RollbackAdapter": user_pb2.RollbackAdapterRequest(user=ALICE, revision="r"),
    "UserService/ResetUser": user_pb2.ResetUserRequest(user=ALICE),
}


def mutated(data: bytes, chance: random.Random) -> bytes:
    if chance.random() < 0.2:
        return chance.randbytes(chance.randrange(64))
    changed = bytearray(data)
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(3):
            case 0:
                changed[at : at + 1] = chance.randbytes(1)
            case 1:
                changed[at:at] = chance.randbytes(chance.randrange(8))
            case 2:
                del changed[at : at + chance.randrange(8)]
    return bytes(changed)


@pytest.mark.parametrize("method", METHODS)
async def test_whatever_comes_gets_an_answer(service: Service, method: str) -> None:
    chance, path = random.Random(method), f"/papa.serving.v1.{method}"
    seed = METHODS[method].SerializeToString()
    outcomes = set()
    for _ in range(80):
        data = mutated(seed, chance)
        try:
            match method:
                case "FeedbackService/StreamFeedback":
                    async for _ in service.channel.stream_stream(path)(iter([data])):
                        pass
                case "GenerationService/StreamGenerate":
                    async for _ in service.channel.unary_stream(path)(data):
                        pass
                case _:
                    await service.channel.unary_unary(path)(data)
            outcomes.add("OK")
        except grpc.aio.AioRpcError as failure:
            refused = Refusal(failure)
            assert refused.code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
            outcomes.add(refused.reason)
    assert "INVALID_REQUEST" in outcomes
    assert len(outcomes) > 1
    assert (await service.user.GetUser(user_pb2.GetUserRequest(user=ALICE))).HasField("state")
