"""Which settings are sent to Ray's workers, and which secrets the workers read themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
from papa_serving.generator import deployment as generator
from papa_serving.settings import CatalogueSettings, ClientSettings, GeneratorSettings, RedisSettings, Settings
from papa_serving.settings.tracing import TracingSettings
from papa_serving.settings.workers import absolute, with_engine_token, with_secrets, without_secrets
from papa_serving.trainer import deployment as trainer
from papa_serving.watched_file import current_secret
from pydantic import SecretStr
from ray import cloudpickle

CANARY = "canary-51c0-secret"
PLACE = "redis.example:6379/0"


def settings(folder: Path, **redis: object) -> Settings:
    client = ClientSettings(token=SecretStr(CANARY))
    catalogue = CatalogueSettings(url=f"redis://:{CANARY}@catalogues.example", password=SecretStr(CANARY))
    return Settings(data_dir=folder, redis=RedisSettings.model_validate(redis), client=client, catalogue=catalogue)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({"url": f"redis://:{CANARY}@{PLACE}"}, f"redis://{PLACE}"),
        ({"url": f"rediss://papa:{CANARY}@{PLACE}?ssl_ca_certs=/ca"}, f"rediss://papa@{PLACE}?ssl_ca_certs=/ca"),
        ({"url": f"redis://papa@{PLACE}", "password": CANARY}, f"redis://papa@{PLACE}"),
        ({"url": f"redis://:a@{CANARY}@{PLACE}"}, f"redis://{PLACE}"),
        ({"url": f"redis://{PLACE}?db=1&password={CANARY}"}, f"redis://{PLACE}?db=1"),
    ],
)
def test_no_secret_is_in_the_arguments_of_an_application(
    tmp_path: Path, given: dict[str, str], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = settings(tmp_path, **given)
    for room in (generator, trainer):
        assert CANARY.encode() not in cloudpickle.dumps(room.application(mine))
    bare = without_secrets(mine)
    assert bare.redis.url == url
    with pytest.raises(ValueError, match="PAPA_REDIS__PASSWORD"):
        with_secrets(bare)
    for name, value in (("PAPA_REDIS__URL", f"redis://:{CANARY}@elsewhere"), ("PAPA_REDIS__PASSWORD", CANARY)):
        with monkeypatch.context() as environment:
            environment.setenv(name, value)
            found = with_secrets(bare)
        assert found.redis.password == SecretStr(CANARY)
        assert found.redis.url == url


def test_secret_options_of_the_url_come_from_the_workers_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"rediss://:{CANARY}@{PLACE}?ssl_password={CANARY}"
    bare = without_secrets(settings(tmp_path, url=url))
    assert CANARY not in bare.redis.url
    monkeypatch.setenv("PAPA_REDIS__URL", url)
    found = with_secrets(bare).redis
    assert (found.url, found.password) == (f"rediss://{PLACE}?ssl_password={CANARY}", SecretStr(CANARY))


def test_a_url_whose_secret_is_in_doubt_does_not_travel(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"redis\.url: not understood") as refused:
        without_secrets(settings(tmp_path, url=f"redis://:a/{CANARY}@{PLACE}"))
    assert CANARY not in str(refused.value)


def test_the_headers_for_a_collector_are_a_secret_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "headers").write_text(f"authorization={CANARY}\n")
    tracing = TracingSettings(headers=SecretStr(f"authorization={CANARY}"))
    mine = settings(tmp_path, url=f"redis://{PLACE}").model_copy(update={"tracing": tracing})
    for room in (generator, trainer):
        assert CANARY.encode() not in cloudpickle.dumps(room.application(mine))
    bare = without_secrets(mine)
    with pytest.raises(ValueError, match="PAPA_TRACING__HEADERS"):
        with_secrets(bare)
    filed = bare.tracing.model_copy(update={"headers_file": tmp_path / "headers"})
    there = with_secrets(bare.model_copy(update={"tracing": filed})).tracing
    assert (there.headers, there.headers_file) == (None, tmp_path / "headers"), "read at each export"
    with pytest.raises(ValueError, match="PAPA_TRACING__HEADERS"):
        with_secrets(bare.model_copy(update={"tracing": filed.model_copy(update={"headers_file": tmp_path / "no"})}))
    monkeypatch.setenv("PAPA_TRACING__HEADERS", f"authorization={CANARY}")
    assert with_secrets(bare).tracing == tracing


def test_the_engine_token_is_a_secret_that_trainers_need_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = settings(tmp_path, url=f"redis://{PLACE}")
    mine = mine.model_copy(update={"generator": GeneratorSettings(token=SecretStr(CANARY))})
    for room in (generator, trainer):
        assert CANARY.encode() not in cloudpickle.dumps(room.application(mine))
    bare = with_secrets(without_secrets(mine))
    with pytest.raises(ValueError, match="PAPA_GENERATOR__TOKEN"):
        with_engine_token(bare)
    (tmp_path / "token").write_text(f"{CANARY}\n")
    filed = bare.generator.model_copy(update={"token_file": tmp_path / "token"})
    there = with_engine_token(bare.model_copy(update={"generator": filed})).generator
    assert current_secret(there.token, there.token_file)() == CANARY
    monkeypatch.setenv("PAPA_GENERATOR__TOKEN", CANARY)
    assert with_engine_token(bare).generator.token == SecretStr(CANARY)


def test_a_file_with_the_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "password"
    path.write_text(f"{CANARY}\n")
    mine = settings(tmp_path, url=f"redis://{PLACE}", password_file=path)
    there = with_secrets(without_secrets(mine)).redis
    assert (there.password, there.password_file) == (None, path), "read when a connection logs in"
    monkeypatch.setenv("PAPA_REDIS__PASSWORD", "of this node")
    assert with_secrets(without_secrets(mine)).redis.password == SecretStr("of this node")
    monkeypatch.delenv("PAPA_REDIS__PASSWORD")
    path.unlink()
    with pytest.raises(ValueError, match="PAPA_REDIS__PASSWORD"):
        with_secrets(without_secrets(mine))
    with pytest.raises(ValueError, match="password_file cannot be read"):
        settings(tmp_path, password_file=tmp_path / "nothing")
    path.touch()
    with pytest.raises(ValueError, match="password_file is empty"):
        settings(tmp_path, password_file=path)


def test_files_are_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("secret").write_text(CANARY)
    mine = absolute(settings(tmp_path, url=f"redis://{PLACE}", password_file="secret"))
    assert mine.redis.password_file == tmp_path / "secret"


def test_without_a_password_nothing_is_looked_for(tmp_path: Path) -> None:
    mine = settings(tmp_path, url=f"redis://{PLACE}")
    assert with_secrets(without_secrets(mine)).redis == mine.redis
