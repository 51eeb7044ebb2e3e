"""The documentation site builds without a warning, and is whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-d", str(tmp_path / "trees")]
    done = subprocess.run(
        [*command, "docs", str(tmp_path / "site")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for page in ("index", "quickstart", "reference/protos", "reference/client", "reference/library", "runbooks/README"):
        assert (tmp_path / "site" / f"{page}.html").is_file()
    contract = (tmp_path / "site" / "reference" / "protos.html").read_text()
    assert "SubmitFeedback" in contract
    assert "papa.objective.bounded_likes_loss" in (tmp_path / "site" / "reference" / "library.html").read_text()
