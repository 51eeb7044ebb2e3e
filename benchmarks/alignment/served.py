"""What a user is served after so many labels: one cell of the table in docs/results/served.md.

    python -m benchmarks.alignment.served --taste 0,3,8 --seed 1000 --labels 50 100

The product's own loop runs for one simulated user, on the shipped backbone: what is shown is selected as the service
selects it (papa.selection), with its share of items that are there to teach. At each number of labels `--samples` items
are served from evaluation seeds of this command alone. Reported of their first draws ("raw"), of what is served where
nothing is there to teach ("served") and of what is by default ("page"):
success, coverage, Fréchet distance beside that of as many samples of the backbone that the oracle puts into the taste,
calibration error of what is said of the items, and draws per item. `--set steps=8` or `--set lora_rank=8` changes a
setting.
"""

from __future__ import annotations

import argparse
import ast
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from papa_serving.generator.generation import explored
from papa_serving.settings import GeneratorSettings
from torch import Tensor

from benchmarks.alignment.runs import Run
from benchmarks.alignment.simulate import measures, shown_seeds
from benchmarks.alignment.systems.ours import Ours
from benchmarks.alignment.systems.registry import build
from benchmarks.alignment.world import DATA, SimulatedUser, World, world
from papa.alignment import calibration_error
from papa.sampler import sample
from papa.selection import Candidate, Rule, Selection, Verdict, teaching_share

FIRST_SEED = 5_000_000_029
"""The first seed of the samples that are judged; no other experiment begins from these seeds."""
CHUNK = 50
TEACHING = GeneratorSettings().teaching
PAGE = 10
"""Items of one generation."""


@dataclass(frozen=True)
class Outcome:
    """The measurements of one way of serving.

    `calibration` is the calibration error of the items' probabilities, and `draws` counts draws per item. `filtered` is
    the Fréchet distance of as many samples of the backbone that fit the taste.
    """

    success: float
    coverage: float | None
    frechet: float | None
    filtered: float | None
    calibration: float
    draws: float


def teaching_items(system: Ours, count: int, teaching: float) -> frozenset[int]:
    """The items of a page of `count` that are there to teach; none while the revision has no head."""
    head = system.adapter.head
    return frozenset() if head is None else explored(count, teaching_share(teaching, head.labels))


@dataclass(frozen=True, eq=False)
class Served:
    """The served items, and the first draw of each. Shape: samples [n, C, H, W], chances [n]: how likely each is liked,
    ½ while the revision has no head."""

    samples: Tensor
    chances: Tensor
    raw: Tensor
    raw_chances: Tensor
    drawn: int


def serve(system: Ours, seeds: list[int], rule: Rule, teaching: float) -> Served:
    """Generations of PAGE items each, as the service selects them; all of them are drawn in the same batches."""
    head = system.adapter.head
    questions = () if head is None else head.questions
    parts = [seeds[start : start + PAGE] for start in range(0, len(seeds), PAGE)]
    teach = [teaching_items(system, len(part), teaching) for part in parts]
    pages = [Selection(part, rule, (), items, questions) for part, items in zip(parts, teach, strict=True)]
    wanted = {page: selection.first for page, selection in enumerate(pages)}
    found: dict[tuple[int, Candidate], Drawn] = {}
    served: dict[int, Drawn] = {}
    while any(wanted.values()):
        due = [(page, each) for page, candidates in wanted.items() for each in candidates]
        bare = [pages[page].explores(each) for page, each in due]
        pairs = [(each.seed, alone) for (_, each), alone in zip(due, bare, strict=True)]
        found |= zip(due, drawn(system, pairs), strict=True)
        for page, candidates in wanted.items():
            chances = {each: found[page, each].chance if head else None for each in candidates}
            typical = {each: bar for each in candidates if (bar := found[page, each].typical) is not None}
            verdict = pages[page].judge(chances, typical) if candidates else Verdict((), ())
            served |= {PAGE * page + each.item: found[page, each.candidate] for each in verdict.served}
            wanted[page] = verdict.wanted
    for page, selection in enumerate(pages):
        served |= {PAGE * page + each.item: found[page, each.candidate] for each in selection.rest()}
    items = [served[item] for item in sorted(served)]
    first = [found[page, each] for page, selection in enumerate(pages) for each in selection.first]
    return Served(*_stacked(items), *_stacked(first), drawn=sum(selection.drawn for selection in pages))


