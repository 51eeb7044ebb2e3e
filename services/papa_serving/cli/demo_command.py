"""`papa demo`: runs the service with a simulated shopper and checks that it learns."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from papa_serving.cli.configuration import load
from papa_serving.cli.connection import connect
from papa_serving.cli.output import AsJson, check_writable, claim_document, print_text, styled, voice
from papa_serving.client import Client
from papa_serving.demo.evaluation import Evaluation, goal
from papa_serving.demo.loop import DemoPlan, DemoResult, Round, run_demo
from papa_serving.demo.report import adapted, named, save, table
from papa_serving.demo.shopper import Shopper
from papa_serving.local.failure import Failure

if TYPE_CHECKING:
    from papa.oracle import Oracle

CLASSES = 10

Taste = Annotated[
    str, typer.Option("--taste", help="Hidden taste: classes 0 to 9 of Fashion-MNIST, separated by commas.")
]
Hard = Annotated[
    str, typer.Option("--hard", help="Hidden taste of a second shopper, one that is hard to learn; empty for none.")
]
Rounds = Annotated[int, typer.Option("--rounds", min=1, help="Rounds of rating.")]
PerRound = Annotated[int, typer.Option("--per-round", min=1, max=64, help="Items rated a round.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=1_000_000, help="Of everything random.")]
Out = Annotated[
    Path, typer.Option("--out", help="Folder for contact_sheet.png, curve.png and figures.json.", file_okay=False)
]
Backbone = Annotated[str, typer.Option("--backbone", help="Another backbone of Fashion-MNIST.")]
Running = Annotated[
    str,
    typer.Option(
        "--address", metavar="HOST:PORT", help="A running service, instead of one of its own.", show_default=False
    ),
]


def demo(
    taste: Taste = "5,7,9",
    hard: Hard = "4,8",
    rounds: Rounds = 12,
    per_round: PerRound = 10,
    seed: Seed = 0,
    out: Out = Path("demo-out"),
    backbone: Backbone = "fashion_mnist",
    address: Running = "",
    json: AsJson = False,
) -> None:
    """Watch the service learn hidden tastes from the likes of simulated shoppers.

    Starts the whole service in a fresh folder and lets two shoppers rate its items round by round, the second with a
    taste that is hard to learn. The exit code is 0 only if fresh samples then meet the first one's taste.
    """
    from papa_serving.local.stop_signals import Stopped

    tastes = [_classes(taste), *([_classes(hard, "--hard")] if hard else [])]
    plan = DemoPlan(rounds=rounds, per_round=per_round, seed=seed)
    check_writable(out)
    if json and not address:
        claim_document()  # Ray says on standard output that a worker died
    started = time.monotonic()
    try:
        with _service(address, backbone, per_round, voice(json)) as gateway, connect(gateway) as client:
            shoppers = [Shopper(_oracle(), wanted) for wanted in tastes]
            results = _show(client, shoppers, plan, voice(json))
    except Stopped as stopped:
        raise typer.Exit(130) from stopped
    files = save(results, shoppers, plan, time.monotonic() - started, out)
    if json:
        print_text((out / "figures.json").read_text().rstrip("\n"))
    voice(json).print()
    for each, shopper in zip(results, shoppers, strict=True):
        voice(json).print(table(each, shopper))
    result = results[0]
    voice(json).print(f"{', '.join(map(str, files))}\n")
    needed = goal(result.before.success)
    if not adapted(result):
        message = f"the loop has not adapted: success {result.after.success:.2f} on fresh samples, {needed:.2f} wanted"
        raise Failure(message, "a rare taste needs more --rounds")
    figures = f": success {result.before.success:.2f} → {result.after.success:.2f} (goal {needed:.2f})"
    voice(json).print(styled(("the loop has adapted", "green"), f"{figures} in {time.monotonic() - started:.0f} s"))


def _classes(taste: str, option: str = "--taste") -> frozenset[int]:
    try:
        classes = frozenset(int(each) for each in taste.split(","))
    except ValueError:
        classes = frozenset()
    if not classes or not all(0 <= each < CLASSES for each in classes) or len(classes) == CLASSES:
        raise Failure(f"{option} takes one to nine classes from 0 to 9, not {taste!r}", f"for instance {option} 5,7,9")
    return classes


def _oracle() -> Oracle:
    import torch

    from papa.oracle import load_oracle

    torch.set_num_threads(1)
    return load_oracle()


@contextmanager
def _service(address: str, backbone: str, per_round: int, console: Console) -> Iterator[str]:
    """The address of the given service, or of a new one, whose data are removed after a success."""
    if address:
        yield address
        return
    from papa_serving.local.service import foreground_service
    from papa_serving.local.startup_steps import StartupSteps
    from papa_serving.local.stop_signals import Stopped

    folder = Path(tempfile.mkdtemp(prefix="papa-demo-"))
    flags = {
        "data_dir": folder, "redis.url": "", "ray.address": "", "gateway.port": 0, "metrics.port": 0,
        "ray.serve_grpc_port": 0, "trainer.min_labels": per_round, "backbone": backbone,
        "playground.enabled": False,
    }  # fmt: skip
    try:
        with foreground_service(load(None, flags=flags), StartupSteps(console)) as service:
            yield service.address
    except Stopped:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except BaseException:
        console.print(styled((f"data and logs of this run: {folder}", "dim")))
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _show(client: Client, shoppers: Sequence[Shopper], plan: DemoPlan, console: Console) -> list[DemoResult]:
    """Runs the plan with a progress bar; without a terminal it prints one line per round."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with ExitStack() as stack:
        progress = Progress(*columns, console=console, disable=not console.is_terminal)
        stack.enter_context(progress)
        task = progress.add_task("measuring the backbone", total=plan.rounds)

        def started(before: Sequence[Evaluation]) -> None:
            for shopper, each in zip(shoppers, before, strict=True):
                console.print(f"a shopper with a hidden taste: {named(shopper.taste)}")
                console.print(f"the backbone alone meets it in {each.success:.0%} of fresh samples")
            progress.update(task, description="round 1")

        def report(rounds: Sequence[Round]) -> None:
            console.print(_line(rounds))
            done = rounds[0]
            doing = f"round {done.number + 1}" if done.number < plan.rounds else "measuring what was learnt"
            progress.update(task, completed=done.number, description=f"{doing} (liked {done.liked / done.shown:.0%})")

        return run_demo(client, shoppers, plan, started, report)


def _line(rounds: Sequence[Round]) -> str:
    first, *others = rounds
    also = "".join(f" and {each.liked:>2}" for each in others)
    seen = f", fresh samples {first.success:.0%}" if first.success is not None else ""
    learning = max(each.learning for each in rounds)
    return f"round {first.number:>2}: liked {first.liked:>2}{also} of {first.shown}, learnt in {learning:.1f} s{seen}"
