"""No other user of the machine can read the files of a local Ray, or have them copied."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from papa_serving.local import ray_cluster
from papa_serving.local.failure import Failure
from papa_serving.local.ray_cluster import _clear_up_after_a_kill, _keep_logs, _private_folder


@pytest.fixture
def private(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A Ray's folder after a kill, with its logs linked from the data folder."""
    folder = Path(tempfile.mkdtemp(prefix="papa-ray-", dir=tmp_path))
    (folder / "r" / "session_1" / "logs").mkdir(parents=True)
    (folder / "r" / "session_1" / "logs" / "raylet.out").write_text("ray said")
    (folder / "r" / "session_latest").symlink_to(folder / "r" / "session_1")
    (tmp_path / "logs").symlink_to(folder / "r" / "session_latest" / "logs")
    return folder


def test_logs_are_kept_and_the_folder_goes(private: Path, tmp_path: Path) -> None:
    _clear_up_after_a_kill(tmp_path / "logs")
    assert (tmp_path / "logs" / "raylet.out").read_text() == "ray said"
    assert not private.exists()


def test_a_planted_link_has_nothing_copied(private: Path, tmp_path: Path) -> None:
    (tmp_path / "redis" / "logs").mkdir(parents=True)
    (tmp_path / "redis" / "logs" / "appendonly.aof").write_text("likes")
    (private / "r" / "session_latest").unlink()
    (private / "r" / "session_latest").symlink_to(tmp_path / "redis")
    _keep_logs(tmp_path / "logs")
    assert not (tmp_path / "logs").exists()


def test_a_link_among_the_logs_stays_a_link(private: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("likes")
    (private / "r" / "session_1" / "logs" / "odd").symlink_to(tmp_path / "secret")
    _keep_logs(tmp_path / "logs")
    assert (tmp_path / "logs" / "odd").is_symlink()


def test_a_folder_that_others_could_write_to_is_not_touched(private: Path, tmp_path: Path) -> None:
    private.chmod(0o777)
    _clear_up_after_a_kill(tmp_path / "logs")
    assert not (tmp_path / "logs").exists()
    assert (private / "r" / "session_1" / "logs" / "raylet.out").exists()


def test_a_long_temporary_folder_is_gone_round(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 68)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    made = _private_folder()
    made.rmdir()
    assert made.parent == Path("/tmp")
    assert len(str(made / "r/session_2026-11-27_05-20-40_123456_1234567/sockets/plasma_store")) <= 107
    monkeypatch.setattr(ray_cluster.os, "access", lambda *_: False)
    with pytest.raises(Failure, match="too long a path"):
        _private_folder()