class Drawn(NamedTuple):
    """A sample, how likely it is liked, and what is typical of its region. Shape: x0 [C, H, W]."""

    x0: Tensor
    chance: float
    typical: float | None = None


def _stacked(items: list[Drawn]) -> tuple[Tensor, Tensor]:
    return torch.stack([each.x0 for each in items]), torch.tensor([each.chance for each in items])


@torch.no_grad()
def drawn(system: Ours, wanted: list[tuple[int, bool]]) -> list[Drawn]:
    """A sample of each seed; from the backbone alone where the second is set."""
    denoiser, adapter, how = system.denoiser, system.adapter, system.sampling
    result: dict[tuple[int, bool], Drawn] = {}
    for bare in (False, True):
        own = [each for each in wanted if each[1] == bare]
        for start in range(0, len(own), CHUNK):
            chunk = own[start : start + CHUNK]
            weights = None if bare else adapter.weights.expand(len(chunk), -1)
            seeds = [seed for seed, _ in chunk]
            x0 = sample(denoiser, seeds, weights, how.sampler, how.steps, system.config.adapt_from)
            chances, typical = [0.5] * len(x0), None
            if adapter.head is not None:
                features = denoiser.features(x0).half()
                chances, typical = adapter.head.probability(features).tolist(), adapter.head.typical(features)
            bars = [None] * len(x0) if typical is None else typical.tolist()
            result |= zip(chunk, map(Drawn, x0, chances, bars), strict=True)
    return [result[each] for each in wanted]


def outcomes(run: Run, shared: World, system: Ours, count: int, rule: Rule, teaching: float) -> dict[str, Outcome]:
    """The outcomes of first draws ("raw"), of what is served where nothing is there to teach, and of what is by default
    ("page")."""
    seeds = list(range(FIRST_SEED, FIRST_SEED + count))
    filtered = filtered_backbone(run, shared, system, count)

    def outcome(samples: Tensor, chances: Tensor, draws: float) -> Outcome:
        return _outcome(shared, samples, chances, run.taste, draws, filtered)

    plain = serve(system, seeds, rule, teaching=0.0)
    page = serve(system, seeds, rule, teaching) if teaching_items(system, PAGE, teaching) else plain
    return {
        "raw": outcome(plain.raw, plain.raw_chances, 1.0),
        "served": outcome(plain.samples, plain.chances, plain.drawn / count),
        "page": outcome(page.samples, page.chances, page.drawn / count),
    }


def filtered_backbone(run: Run, shared: World, system: Ours, count: int) -> float | None:
    """The Fréchet distance of `count` samples of the pool that are of the taste; None if there are fewer."""
    pool = system.denoiser.pool
    assert pool is not None
    classes = shared.oracle.classify(pool.x0)
    kept = torch.isin(classes, torch.tensor(run.taste)).nonzero()[:count, 0]
    distance: float | None = measures(shared, pool.x0[kept], classes[kept], run.taste)["frechet"]
    return distance if len(kept) == count else None


def _outcome(
    shared: World, x0: Tensor, chance: Tensor, taste: tuple[int, ...], draws: float, filtered: float | None
) -> Outcome:
    classes = shared.oracle.classify(x0)
    found = measures(shared, x0, classes, taste)
    error = calibration_error(chance, torch.isin(classes, torch.tensor(taste)))
    return Outcome(found["success"], found["coverage"], found["frechet"], filtered, error, draws)


