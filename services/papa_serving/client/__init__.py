"""The Python client of the service: needs grpc and nothing else.

with Client("127.0.0.1:50051") as client:
    generation = client.generate("alice", 10)
    client.submit_feedback([FeedbackEvent("alice", 1.0, item_id=generation.items[0].item_id)])
    client.wait_for_revision("alice", after=generation.revision)
"""

import importlib.metadata

from papa_serving.client.aio import AsyncClient
from papa_serving.client.connection import Tls
from papa_serving.client.errors import CallFailed, WrongEventLoop
from papa_serving.client.records import (
    AnyOf,
    Between,
    Catalogue,
    CatalogueItem,
    CatalogueList,
    DeadLetter,
    DeletionReceipt,
    FeedbackEvent,
    Generation,
    ImageFormat,
    ImageOptions,
    Item,
    ItemRecord,
    Limits,
    NewItem,
    Outcome,
    PromptReading,
    Put,
    PutOutcome,
    Quotas,
    RankedItem,
    Ranking,
    Reason,
    Recommendation,
    RecommendedItem,
    Revision,
    Sampler,
    ServedBy,
    ServerInfo,
    Timings,
    Usage,
    User,
    UserExport,
    UserGeneration,
    UserState,
)
from papa_serving.client.retry import Retry, Timeouts, request_id
from papa_serving.client.sync import Client
from papa_serving.contracts.errors import (
    BacklogFull,
    CatalogueFull,
    CatalogueNotFound,
    CatalogueUnsupported,
    CredentialExpired,
    DeadlineExceeded,
    EncoderChanged,
    EventIdReused,
    EventNotFound,
    Forbidden,
    GeneratorUnavailable,
    InvalidRequest,
    ItemNotFound,
    Overloaded,
    PapaError,
    QueueFull,
    RateLimited,
    RevisionDamaged,
    RevisionNotFound,
    ShuttingDown,
    StorageUnavailable,
    Unauthenticated,
    UserBacklogFull,
    UserDeleted,
    Violation,
)

__all__ = [
    "AnyOf",
    "AsyncClient",
    "BacklogFull",
    "Between",
    "CallFailed",
    "Catalogue",
    "CatalogueFull",
    "CatalogueItem",
    "CatalogueList",
    "CatalogueNotFound",
    "CatalogueUnsupported",
    "Client",
    "CredentialExpired",
    "DeadLetter",
    "DeadlineExceeded",
    "DeletionReceipt",
    "EncoderChanged",
    "EventIdReused",
    "EventNotFound",
    "FeedbackEvent",
    "Forbidden",
    "Generation",
    "GeneratorUnavailable",
    "ImageFormat",
    "ImageOptions",
    "InvalidRequest",
    "Item",
    "ItemNotFound",
    "ItemRecord",
    "Limits",
    "NewItem",
    "Outcome",
    "Overloaded",
    "PapaError",
    "PromptReading",
    "Put",
    "PutOutcome",
    "QueueFull",
    "Quotas",
    "RankedItem",
    "Ranking",
    "RateLimited",
    "Reason",
    "Recommendation",
    "RecommendedItem",
    "Retry",
    "Revision",
    "RevisionDamaged",
    "RevisionNotFound",
    "Sampler",
    "ServedBy",
    "ServerInfo",
    "ShuttingDown",
    "StorageUnavailable",
    "Timeouts",
    "Timings",
    "Tls",
    "Unauthenticated",
    "Usage",
    "User",
    "UserBacklogFull",
    "UserDeleted",
    "UserExport",
    "UserGeneration",
    "UserState",
    "Violation",
    "WrongEventLoop",
    "__version__",
    "request_id",
]


def __getattr__(name: str) -> str:
    """`__version__`: of the installed distribution, the whole product or the client alone, looked up when asked for."""
    if name == "__version__":
        try:
            return importlib.metadata.version("papa-serving")
        except importlib.metadata.PackageNotFoundError:
            return importlib.metadata.version("papa-serving-client")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
