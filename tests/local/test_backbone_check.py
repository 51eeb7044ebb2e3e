"""The store of another backbone is refused before anything is loaded, with what to do instead."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from papa_serving.contracts.items import BackboneInfo
from papa_serving.local import backbone_check
from papa_serving.local.backbone_check import check_store, loaded_hashes
from papa_serving.local.failure import Failure
from papa_serving.local.redis_process import RedisProcess
from papa_serving.settings import RedisSettings, Settings
from papa_serving.store import open_items

from papa.denoiser import load_denoiser
from tests.papa.support import edit, save_tiny_backbone

pytestmark = pytest.mark.redis
FASHION = BackboneInfo("2-" + "f" * 64, "fashion_mnist", (1, 28, 28))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with RedisProcess(tmp_path_factory.mktemp("redis")) as process:
        yield process


@pytest.fixture
def settings(server: RedisProcess, tmp_path: Path) -> Settings:
    redis = RedisSettings(url=server.url, prefix=tmp_path.name)
    return Settings(redis=redis, data_dir=tmp_path, backbone="fashion_mnist")


async def _publish(settings: Settings, info: BackboneInfo) -> None:
    items = open_items(settings)
    try:
        await items.publish_backbone(info)
    finally:
        await items.close()


def publish(settings: Settings, info: BackboneInfo) -> None:
    asyncio.run(_publish(settings, info))


def test_an_empty_store_and_the_shipped_backbone_that_it_knows_load_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbone_check, "loaded_hashes", lambda backbone: pytest.fail("loaded"))
    check_store(settings, embedded=True)
    publish(settings, FASHION)
    check_store(settings, embedded=True)


@pytest.mark.parametrize(
    ("embedded", "remedy"),
    [(True, "apart: --data-dir"), (False, "apart: --data-dir and PAPA_REDIS__PREFIX")],
)
def test_another_backbone_is_refused_with_the_name_of_the_one_that_fits(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, embedded: bool, remedy: str
) -> None:
    monkeypatch.setattr(backbone_check, "loaded_hashes", lambda backbone: ("2-" + "a" * 64, "a"))
    publish(settings, FASHION)
    with pytest.raises(Failure) as refused:
        check_store(settings.model_copy(update={"backbone": "mnist"}), embedded)
    assert "backbone fashion_mnist (2-ffffffffffff), whose adapters do not fit mnist" in refused.value.message
    assert refused.value.hint == f"start with --backbone fashion_mnist, or keep the other's data {remedy}"


def test_a_folder_is_the_same_backbone_by_any_name_until_it_is_trained_anew(settings: Settings, tmp_path: Path) -> None:
    folder = save_tiny_backbone(tmp_path / "backbone")
    hashes = loaded_hashes(str(folder))
    assert hashes == load_denoiser(str(folder)).hashes
    publish(settings, BackboneInfo(hashes[0], "a former path", (1, 8, 8)))
    here = settings.model_copy(update={"backbone": str(folder)})
    check_store(here, embedded=True)
    edit(folder / "scheduler" / "scheduler_config.json", beta_end=0.03)
    with pytest.raises(Failure, match="do not fit"):
        check_store(here, embedded=True)


def test_a_folder_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(Failure, match=r"cannot be loaded: .*unet/config\.json is missing"):
        loaded_hashes(str(tmp_path))
