"""What the Serve applications make of the settings before they hand them to processes elsewhere."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from services.settings import Settings

_METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def settings_of_environment(application: str, args: Mapping[str, object]) -> Settings:
    """The settings of an application, from PAPA_* variables alone. Raises ValueError when `args` is not empty."""
    if args:
        raise ValueError(f"the {application} takes its configuration from PAPA_* variables, not from {sorted(args)}")
    return Settings()


def absolute(settings: Settings) -> Settings:
    """The same settings with absolute paths: a worker's folder need not be the caller's."""
    store = settings.store
    if store.path:
        store = store.model_copy(update={"path": store.path.absolute()})
    backbone = settings.backbone
    if Path(backbone).is_dir():
        backbone = str(Path(backbone).absolute())
    changes = {"data_dir": settings.data_dir.absolute(), "store": store, "backbone": backbone}
    return settings.model_copy(update=changes)


def metrics_environment(settings: Settings) -> dict[str, str]:
    """Where a worker's metrics go: the caller's folder, or the one of the data folder."""
    return {_METRICS_VARIABLE: os.environ.get(_METRICS_VARIABLE) or str(settings.data_dir / "metrics")}
