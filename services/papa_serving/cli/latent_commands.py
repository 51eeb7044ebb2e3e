"""`papa backbone train-latent` and `papa backbone lora`: latent backbones, and adapters for diffusers' pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress

from papa_serving.cli.backbone_commands import (
    BatchSize,
    BFloat16,
    Data,
    LearningRate,
    Out,
    Seed,
    Steps,
    columns,
    read_images,
)
from papa_serving.cli.output import AsJson, check_writable, console, print_json, voice
from papa_serving.local.failure import Failure

if TYPE_CHECKING:
    from papa.backbone.train_latent import LatentProgress


def train_latent(
    data: Data,
    out: Out = Path("latent-run"),
    vae_steps: Annotated[int, typer.Option("--vae-steps", min=1, help="Steps of the autoencoder.")] = 1_500,
    steps: Steps = 2_500,
    batch_size: BatchSize = 64,
    learning_rate: LearningRate = 1e-3,
    bf16: BFloat16 = False,
    seed: Seed = 0,
    flow: Annotated[bool, typer.Option("--flow", help="Rectified flow instead of a DDPM.")] = False,
    start: Annotated[
        str, typer.Option("--start", help="Begin with this latent backbone: its U-Net, its words, its VAE as it is.")
    ] = "",
    json: AsJson = False,
) -> None:
    """Train a small Stable Diffusion pipeline on Fashion-MNIST, asked by words; the same command goes on."""
    check_writable(out)
    from papa.backbone import train_latent as training

    config = training.LatentConfig(
        vae_steps, steps, batch_size, learning_rate, bfloat16=bf16, seed=seed, flow=flow, start=start
    )
    images = read_images(data, "train")
    with Progress(*columns(), console=voice(json)) as progress:
        stages = {"unet": steps} if start else {"vae": vae_steps, "unet": steps}
        tasks = {stage: progress.add_task(stage, total=total) for stage, total in stages.items()}

        def report(done: LatentProgress) -> None:
            progress.update(tasks[done.stage], completed=done.step, description=f"{done.stage} {done.loss:.4f}")

        try:
            pipeline = training.train_latent(images, out, config, report)
        except (FileNotFoundError, ValueError) as error:
            raise Failure(str(error), "name another folder with --out, or the same settings as before") from error
    if json:
        print_json({"backbone": pipeline, "vae_steps": stages.get("vae", 0), "steps": steps})
        return
    console.print(f"the backbone lies in {pipeline}; serve it with: papa up --backbone {pipeline}")


def lora(
    folder: Annotated[Path, typer.Argument(help="What papa users export wrote.", exists=True, file_okay=False)],
    out: Annotated[Path, typer.Option("--out", help="Folder to write into.", file_okay=False)] = Path("lora"),
    json: AsJson = False,
) -> None:
    """Write an exported adapter as diffusers' pipelines load it: pipe.load_lora_weights(FOLDER)."""
    check_writable(out)
    from papa.diffusers_lora import DIFFUSERS_FILE, diffusers_lora
    from papa.revision_files import CONFIG_FILE, WEIGHTS_FILE, AdapterDamagedError

    files = {name: path.read_bytes() for name in (CONFIG_FILE, WEIGHTS_FILE) if (path := folder / name).is_file()}
    try:
        weights = diffusers_lora(files)
    except AdapterDamagedError as error:
        raise Failure(f"{folder} holds no adapter: {error}", "it wants what papa users export wrote") from error
    out.mkdir(parents=True, exist_ok=True)
    file = out / DIFFUSERS_FILE
    file.write_bytes(weights)
    if json:
        print_json({"file": file, "bytes": len(weights)})
    else:
        console.print(f"written to {file}")
