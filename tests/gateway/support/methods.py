"""Every RPC of the public contract, from its descriptors: a new one that this file does not know fails the tests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from papa_serving.stubs.serving.v1 import (
    catalogue_pb2,
    dead_letter_pb2,
    experiment_pb2,
    feedback_pb2,
    generation_pb2,
    info_pb2,
    recommend_pb2,
    types_pb2,
    user_pb2,
)

MODULES = (generation_pb2, feedback_pb2, user_pb2, dead_letter_pb2, recommend_pb2)
User = types_pb2.User

OF_TENANT: dict[str, Message] = {
    "PutItems": catalogue_pb2.PutItemsRequest(
        item=catalogue_pb2.NewItem(
            item_id="shoe", embedding=catalogue_pb2.Embedding(values=[1.0, 2.0, 3.0, 4.0], encoder="the-encoder")
        )
    ),
    "DeleteItems": catalogue_pb2.DeleteItemsRequest(item_ids=["shoe"]),
    "GetItem": catalogue_pb2.CatalogueServiceGetItemRequest(item_id="shoe"),
    "ListItems": catalogue_pb2.ListItemsRequest(page_size=3),
    "ListCatalogues": catalogue_pb2.ListCataloguesRequest(),
}
"""A request that passes validation, for each method of CatalogueService; test_catalogue.py has what they refuse."""

WITHOUT_USER = {
    "InfoService/GetServerInfo",
    "UserService/ListUsers",
    "ExperimentService/GetReport",
    *(f"CatalogueService/{name}" for name in OF_TENANT),
}
"""Methods that name no user: no user's rate is a matter of theirs."""


def like(user: User) -> feedback_pb2.FeedbackEvent:
    return feedback_pb2.FeedbackEvent(event_id="e", user=user, item_id="i", grade=1.0)


FILES = [
    user_pb2.AdapterFile(name=name, data=b"x", sha256=hashlib.sha256(b"x").hexdigest())
    for name in ("adapter_config.json", "adapter_model.safetensors")
]

GOOD: dict[str, Callable[[User], Message]] = {
    "Generate": lambda user: generation_pb2.GenerateRequest(user=user, count=2, seed=1, steps=3, revision="r"),
    "StreamGenerate": lambda user: generation_pb2.StreamGenerateRequest(user=user, count=2, exploration=0.5),
    "GenerateMany": lambda user: generation_pb2.GenerateManyRequest(
        requests=[generation_pb2.GenerateRequest(user=user, count=2)]
    ),
    "GetItem": lambda user: generation_pb2.GetItemRequest(user=user, item_id="g-0"),
    "SubmitFeedback": lambda user: feedback_pb2.SubmitFeedbackRequest(events=[like(user)]),
    "StreamFeedback": lambda user: feedback_pb2.StreamFeedbackRequest(event=like(user)),
    "GetUser": lambda user: user_pb2.GetUserRequest(user=user),
    "WatchUser": lambda user: user_pb2.WatchUserRequest(user=user),
    "ListRevisions": lambda user: user_pb2.ListRevisionsRequest(user=user, page_size=3),
    "RollbackAdapter": lambda user: user_pb2.RollbackAdapterRequest(user=user, revision="000001-aa"),
    "ResetUser": lambda user: user_pb2.ResetUserRequest(user=user),
    "DeleteUser": lambda user: user_pb2.DeleteUserRequest(user=user),
    "MergeUsers": lambda user: user_pb2.MergeUsersRequest(
        from_user=user, into_user=User(tenant=user.tenant, user="member")
    ),
    "ListDeadLetters": lambda user: dead_letter_pb2.ListDeadLettersRequest(user=user, page_size=3),
    "RetryDeadLetter": lambda user: dead_letter_pb2.RetryDeadLetterRequest(user=user, letter_id="1-1"),
    "DropDeadLetter": lambda user: dead_letter_pb2.DropDeadLetterRequest(user=user, letter_id="1-1"),
    "Recommend": lambda user: recommend_pb2.RecommendRequest(user=user, count=2),
    "Rank": lambda user: recommend_pb2.RankRequest(user=user, item_ids=["shoe"]),
    "ExportUser": lambda user: user_pb2.ExportUserRequest(user=user),
    "ImportAdapter": lambda user: user_pb2.ImportAdapterRequest(user=user, backbone="b" * 64, files=FILES),
}
"""A request that passes validation, for each method that names a user."""


@dataclass(frozen=True)
class Method:
    """One RPC."""

    descriptor: MethodDescriptor

    @property
    def name(self) -> str:
        return str(self.descriptor.name)

    @property
    def short(self) -> str:
        return f"{self.descriptor.containing_service.name}/{self.name}"

    @property
    def path(self) -> str:
        return f"/{self.descriptor.containing_service.full_name}/{self.name}"

    def good(self, user: User) -> Message:
        if self.short.startswith("CatalogueService/"):
            return OF_TENANT[self.name]
        if self.name in GOOD:
            return GOOD[self.name](user)
        return message_factory.GetMessageClass(self.descriptor.input_type)()

    def call(self, channel: grpc.aio.Channel, messages: Iterable[bytes], **options: Any) -> Any:
        """Starts it with raw bytes; the answers are raw bytes as well."""
        if self.descriptor.client_streaming:
            return channel.stream_stream(self.path)(iter(messages), **options)
        (message,) = messages
        kind = channel.unary_stream if self.descriptor.server_streaming else channel.unary_unary
        return kind(self.path)(message, **options)

    async def first(self, channel: grpc.aio.Channel, *messages: Message, **options: Any) -> Any:
        """The first answer; the call is ended behind it."""
        while True:
            try:
                return await self._first(channel, *messages, **options)
            except grpc.aio.AioRpcError as failure:
                if not hidden(failure):
                    raise

    async def _first(self, channel: grpc.aio.Channel, *messages: Message, **options: Any) -> Any:
        call = self.call(channel, [message.SerializeToString() for message in messages], **options)
        data = await anext(aiter(call)) if self.descriptor.server_streaming else await call
        call.cancel()
        return message_factory.GetMessageClass(self.descriptor.output_type).FromString(data)


def refused_within(response: Any) -> str:
    """The reason of the error that a message of a stream carries, "" for none and for messages that carry none."""
    if isinstance(response, feedback_pb2.StreamFeedbackResponse):
        return response.outcome.error.reason
    return response.error.reason if isinstance(response, generation_pb2.GenerateManyResponse) else ""


def hidden(failure: grpc.aio.AioRpcError) -> bool:
    """Whether grpc.aio's client has put an error of its own in place of the server's status.

    It does so when a message is still being sent on a stream that the server has ended by then.
    """
    return failure.code() is grpc.StatusCode.INTERNAL and failure.details() == "Internal error from Core"


def methods_of(*modules: Any) -> list[Method]:
    return [
        Method(method)
        for module in modules
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]


METHODS = [method for method in methods_of(*MODULES) if method.short not in WITHOUT_USER]
"""Those that name a user."""
EVERY_METHOD = methods_of(*MODULES, catalogue_pb2, experiment_pb2, info_pb2)