def cell(run: Run, shared: World, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A record for each number of labels and way of serving."""
    system = build(shared, run)
    assert isinstance(system, Ours)
    user, busy = SimulatedUser(run, shared.oracle), 0.0
    rule = Rule(options.overdraw, options.floor, options.threshold, options.steepness)
    for step in range(max(options.labels) // run.labels):
        shown = serve(system, shown_seeds(run, step, run.labels), rule, options.teaching).samples
        grades = user.grades(shown, step)
        started = time.process_time()
        system.learn(shown, grades, step)
        busy += time.process_time() - started
        labels = (step + 1) * run.labels
        if labels in options.labels:
            found = outcomes(run, shared, system, options.samples, rule, options.teaching)
            for how, outcome in found.items():
                rounded = {k: v if v is None else round(v, 4) for k, v in asdict(outcome).items()}
                yield {"labels": labels, "items": how, **rounded, "update_cpu_s": round(busy / (step + 1), 2)}


def table(records: list[dict[str, Any]]) -> str:
    """Markdown, a row per number of labels, as success / coverage / Fréchet distance: first draws, what is served, and
    whole pages, where they were measured."""
    columns = ("data", "taste", "seed", "changed", "labels", "first draws", "served", "page", "filtered backbone",
               "calibration", "draws")  # fmt: skip
    rows = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    pages = {_key(each): _three(each) for each in records if each["items"] == "page"}
    both = [each for each in records if each["items"] != "page"]
    for raw, kept in zip(both[::2], both[1::2], strict=True):
        changed = ", ".join(f"{name} {raw[name]}" for name in raw if name not in TOLD) or "–"
        about = f"| {kept['dataset']} | {kept['taste']} | {kept['seed']} | {changed} | {kept['labels']} "
        page = pages.get(_key(raw), "–")
        rows.append(f"{about}| {_three(raw)} | {_three(kept)} | {page} | {short(kept['filtered'], '.0f')} "
                    f"| {kept['calibration']:.2f} | {kept['draws']:.2f} |")  # fmt: skip
    return "\n".join(rows)


def _key(record: dict[str, Any]) -> tuple[Any, ...]:
    """What the records of one measurement have in common."""
    return tuple((name, value) for name, value in record.items() if name not in MEASURED)


RULE = ("overdraw", "floor", "threshold", "steepness")
MEASURED = {"items", "update_cpu_s", *(field.name for field in fields(Outcome))}
TOLD = {"dataset", "taste", "seed", "labels", *MEASURED}
"""Of a record, what the table has a column for; all else are changed settings."""


def _three(record: dict[str, Any]) -> str:
    return " / ".join(short(record[name], form) for name, form in
                      (("success", ".2f"), ("coverage", ".2f"), ("frechet", ".0f")))  # fmt: skip


def short(value: float | None, form: str) -> str:
    """The number in that form; a dash for None."""
    return "–" if value is None else format(value, form)


def main() -> None:
    options = _options()
    if options.table:
        print(table([json.loads(line) for line in options.table.read_text().splitlines()]))
        return
    torch.set_num_threads(1)
    shared = world(options.dataset, options.data, bfloat16=options.bfloat16)
    run = Run("ours", options.taste, options.seed, options.dataset, flipped=options.flipped, overrides=options.set)
    about = {"dataset": run.dataset, "taste": "".join(map(str, run.taste)), "seed": run.seed}
    about |= dict(run.overrides)
    about |= {name: getattr(options, name) for name in RULE if getattr(options, name) != getattr(Rule(), name)}
    for record in cell(run, shared, options):
        print(json.dumps(about | record), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--taste", type=read_taste, default=(0, 3, 8))
    parser.add_argument("--dataset", default="fashion_mnist")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--labels", type=int, nargs="+", default=[50, 100])
    parser.add_argument("--table", type=Path, help="only print the table of the records in this file")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--flipped", type=float, default=0.0)
    parser.add_argument("--overdraw", type=float, default=2.0, help="draws per item at most; 1 serves what comes first")
    parser.add_argument("--floor", type=float, default=0.0, help="least chance of an item")
    parser.add_argument("--threshold", type=float, default=Rule().threshold, help="chance above which all is accepted")
    parser.add_argument("--steepness", type=float, default=Rule().steepness, help="of the acceptance below it")
    parser.add_argument("--teaching", type=float, default=TEACHING, help="share of what is shown that may teach")
    parser.add_argument("--set", type=_setting, action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--bfloat16", action=argparse.BooleanOptionalAction, default=False)
    options = parser.parse_args()
    options.set = tuple(options.set)
    return options


def read_taste(text: str) -> tuple[int, ...]:
    """Reads a taste such as 0,3,8."""
    return tuple(sorted(int(each) for each in text.split(",")))


def _setting(text: str) -> tuple[str, Any]:
    name, value = text.split("=", 1)
    return name, ast.literal_eval(value)


if __name__ == "__main__":
    main()
