"""Writes values.schema.json and README.md of the chart; with --check only says what is out of date."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml
from chart_readme import readme
from chart_schema import values_schema

CHART = Path(__file__).parent / "papa"


def files() -> dict[Path, str]:
    """The content of each generated file."""
    text = (CHART / "values.yaml").read_text()
    values = yaml.safe_load(text)
    oldest = yaml.safe_load((CHART / "Chart.yaml").read_text())["annotations"]["papa/kuberay"].removeprefix(">=")
    return {
        CHART / "values.schema.json": json.dumps(values_schema(values), indent=2) + "\n",
        CHART / "README.md": readme(text, values, oldest),
    }


if __name__ == "__main__":
    stale = [path for path, content in files().items() if not path.exists() or path.read_text() != content]
    if "--check" in sys.argv:
        sys.exit("\n".join(f"out of date, run `make generated`: {path}" for path in stale) or 0)
    for path in stale:
        path.write_text(files()[path])
        print(f"wrote {path}")
