"""The names that `import papa` exports."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from importlib.metadata import version

import pytest

import papa


def test_every_public_name_is_imported_from_its_module() -> None:
    for name in set(papa.__all__) - {"__version__"}:
        public = getattr(papa, name)
        assert getattr(import_module(public.__module__), name) is public
        assert name in dir(papa)
    assert papa.__version__ == version("papa-serving")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        papa.nothing  # noqa: B018


def test_a_public_name_is_not_hidden_by_a_module_of_the_same_name() -> None:
    program = "import papa, pkgutil; print({m.name for m in pkgutil.iter_modules(papa.__path__)} & set(papa.__all__))"
    assert _output(program) == "set()"


def test_import_papa_does_not_import_torch() -> None:
    assert _output("import papa, sys; papa.__version__; print('torch' in sys.modules)") == "False"


def _output(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
