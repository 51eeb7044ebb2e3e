"""PAPA: online personalised preference alignment of a diffusion model, as a library (arXiv 2607.00486).

The names below are what most research needs; they are imported when they are first used, so that `import papa` costs
nothing and does not import torch. The other modules hold the parts: the noise schedule, slot LoRA, the objective, the
samplers, the files of a revision and the measures of alignment.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from papa.adapter import Adapter, new_adapter
    from papa.config import UpdateConfig
    from papa.denoiser import load_denoiser
    from papa.sampler import sample
    from papa.updating import Labels, update, update_many

    __version__: str

__all__ = [
    "Adapter",
    "Labels",
    "UpdateConfig",
    "__version__",
    "load_denoiser",
    "new_adapter",
    "sample",
    "update",
    "update_many",
]

_MODULES = {
    "Adapter": "papa.adapter",
    "new_adapter": "papa.adapter",
    "UpdateConfig": "papa.config",
    "load_denoiser": "papa.denoiser",
    "sample": "papa.sampler",
    "Labels": "papa.updating",
    "update": "papa.updating",
    "update_many": "papa.updating",
}


def __getattr__(name: str) -> Any:
    """Imports a public name from its module (PEP 562)."""
    if name == "__version__":
        return version("papa-serving")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
