"""Writes the reference pages made from code; with --check only says what is out of date."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from papa_serving import metrics
from papa_serving.cli.configuration import fields
from papa_serving.settings import Settings
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase
from pydantic import SecretStr

from protos import reference

FOLDER = Path(__file__).parent
KINDS = {Counter: "counter", Gauge: "gauge", Histogram: "histogram"}

METRICS = """# Metrics

Every metric of the product, generated from papa_serving/metrics.py (`make generated`). Base units, and never a label
that names a user or a tenant: the number of series does not grow with them. A gateway serves those of its machine at
`metrics.host:metrics.port` under `/metrics`, and beside Ray's workers `papa metrics` does. Histograms have `_bucket`,
`_sum` and `_count` series. Revisions that a generator loads are `papa_adapter_lookups_total{tier="store"}`.

The `cohort` of a label is how many its user had given, with that one. The share of likes by
cohort says whether users like more, the more they have taught the service. It compares those who stayed with all who
came, and who likes nothing may leave early.

| metric | kind | labels | meaning |
|---|---|---|---|
"""
SETTINGS = """# Settings

Generated from papa_serving/settings/schema.py (`make generated`). A setting comes from papa.toml (`[trainer]`,
`min_labels = 5`), then from the environment (`PAPA_TRAINER__MIN_LABELS=5`), then from a flag
(`--set trainer.min_labels=5`); on Kubernetes from the chart's value `config.trainer.min_labels`, except for those that
the chart decides (helm/papa/README.md).
`papa config show` prints what is in effect, `papa config validate` checks it. A `PAPA_*` variable that names no setting
is a warning, an unknown name in a file or a flag an error ([command-line.md](command-line.md#settings-and-variables)).

| setting | default | meaning |
|---|---|---|
"""


def metric_rows() -> Iterator[str]:
    """One row a metric, in the order of the file."""
    for each in vars(metrics).values():
        if isinstance(each, MetricWrapperBase):
            (described,) = each.describe()
            name = described.name + ("_total" if isinstance(each, Counter) else "")
            labels = ", ".join(f"`{label}`" for label in each._labelnames) or "–"
            yield f"| `{name}` | {KINDS[type(each)]} | {labels} | {described.documentation} |"


def setting_rows() -> Iterator[str]:
    """One row a setting; values that are secret or absent have no default."""
    for name, info, value in fields(Settings.model_construct(**_defaults())):
        shown = "" if value is None or isinstance(value, SecretStr) else f"`{json.dumps(value, default=str)}`"
        yield f"| `{name}` | {shown} | {info.description or ''} |"


def notebook(page: Path) -> str:
    """The Python of a page as a notebook: a cell for each part between two empty lines (nbformat 4.5)."""
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    title = f"The first script of [{page.name}](../{page.name}), written by `make generated`."
    texts = [("markdown", title), *(("code", part.strip("\n")) for part in re.split(r"\n\n\n", code))]
    cells = [
        {
            "cell_type": kind, "id": f"part-{number}", "metadata": {}, "source": text.splitlines(keepends=True),
            **({"execution_count": None, "outputs": []} if kind == "code" else {}),
        }
        for number, (kind, text) in enumerate(texts)
    ]  # fmt: skip
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return json.dumps(
        {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}, indent=1
    )


def _defaults() -> dict[str, object]:
    """The defaults in the schema, independent of this process's environment."""
    return {name: info.default for name, info in Settings.model_fields.items()}


if __name__ == "__main__":
    pages = {
        FOLDER / "metrics.md": METRICS + "\n".join(metric_rows()) + "\n",
        FOLDER / "settings.md": SETTINGS + "\n".join(setting_rows()) + "\n",
        FOLDER / "reference" / "protos.md": reference(),
        FOLDER / "examples" / "first_steps.ipynb": notebook(FOLDER / "researcher-guide.md") + "\n",
    }
    stale = {path: text for path, text in pages.items() if not path.exists() or path.read_text() != text}
    if "--check" in sys.argv:
        sys.exit("\n".join(f"out of date, run `make generated`: {path}" for path in stale) or 0)
    for path, text in stale.items():
        path.write_text(text)
        print(f"wrote {path}")
