"""docs/results/alignment.md, its plots and tables, from whatever runs are complete."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from benchmarks.alignment.aggregate import Curve, Loaded, Reached, Records, curve, grouped, reached
from benchmarks.alignment.grid import EXPERIMENTS, LEARNING_RATES, TUNED
from benchmarks.alignment.plots import draw_curves
from benchmarks.alignment.runner import load, raw_file
from benchmarks.alignment.runs import Run
from benchmarks.alignment.targets import targets


def write_report(raw: Path, results: Path) -> Iterator[Path]:
    """Draws every plot that has data and writes the page; yields what it wrote."""
    loaded: dict[str, Loaded] = {name: load(raw, make()) for name, make in EXPERIMENTS.items()}
    results.mkdir(parents=True, exist_ok=True)
    for name, (title, panels) in _figures(loaded).items():
        yield from draw_curves(results / f"{name}.png", title, panels, goal=0.9)
    yield _table_csv(results / "systems.csv", _systems(loaded))
    page = results.parent / "alignment.md"
    page.write_text(_page(loaded, raw))
    yield page


def _figures(loaded: dict[str, Loaded]) -> dict[str, tuple[str, dict[str, dict[str, Curve]]]]:
    """File name → title and panels."""
    figures = {}
    for dataset, label in (("fashion_mnist", "Fashion-MNIST"), ("mnist", "MNIST")):
        systems = {
            name: [records for run, records in runs.items() if run.dataset == dataset]
            for name, runs in _by_system(loaded).items()
        }
        if lines := {name: runs for name, runs in systems.items() if runs and name != "base"}:
            figures[f"success_{dataset}"] = (f"{label}: success over interaction steps", _panels(lines))
        ours = grouped({r: x for r, x in loaded["main"].items() if r.dataset == dataset}, lambda run: _taste(run.taste))
        if ours:
            figures[f"tastes_{dataset}"] = (f"{label}: ours, by taste", _panels(ours))
    for name, title, key in (
        ("ablations", "Without each term, with one term alone", _variant),
        ("lora", "Where LoRA sits, and what of it learns", _variant),
        ("k-sweep", "From which timestep on the adapter works", _variant),
        ("per-step", "Labels per interaction step", lambda run: f"{run.labels} labels"),
        (
            "drift",
            "The taste changes after 15 of 30 steps",
            lambda run: f"{_taste(run.taste)} → {_taste(run.later_taste)}",
        ),
        (
            "active",
            "10 of 40 candidates shown, against the first 10",
            lambda run: "10 of 40" if run.candidates else "first 10",
        ),
        ("noise", "Flipped labels", lambda run: f"{run.system}, {run.flipped:.0%}"),
    ):
        if loaded[name]:
            axis = "labels" if name == "per-step" else "step"
            figures[name] = (title, _panels(grouped(loaded[name], key), axis))
    sweep = {
        run: records
        for run, records in loaded["reference"].items()
        if run.taste == (5, 7, 9) and run.dataset != "mnist"
    }
    if sweep:
        figures["reference_sweep"] = ("The reference recipe on {5, 7, 9}", _panels(grouped(sweep, _rate)))
    if loaded["jpeg"]:
        graded = grouped({r: x for r, x in loaded["jpeg"].items() if r.system == "ours"}, lambda r: _jpeg(r.score))
        panels = {m: {k: curve(v, m) for k, v in graded.items()} for m in ("mean_grade", "jpeg_bytes")}
        figures["jpeg"] = ("Graded feedback by compressed size", panels)
    return figures


def _panels(lines: dict[str, list[Records]], axis: str = "step") -> dict[str, dict[str, Curve]]:
    return {m: {name: curve(runs, m, axis) for name, runs in lines.items()} for m in ("success", "coverage")}


def _by_system(loaded: dict[str, Loaded]) -> dict[str, Loaded]:
    """Each system on equal terms: the reference at the best rate of its sweep and as published (both thinned)."""
    named: dict[str, dict[Run, Records]] = {"ours": dict(loaded["main"])}
    for run, records in loaded["rivals"].items():
        named.setdefault(run.system, {})[run] = records
    for run, records in loaded["reference"].items():
        rate = dict(run.overrides)["learning_rate"]
        if rate in (TUNED, 1e-5):
            how = "tuned" if rate == TUNED else "as published"
            named.setdefault(f"{run.system}, {how}", {})[run] = records
    for run, records in loaded["published"].items():
        named.setdefault(f"{run.system}, as published, every timestep", {})[run] = records
    named["base"] = dict(loaded["base"])
    return {name: runs for name, runs in named.items() if runs}


def _systems(loaded: dict[str, Loaded]) -> dict[tuple[str, str], Reached]:
    """(data set, system) → figures."""
    return {
        (dataset, name): reached([x for r, x in runs.items() if r.dataset == dataset])
        for dataset in ("fashion_mnist", "mnist")
        for name, runs in _by_system(loaded).items()
        if any(r.dataset == dataset for r in runs)
    }


def _page(loaded: dict[str, Loaded], raw: Path) -> str:
    heads = [json.loads(raw_file(raw, run).read_text().splitlines()[0]) for runs in loaded.values() for run in runs]
    machines = sorted({f"{head['machine']}, {head['precision']} products" for head in heads})
    dates = sorted({head["date"] for head in heads})
    seconds = sum(records[-1]["seconds"] for runs in loaded.values() for records in runs.values())
    parts = [
        "# Alignment, measured\n",
        "Written by `papa bench alignment --report-only`; do not edit. `papa bench alignment` makes the\n"
        "runs, whose raw records lie in [alignment/raw](alignment/raw);\n"
        "[the method](../researcher-guide.md#the-benchmark) says what each measure means.\n\n"
        f"Runs: {len(heads)}, on {' and '.join(dates) or 'no date yet'}; {seconds / 3600:.1f} hours of showing and\n"
        f"learning, evaluation not counted. Machines: {'; '.join(machines) or '–'}.\n",
        "## Targets\n",
        *targets(loaded, _systems(loaded)),
        "## Systems\n",
        *_system_table(_systems(loaded)),
    ]
    for name, (title, _) in _figures(loaded).items():
        parts.append(f"## {title}\n\n![{title}](alignment/{name}.png) [numbers](alignment/{name}.csv)\n")
        if name in VARIANT_TABLES:
            parts += _variant_table(loaded, name)
    parts += _missing(loaded)
    return "\n".join(parts)


VARIANT_TABLES = ("ablations", "lora", "k-sweep", "noise", "per-step", "active")


def _system_table(systems: dict[tuple[str, str], Reached]) -> Iterator[str]:
    yield (
        "Mean over tastes and seeds at the last interaction step of each run. Cost is in U-Net sample-evaluations, a\n"
        "differentiated one counted as three plain ones. Labels to 0.9: mean over the runs that reached it, and how\n"
        "many did.\n"
    )
    head = ("data", "system", "runs", "success at 10 / 20 / 30", "last success", "coverage (worst)", "Fréchet",
            "labels to 0.9", "cost per step", "cost to 0.9", "s per step", "diverged")  # fmt: skip
    yield _row(head) + "\n" + _row(["---"] * len(head))
    for (dataset, name), r in systems.items():
        at = " / ".join(_number(r.at.get(step)) for step in (10, 20, 30))
        yield _row((
            dataset, name, r.runs, at, f"{_number(r.success)} ± {_number(r.success_deviation)}",
            f"{_number(r.coverage)} ({_number(r.worst_coverage)})", _number(r.frechet, 1),
            f"{_number(r.labels_to_90, 0)} ({r.reached_90} of {r.runs})", _number(r.cost_per_step, 0),
            _number(r.cost_to_90, 0), _number(r.seconds_per_step, 1), r.diverged,
        ))  # fmt: skip
    yield ""


def _variant_table(loaded: dict[str, Loaded], name: str) -> Iterator[str]:
    keys = {"per-step": lambda run: f"{run.labels} labels",
            "active": lambda run: "10 of 40" if run.candidates else "first 10",
            "noise": lambda run: f"{run.system}, {run.flipped:.0%} flipped"}  # fmt: skip
    head = ("variant", "runs", "last success", "coverage (worst)", "Fréchet", "labels to 0.9", "cost per step")
    yield _row(head) + "\n" + _row(["---"] * len(head))
    for label, runs in grouped(loaded[name], keys.get(name, _variant)).items():
        r = reached(runs)
        yield _row((
            label, r.runs, f"{_number(r.success)} ± {_number(r.success_deviation)}",
            f"{_number(r.coverage)} ({_number(r.worst_coverage)})", _number(r.frechet, 1),
            f"{_number(r.labels_to_90, 0)} ({r.reached_90} of {r.runs})", _number(r.cost_per_step, 0),
        ))  # fmt: skip
    yield ""


def _missing(loaded: dict[str, Loaded]) -> Iterator[str]:
    rows = []
    for name, make in EXPERIMENTS.items():
        wanted = list(dict.fromkeys(make()))
        if len(loaded[name]) < len(wanted):
            rows.append(f"- {name}: {len(loaded[name])} of {len(wanted)} runs")
    if rows:
        yield "## Not run yet\n\n" + "\n".join(rows) + "\n"


def _table_csv(path: Path, systems: dict[tuple[str, str], Reached]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        names = [field for field in Reached.__dataclass_fields__ if field != "at"]
        writer.writerow(["data", "system", *names, "success at 10", "success at 20", "success at 30"])
        for (dataset, name), r in systems.items():
            writer.writerow([dataset, name, *(getattr(r, n) for n in names), *(r.at.get(s) for s in (10, 20, 30))])
    return path


def _row(cells: object) -> str:
    assert isinstance(cells, list | tuple)
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _taste(taste: tuple[int, ...]) -> str:
    return "{" + ", ".join(map(str, taste)) + "}"


def _variant(run: Run) -> str:
    return ", ".join(f"{name} = {value}" for name, value in run.overrides) or "default"


def _rate(run: Run) -> str:
    return f"{run.system.removeprefix('reference-').upper()}, lr {dict(run.overrides)['learning_rate']:g}"


def _jpeg(score: str) -> str:
    return "large liked" if score.endswith("-") else "small liked"


assert TUNED in LEARNING_RATES
