"""Prepares settings for the processes that the Serve applications start on other machines."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import SecretStr

from papa_serving.settings import Settings
from papa_serving.settings.secret_urls import take_apart, with_options
from papa_serving.settings.section import Section

_METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_ELSEWHERE = "in the environment of the worker"

S = TypeVar("S", bound=Section)


def settings_of_environment(application: str, args: Mapping[str, object]) -> Settings:
    """The settings of an application, from PAPA_* variables alone. Raises ValueError when `args` is not empty."""
    if args:
        raise ValueError(f"the {application} takes its configuration from PAPA_* variables, not from {sorted(args)}")
    return Settings()


def absolute(settings: Settings) -> Settings:
    """Makes paths absolute, because a worker's folder may differ from the caller's."""
    backbone = settings.backbone
    if Path(backbone).is_dir():
        backbone = str(Path(backbone).absolute())
    return settings.model_copy(
        update={
            "data_dir": settings.data_dir.absolute(),
            "backbone": backbone,
            "store": _absolute(settings.store, "path", "credentials"),
            "redis": _absolute(settings.redis, "password_file"),
            "generator": _absolute(settings.generator, "token_file"),
            "tracing": _absolute(settings.tracing, "headers_file"),
        }
    )


def _absolute(section: S, *names: str) -> S:
    paths = {name: getattr(section, name) for name in names}
    return section.model_copy(update={name: path.absolute() for name, path in paths.items() if path is not None})


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
    catalogue = settings.catalogue.model_copy(update={"url": "", "password": None})  # the gateways' alone
    generator = settings.generator
    if generator.token is not None:
        generator = generator.model_copy(update={"token": SecretStr(_ELSEWHERE)})
    tracing = settings.tracing
    if tracing.headers is not None:
        tracing = tracing.model_copy(update={"headers": SecretStr(_ELSEWHERE)})
    sections = {"redis": redis, "client": client, "catalogue": catalogue, "generator": generator, "tracing": tracing}
    return settings.model_copy(update=sections)


def with_secrets(settings: Settings) -> Settings:
    """Adds the secrets that `without_secrets` removed, from this process's environment or files. Raises ValueError.

    It does not add the engine's token; see `with_engine_token`.
    """
    return _with_tracing_headers(_with_redis_password(settings))


def with_engine_token(settings: Settings) -> Settings:
    """Adds the token of the engine's port too, which trainers do not need. Raises ValueError."""
    generator = settings.generator
    if not _is_elsewhere(generator.token) and generator.token_file is None:
        return settings
    hint = "generator.token: set PAPA_GENERATOR__TOKEN or generator.token_file there"
    token = _given_or_in(os.environ.get("PAPA_GENERATOR__TOKEN", ""), generator.token_file, hint)
    return settings.model_copy(update={"generator": generator.model_copy(update={"token": token})})


def _with_redis_password(settings: Settings) -> Settings:
    redis = settings.redis
    if not _is_elsewhere(redis.password) and redis.password_file is None:
        return settings
    given = os.environ.get("PAPA_REDIS__URL", "")
    url = take_apart(given) if given else None
    here = os.environ.get("PAPA_REDIS__PASSWORD", "")
    if not here and redis.password_file is None:
        here = url.password if url else ""
    hint = "the password of Redis: set PAPA_REDIS__PASSWORD or redis.password_file there"
    password = _given_or_in(here, redis.password_file, hint)
    mine = with_options(redis.url, url.options if url else ())
    return settings.model_copy(update={"redis": redis.model_copy(update={"url": mine, "password": password})})


def _with_tracing_headers(settings: Settings) -> Settings:
    if not _is_elsewhere(settings.tracing.headers) and settings.tracing.headers_file is None:
        return settings
    given = os.environ.get("PAPA_TRACING__HEADERS", "")
    hint = "tracing.headers: set PAPA_TRACING__HEADERS or tracing.headers_file there"
    headers = _given_or_in(given, settings.tracing.headers_file, hint)
    return settings.model_copy(update={"tracing": settings.tracing.model_copy(update={"headers": headers})})


def _given_or_in(given: str, file: Path | None, hint: str) -> SecretStr | None:
    """Returns the given secret, or None if `file` holds it: that is read whenever the secret is needed.

    Raises ValueError with the `hint` if both are missing.
    """
    if given:
        return SecretStr(given)
    if file is None or not file.is_file():
        raise ValueError(f"this node does not know {hint}")
    return None


def _is_elsewhere(secret: SecretStr | None) -> bool:
    return secret is not None and secret.get_secret_value() == _ELSEWHERE


def metrics_environment(settings: Settings) -> dict[str, str]:
    """The variable with the folder of a worker's metrics: the caller's folder, or the one in the data folder."""
    return {_METRICS_VARIABLE: os.environ.get(_METRICS_VARIABLE) or str(settings.data_dir / "metrics")}
