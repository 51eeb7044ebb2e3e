"""docs/results/alignment.md, its plots and tables, from whatever runs are complete."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from benchmarks.alignment.aggregate import Loaded, Reached, distinct, grouped, reached
from benchmarks.alignment.figures import ablations, epapa, jpeg, k_sweep, latent, questions, settings, success
from benchmarks.alignment.figures.drawing import Figure, everything, variant
from benchmarks.alignment.figures.sheets import sheets
from benchmarks.alignment.findings import CHOICES, OPEN, findings
from benchmarks.alignment.grid import EXPERIMENTS, LEARNING_RATES, TUNED
from benchmarks.alignment.runner import raw_file
from benchmarks.alignment.runs import Run
from benchmarks.alignment.targets import targets

SCRIPTS = (success, ablations, k_sweep, epapa, jpeg, latent, questions, settings)


def write_report(raw: Path, results: Path) -> Iterator[Path]:
    """Draws every plot that has data and writes the page; yields what it wrote."""
    loaded = everything(raw)
    results.mkdir(parents=True, exist_ok=True)
    drawn = list(figures(loaded))
    for figure in drawn:
        yield from figure.draw(results)
    pictures = list(sheets(loaded, raw, results))
    yield from pictures
    yield _table_csv(results / "systems.csv", _systems(loaded))
    page = results.parent / "alignment.md"
    page.write_text(_page(loaded, raw, drawn, pictures))
    yield page


def figures(loaded: dict[str, Loaded]) -> Iterator[Figure]:
    """The figures of all scripts that have enough runs."""
    for script in SCRIPTS:
        yield from (figure for figure in script.figures(loaded) if figure.worth_drawing)


def _systems(loaded: dict[str, Loaded]) -> dict[tuple[str, str], Reached]:
    """(data set, system) → figures."""
    return {
        (dataset, name): reached([x for r, x in runs.items() if r.dataset == dataset])
        for dataset, _ in success.DATASETS
        for name, runs in success.by_system(loaded).items()
        if any(r.dataset == dataset for r in runs)
    }


def _page(loaded: dict[str, Loaded], raw: Path, drawn: list[Figure], pictures: list[Path]) -> str:
    every = distinct(loaded)
    heads = [json.loads(raw_file(raw, run).read_text().splitlines()[0]) for run in every]
    machines = sorted({f"{head['machine']}, {head['precision']} products" for head in heads})
    dates = sorted({head["date"] for head in heads})
    said = findings()
    seconds = sum(records[-1]["seconds"] for records in every.values())
    parts = [
        "# Alignment, measured\n",
        "Written by `papa bench alignment --report-only`; do not edit. `papa bench alignment` makes the\n"
        "runs, whose records lie in [alignment/raw.tar.xz](alignment/raw.tar.xz);\n"
        "[the method](../researcher-guide.md#the-benchmark) says what each measure means. Below each table and figure\n"
        "stands the command that makes its runs; `--out FOLDER` makes them anew in a folder of yours, and `--system`,\n"
        "`--taste` and `--seed` choose a part.\n\n"
        f"Runs: {len(heads)}, on {', '.join(dates) or 'no date yet'}; {seconds / 3600:.1f} hours of showing and\n"
        "learning, evaluation not counted. The machines did other work as well, so that seconds are indicative; the\n"
        "cost in evaluations is the measure. Where an experiment has few seeds, tastes, steps or evaluation points,\n"
        "`benchmarks/alignment/grid.py` says so; what is still to be run stands at the end.\n\n"
        f"Machines: {'; '.join(machines) or '–'}.\n",
        "## Targets\n",
        *targets(loaded),
        "## Systems\n",
        *_system_table(_systems(loaded)),
        remade(loaded, success.COMPARED) + "\n",
    ]
    parts += [f"![{picture.stem}](alignment/{picture.name})\n" for picture in pictures]
    for figure in drawn:
        name, title = figure.name, figure.title
        parts.append(f"## {title}\n\n![{title}](alignment/{name}.png) [numbers](alignment/{name}.csv)\n")
        parts.append(remade(loaded, figure.experiments or (name,), figure.dataset) + "\n")
        if name in said:
            parts.append(said[name] + "\n")
        if name in VARIANT_TABLES:
            parts += _variant_table(loaded, name)
    parts.append("## How the defaults were chosen\n\n" + said[CHOICES] + "\n")
    parts += _missing(loaded, said[OPEN])
    return "\n".join(parts)


def remade(loaded: Mapping[str, Loaded], experiments: Iterable[str], dataset: str = "") -> str:
    """The command that makes these runs anew, how many there are, and what they took."""
    chosen = {run: records for name in experiments for run, records in loaded[name].items()}
    ended = [records[-1]["seconds"] for run, records in chosen.items() if dataset in ("", run.dataset)]
    only = f" --dataset {dataset}" if dataset else ""
    took = f"{sum(ended) / 60:,.0f} minutes of showing and learning on one core"
    return f"Made by `papa bench alignment {' '.join(experiments)}{only}`: {len(ended)} runs, {took}."


VARIANT_TABLES: dict[str, Callable[[Run], str]] = {
    "ablations": ablations.label,
    "keeping": ablations.kept,
    "k-sweep": k_sweep.label,
    "latent": latent.label,
    "lora": variant,
    "both-learn": variant,
    "update-size": variant,
    "tuning": lambda run: f"{run.system}, {variant(run)}",
    "noise": questions.noisy,
    "drift": questions.turned,
    "per-step": lambda run: f"{run.labels} labels",
    "active": lambda run: "10 of 40" if run.candidates else "first 10",
    "exploration": questions.explored,
}


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
    head = ("variant", "runs", "last success", "coverage (worst)", "Fréchet", "labels to 0.9", "cost per step")
    yield _row(head) + "\n" + _row(["---"] * len(head))
    for label, runs in grouped(loaded[name], VARIANT_TABLES[name]).items():
        r = reached(runs)
        yield _row((
            label, r.runs, f"{_number(r.success)} ± {_number(r.success_deviation)}",
            f"{_number(r.coverage)} ({_number(r.worst_coverage)})", _number(r.frechet, 1),
            f"{_number(r.labels_to_90, 0)} ({r.reached_90} of {r.runs})", _number(r.cost_per_step, 0),
        ))  # fmt: skip
    yield ""


def _missing(loaded: dict[str, Loaded], why: str) -> Iterator[str]:
    rows = []
    for name, make in EXPERIMENTS.items():
        wanted = list(dict.fromkeys(make()))
        if len(loaded[name]) < len(wanted):
            rows.append(f"- {name}: {len(loaded[name])} of {len(wanted)} runs")
    if rows:
        yield "## Not run yet\n\n" + why + "\n\n" + "\n".join(rows) + "\n"


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


assert TUNED in LEARNING_RATES
