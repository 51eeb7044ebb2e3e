"""A page of docs/results that a long run of tests writes about itself."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "docs" / "results"


def record(name: str, title: str, command: str, found: str) -> None:
    """Records a printed result with the command, the machine and the date."""
    model = next(
        (line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), os.uname().machine
    )
    when = datetime.now(UTC).date().isoformat()
    machine = f"{model}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} from everything on it; {when}"
    (RESULTS / f"{name}.md").write_text(f"# {title}\n\nWritten by `{command}`. {machine}.\n\n```text\n{found}\n```\n")


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
