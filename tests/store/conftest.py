"""The state fixtures, by name."""

from tests.store.support import backend, open_backend, raw, redis_backend, redis_cluster, redis_server, user

__all__ = ["backend", "open_backend", "raw", "redis_backend", "redis_cluster", "redis_server", "user"]
