"""`papa data`: the published data sets that backbones are trained on and the benchmarks compare with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from papa_serving.cli.output import AsJson, check_writable, console, print_json, print_table, voice
from papa_serving.local.failure import Failure

data = typer.Typer(name="data", no_args_is_help=True, help="Fetch the published data sets.")

Names = Annotated[list[str], typer.Argument(help="fashion-mnist, mnist, cifar-10.", show_default=False)]
Folder = Annotated[Path, typer.Option("--out", help="Folder of the files.", file_okay=False)]
Mirror = Annotated[
    str, typer.Option("--mirror", help="Address of a folder with the same files, instead of the authors'.")
]


@data.command("list")
def list_all(json: AsJson = False) -> None:
    """List the data sets with their source, size and licence."""
    from papa.backbone.published import PUBLISHED

    if json:
        print_json(list(PUBLISHED.values()))
        return
    rows = ((each.name, f"{each.size / 1e6:.0f} MB", each.licence, each.homepage) for each in PUBLISHED.values())
    print_table("", ("name", "size", "licence", "source"), rows)


@data.command()
def fetch(names: Names, out: Folder = Path("data"), mirror: Mirror = "", json: AsJson = False) -> None:
    """Fetch data sets and check their published checksums; an interrupted download goes on."""
    from papa.backbone.published import PUBLISHED
    from papa.backbone.published import fetch as fetch_one

    unknown = [name for name in names if name not in PUBLISHED]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(PUBLISHED)}", param_hint="NAMES")
    check_writable(out)
    written = []
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=voice(json),
    ) as progress:
        for name in names:
            task = progress.add_task(name, total=PUBLISHED[name].size)

            def report(here: int, size: int, task: TaskID = task) -> None:
                progress.update(task, completed=here, total=size)

            try:
                written.append(fetch_one(PUBLISHED[name], out, mirror, report))
            except (OSError, ValueError) as error:
                hint = "the same command goes on; --mirror names another server of the same files"
                raise Failure(f"{name} was not fetched: {error}", hint) from error
            progress.update(task, completed=PUBLISHED[name].size)
    if json:
        print_json({"files": written})
        return
    for path in written:
        console.print(f"{path}")
