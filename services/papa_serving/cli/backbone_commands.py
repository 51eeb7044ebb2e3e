"""`papa backbone`: train one of your own, and measure it."""

from __future__ import annotations

from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

from papa_serving.cli.output import (
    AsJson,
    amount,
    check_writable,
    console,
    print_fields,
    print_json,
    print_table,
    voice,
)
from papa_serving.local.failure import Failure

if TYPE_CHECKING:
    from papa.backbone.datasets import LabelledImages
    from papa.backbone.train import TrainProgress
    from papa.denoiser import Denoiser

backbone = typer.Typer(name="backbone", no_args_is_help=True, help="Train a backbone of your own, and measure it.")

Data = Annotated[Path, typer.Argument(help="An .npz of images and classes.", show_default=False)]
Out = Annotated[
    Path, typer.Option("--out", help="Folder of the run; an interrupted run in it goes on.", file_okay=False)
]
Steps = Annotated[int, typer.Option("--steps", min=1, help="Optimiser steps in all.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1)]
LearningRate = Annotated[float, typer.Option("--learning-rate", min=0)]
BFloat16 = Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16.")]
Seed = Annotated[int, typer.Option("--seed", min=0)]
Channels = Annotated[str, typer.Option("--channels", help="Of each resolution, halved from one to the next.")]
Layers = Annotated[int, typer.Option("--layers", min=1, help="ResNet layers of each block.")]
Start = Annotated[
    str, typer.Option("--start", help="Begin with the weights of this backbone, a shipped name or a folder.")
]
SheetEvery = Annotated[int, typer.Option("--sheet-every", min=0, help="Steps between sample sheets; 0 draws none.")]
Backbone = Annotated[str, typer.Option("--backbone", help="A shipped name, a diffusers folder or a hub id.")]
POOL_COUNT = 512


@backbone.command()
def train(
    data: Data,
    out: Out = Path("backbone-run"),
    steps: Steps = 10_000,
    batch_size: BatchSize = 64,
    learning_rate: LearningRate = 4e-4,
    bf16: BFloat16 = False,
    seed: Seed = 0,
    channels: Channels = "32,64,128",
    layers: Layers = 1,
    start: Start = "",
    sheet_every: SheetEvery = 1000,
    json: AsJson = False,
) -> None:
    """Train a small DDPM U-Net; Ctrl-C and the same command go on where it stopped."""
    check_writable(out)
    from papa.backbone import train as training

    images = read_images(data, "train")
    config = training.TrainConfig(
        steps=steps, batch_size=batch_size, learning_rate=learning_rate, bfloat16=bf16, seed=seed,
        channels=_widths(channels, images.x.shape[-1]), layers_per_block=layers, start=start,
    )  # fmt: skip
    losses: list[float] = []
    with Progress(*columns(), console=voice(json)) as progress:
        task = progress.add_task("training", total=steps)

        def report(done: TrainProgress) -> None:
            progress.update(task, completed=done.step, description=f"loss {done.loss:.4f}")
            losses[:] = [done.loss]

        try:
            pipeline = training.train(images, out, config, report, sheet_every=sheet_every)
        except (FileNotFoundError, ValueError) as error:
            raise Failure(str(error), "name another folder with --out, or the same settings as before") from error
    _write_pool(pipeline, POOL_COUNT, json)
    if json:
        print_json({"backbone": pipeline, "steps": steps, "loss": losses[0] if losses else None})
        return
    console.print(f"the backbone lies in {pipeline}; serve it with: papa up --backbone {pipeline}")


def _widths(channels: str, size: int) -> tuple[int, ...]:
    """Parses `--channels` for pictures of `size` × `size` pixels."""
    try:
        widths = tuple(int(each) for each in channels.split(","))
    except ValueError:
        raise typer.BadParameter(f"{channels!r} is no list such as 32,64,128", param_hint="--channels") from None
    if any(width < 16 or width % 16 for width in widths):
        raise typer.BadParameter("each must be a multiple of 16", param_hint="--channels")
    if size % 2 ** (len(widths) - 1):
        why = f"{size} pixels cannot be halved {len(widths) - 1} times; frame the pictures, or name fewer"
        raise typer.BadParameter(why, param_hint="--channels")
    return widths


@backbone.command()
def pool(
    folder: Annotated[
        Path, typer.Argument(help="A backbone's folder; the pool is put into it.", exists=True, file_okay=False)
    ],
    count: Annotated[int, typer.Option("--count", min=1, help="Samples to draw.")] = POOL_COUNT,
    json: AsJson = False,
) -> None:
    """Draw the unrated samples that all users' learning fills in from; `train` does it by itself."""
    path = _write_pool(folder, count, json)
    if json:
        print_json({"pool": path, "samples": count})
        return
    console.print(f"the pool lies in {path}; trainers use it from their next start on")


def _write_pool(folder: Path, count: int, json: bool) -> Path:
    """Writes the pool. Raises Failure if the folder is not a backbone, or is one that cannot have a pool."""
    check_writable(folder, "copy the backbone into a folder of your own")
    from papa.backbone.draw_pool import draw_pool
    from papa.denoiser import load_denoiser
    from papa.pool import write_pool

    with Progress(*columns(), console=voice(json)) as progress:
        task = progress.add_task("drawing the pool", total=count)
        try:
            samples = draw_pool(
                load_denoiser(str(folder)), count, progress=lambda done: progress.update(task, completed=done)
            )
        except (FileNotFoundError, ValueError) as error:
            raise Failure(f"no pool for {folder}: {error}") from error
    return write_pool(folder, samples)


@backbone.command()
def oracle(
    data: Data,
    out: Annotated[Path, typer.Option("--out", help="The file to write.", dir_okay=False)],
    epochs: Annotated[int, typer.Option("--epochs", min=1)] = 8,
    seed: Seed = 0,
    json: AsJson = False,
) -> None:
    """Train the classifier that plays the simulated shopper and measures alignment."""
    check_writable(out.parent)
    from papa.oracle import save_oracle, train_oracle

    images = read_images(data, "train")
    with Progress(*columns(), console=voice(json)) as progress:
        task = progress.add_task("training", total=epochs)

        def report(epoch: int, loss: float) -> None:
            progress.update(task, completed=epoch, description=f"loss {loss:.4f}")

        trained = train_oracle(images, epochs, seed, report)
    save_oracle(trained, out)
    test = read_images(data, "test")
    accuracy = float((trained.classify(test.x) == test.y).double().mean())
    if json:
        print_json({"oracle": out, "accuracy": accuracy})
        return
    console.print(f"test accuracy {accuracy:.4f}; the oracle lies in {out}")


@backbone.command()
def size(
    backbone: Annotated[str, typer.Argument(help="A shipped name, a diffusers folder or a hub id.")] = "fashion_mnist",
    rank: Annotated[int | None, typer.Option("--rank", min=1, help="Of the adapters; the default is 4.")] = None,
    card: Annotated[float, typer.Option("--card", min=0.1, help="Memory of a card in GiB.")] = 24.0,
    json: AsJson = False,
) -> None:
    """Say how much memory a backbone and its adapters take, from its configurations alone: no weights are read."""
    from papa.backbone.size import PRECISIONS, backbone_size

    try:
        found = backbone_size(backbone, rank)
    except (FileNotFoundError, ValueError) as error:
        raise Failure(str(error), "docs/backbones.md lists what can be served") from error
    card_bytes = int(card * 2**30)
    if json:
        memory = {
            name: {
                "weights_bytes": found.weights_bytes(name),
                "slot_bytes": found.slot_bytes(name),
                "left_bytes": found.left(card_bytes, name),
            }
            for name in PRECISIONS
        }
        print_json({"backbone": backbone, **asdict(found), "parameters": found.parameters,
                    "revision_bytes": found.revision_bytes, "card_bytes": card_bytes, "memory": memory})  # fmt: skip
        return
    rows = [(each.part, each.kind, f"{each.parameters:,}") for each in found.components]
    print_table(f"{backbone}, a {found.pipeline}", ("part", "class", "parameters"), rows)
    shape, picture = (" × ".join(map(str, each)) for each in (found.sample, found.picture))
    print_fields({
        "picture": f"{picture} (channels × height × width)",
        "x0 of an item": f"{shape}, {amount(found.sample_bytes)} in the store",
        "adapter": f"rank {found.rank} on {found.adapted_layers} layers, {found.adapter_parameters:,} parameters, "
                   f"{amount(found.revision_bytes)} in a revision",
    })  # fmt: skip
    lines = [
        (name, amount(found.weights_bytes(name)), amount(found.slot_bytes(name)), _left(found.left(card_bytes, name)))
        for name in PRECISIONS
    ]
    print_table("", ("precision", "weights", "an adapter's slot", f"left of a card of {card:g} GiB"), lines)
    console.print("Activations come on top; they grow with generator.max_rows.")


def _left(left_bytes: int) -> str:
    return amount(left_bytes) if left_bytes > 0 else f"nothing: {amount(-left_bytes)} too little"


@backbone.command()
def report(
    data: Data,
    backbone: Backbone = "fashion_mnist",
    out: Annotated[Path, typer.Option("--out", help="Folder for report.json and sheet.png.", file_okay=False)] = Path(
        "backbone-report"
    ),
    count: Annotated[int, typer.Option("--count", min=2, help="Samples to draw.")] = 1024,
    sampler: Annotated[str, typer.Option("--sampler", help="ddpm, ddim or dpmpp_2m.")] = "dpmpp_2m",
    steps: Annotated[int, typer.Option("--steps", min=1, max=1000, help="Denoising steps.")] = 12,
    judge: Annotated[str, typer.Option("--oracle", help="A file, or a shipped backbone whose oracle judges.")] = "",
    json: AsJson = False,
) -> None:
    """Measure a backbone: Fréchet distance in the oracle's features, the oracle's confidence, a sample sheet."""
    check_writable(out)
    from papa.backbone.report import backbone_report
    from papa.backbone.sheet import picture
    from papa.oracle import load_oracle
    from papa_serving.local.backbone_check import oracle_of

    with Progress(*columns(), console=voice(json)) as progress:
        task = progress.add_task("sampling", total=count)
        result = backbone_report(
            loaded(backbone),
            load_oracle(judge or oracle_of(backbone) or "fashion_mnist"),
            read_images(data, "train"),
            read_images(data, "test"),
            count,
            sampler,
            steps,
            progress=lambda done: progress.update(task, completed=done),
        )
    out.mkdir(parents=True, exist_ok=True)
    figures = {name: value for name, value in vars(result).items() if name != "samples"}
    (out / "report.json").write_text(dumps(figures, indent=1) + "\n")
    picture(result.samples[:96]).save(out / "sheet.png")
    if json:
        print_json({**figures, "folder": out})
        return
    for name, value in figures.items():
        console.print(f"{name}: {value}")
    console.print(f"written to {out}")


def loaded(backbone: str) -> Denoiser:
    """Loads a backbone. Raises Failure for one that cannot be served."""
    from papa.denoiser import load_denoiser

    try:
        return load_denoiser(backbone)
    except (FileNotFoundError, ValueError) as error:
        raise Failure(str(error), "docs/backbones.md lists what can be served") from error


def read_images(data: Path, split: str) -> LabelledImages:
    """Reads images. Raises Failure for a file that is missing or contains none."""
    from papa.backbone.datasets import load_npz
    from papa.backbone.published import PUBLISHED

    if not data.exists():
        names = {each.file: each.name for each in PUBLISHED.values()}
        hint = f"papa data fetch {names.get(data.name, '|'.join(PUBLISHED))} --out {data.parent}"
        raise Failure(f"{data} is missing", f"published data sets come with: {hint}")
    try:
        return load_npz(data, split)
    except (OSError, KeyError, ValueError) as error:
        raise Failure(f"{data} cannot be read as images: {error}") from error


def columns() -> tuple[ProgressColumn, ...]:
    """The columns of all progress bars."""
    return (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
