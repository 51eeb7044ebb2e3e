"""Prepares settings for the processes that the Serve applications start on other machines."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from papa_serving.settings import Settings
from papa_serving.settings.secret_urls import take_apart, with_options

_METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_ELSEWHERE = "in the environment of the worker"


def settings_of_environment(application: str, args: Mapping[str, object]) -> Settings:
    """The settings of an application, from PAPA_* variables alone. Raises ValueError when `args` is not empty."""
    if args:
        raise ValueError(f"the {application} takes its configuration from PAPA_* variables, not from {sorted(args)}")
    return Settings()


def absolute(settings: Settings) -> Settings:
    """Makes paths absolute, because a worker's folder may differ from the caller's."""
    store = settings.store
    if store.path:
        store = store.model_copy(update={"path": store.path.absolute()})
    backbone = settings.backbone
    if Path(backbone).is_dir():
        backbone = str(Path(backbone).absolute())
    changes = {"data_dir": settings.data_dir.absolute(), "store": store, "backbone": backbone}
    return settings.model_copy(update=changes)


def without_secrets(settings: Settings) -> Settings:
    """Removes secrets, so that the settings can be arguments of an actor: Ray stores arguments in readable form.

    Raises ValueError for an ambiguous redis.url.
    """
    redis = settings.redis
    if redis.url:
        try:
            url = take_apart(redis.url)
        except ValueError as error:
            raise ValueError(f"redis.url: {error}") from None
        secret = redis.password is not None or url.has_secret
        redis = redis.model_copy(update={"url": url.bare, "password": SecretStr(_ELSEWHERE) if secret else None})
    client = settings.client.model_copy(update={"token": None})
    generator = settings.generator
    if generator.token is not None:
        generator = generator.model_copy(update={"token": SecretStr(_ELSEWHERE)})
    tracing = settings.tracing
    if tracing.headers is not None:
        tracing = tracing.model_copy(update={"headers": SecretStr(_ELSEWHERE)})
    return settings.model_copy(update={"redis": redis, "client": client, "generator": generator, "tracing": tracing})


def with_secrets(settings: Settings) -> Settings:
    """Adds the secrets that `without_secrets` removed, from this process's environment or files. Raises ValueError.

    It does not add the engine's token; see `with_engine_token`.
    """
    return _with_tracing_headers(_with_redis_password(settings))


def with_engine_token(settings: Settings) -> Settings:
    """Also adds the token of the engine's port, which trainers do not need. Raises ValueError."""
    if not _is_elsewhere(settings.generator.token):
        return settings
    given = os.environ.get("PAPA_GENERATOR__TOKEN", "")
    hint = "generator.token: set PAPA_GENERATOR__TOKEN or generator.token_file there"
    generator = settings.generator.model_copy(update={"token": _known(given, settings.generator.token_file, hint)})
    return settings.model_copy(update={"generator": generator})


def _with_redis_password(settings: Settings) -> Settings:
    if not _is_elsewhere(settings.redis.password):
        return settings
    given = os.environ.get("PAPA_REDIS__URL", "")
    url = take_apart(given) if given else None
    here = os.environ.get("PAPA_REDIS__PASSWORD") or (url.password if url else "")
    hint = "the password of Redis: set PAPA_REDIS__PASSWORD or redis.password_file there"
    password = _known(here, settings.redis.password_file, hint)
    mine = with_options(settings.redis.url, url.options if url else ())
    redis = settings.redis.model_copy(update={"url": mine, "password": password})
    return settings.model_copy(update={"redis": redis})


def _with_tracing_headers(settings: Settings) -> Settings:
    if not _is_elsewhere(settings.tracing.headers):
        return settings
    given = os.environ.get("PAPA_TRACING__HEADERS", "")
    hint = "tracing.headers: set PAPA_TRACING__HEADERS or tracing.headers_file there"
    headers = _known(given, settings.tracing.headers_file, hint)
    return settings.model_copy(update={"tracing": settings.tracing.model_copy(update={"headers": headers})})


def _known(given: str, file: Path | None, hint: str) -> SecretStr:
    """Returns the given secret, else the content of `file`. Raises ValueError with the `hint` if both are missing."""
    secret = given or (file.read_text().strip() if file is not None else "")
    if not secret:
        raise ValueError(f"this node does not know {hint}")
    return SecretStr(secret)


def _is_elsewhere(secret: SecretStr | None) -> bool:
    return secret is not None and secret.get_secret_value() == _ELSEWHERE


def metrics_environment(settings: Settings) -> dict[str, str]:
    """The variable with the folder of a worker's metrics: the caller's folder, or the one in the data folder."""
    return {_METRICS_VARIABLE: os.environ.get(_METRICS_VARIABLE) or str(settings.data_dir / "metrics")}
