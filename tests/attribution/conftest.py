"""The state fixtures, and a gateway over memory, by name."""

from tests.gateway.support.fixtures import service, unstarted
from tests.store.support import backend, open_backend, raw, redis_backend, redis_cluster, redis_server, user

__all__ = [
    "backend", "open_backend", "raw", "redis_backend", "redis_cluster", "redis_server", "service", "unstarted", "user",
]  # fmt: skip
