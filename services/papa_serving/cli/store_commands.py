"""`papa store`: the revision store against Redis, for operators, on the machine that reaches both."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from papa_serving.cli.configuration import ConfigFile, Overrides, load
from papa_serving.cli.output import AsJson, console, print_json, print_table, voice
from papa_serving.contracts.revisions import RevisionStore, UserDirectory
from papa_serving.settings import Settings
from papa_serving.store.census import SETTLED, Finding, census
from papa_serving.store.census import repair as put_back
from papa_serving.store.census import sweep as remove_unnamed

store = typer.Typer(name="store", no_args_is_help=True, help="Compare the revision store with Redis; sweep; repair.")

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
OlderThan = Annotated[
    float, typer.Option("--older-than", min=0, help="Seconds; a younger orphan may be an update about to commit.")
]
T = TypeVar("T")


@store.command()
def check(config: ConfigFile = None, overrides: Overrides = [], json: AsJson = False) -> None:  # noqa: B006 - typer's way
    """List users whose files are not those of their lineage; the exit code is 1 when Redis has lost revisions."""
    found = _run(load(config, overrides), _census, json)
    if json:
        print_json(found)
    else:
        rows = ((each.digest, each.kind.value, len(each.revisions), max(each.revisions)) for each in found)
        print_table("", ("user's digest", "what", "revisions", "newest"), rows)
    if any(each.kind == "lost" for each in found):
        raise typer.Exit(1)


@store.command()
def sweep(
    config: ConfigFile = None,
    overrides: Overrides = [],  # noqa: B006 - typer's way
    older_than: OlderThan = SETTLED,
    json: AsJson = False,
) -> None:
    """Remove what deleted users and updates that never committed have left. Trainers do so every hour."""
    removed = _run(load(config, overrides), lambda users, revisions: remove_unnamed(users, revisions, older_than), json)
    if json:
        print_json({"removed": removed})
    else:
        console.print(f"removed {removed} revisions")


@store.command()
def repair(
    config: ConfigFile = None,
    overrides: Overrides = [],  # noqa: B006 - typer's way
    yes: Yes = False,
    json: AsJson = False,
) -> None:
    """Put back the lineages that Redis lost, from the files; stop the trainers first."""
    if not yes:
        typer.confirm("Point every user at the newest revision of the store?", abort=True, err=True)
    repaired = _run(load(config, overrides), put_back, json)
    if json:
        print_json({"repaired": repaired})
    else:
        console.print(f"repaired {repaired} users")


async def _census(users: UserDirectory, revisions: RevisionStore) -> list[Finding]:
    return [finding async for finding in census(users, revisions)]


def _run(settings: Settings, work: Callable[[UserDirectory, RevisionStore], Awaitable[T]], json: bool) -> T:
    from papa_serving.store import open_revisions, open_users

    async def run() -> T:
        users = open_users(settings)
        try:
            return await work(users, open_revisions(settings))
        finally:
            await users.close()

    with voice(json).status("comparing the revision store with Redis …"):
        return asyncio.run(run())
