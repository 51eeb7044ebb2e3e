"""`papa store`: compares the revision store with Redis, for operators, on a machine that reaches both."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, TypeVar

import typer

from papa_serving.cli.backbone_commands import loaded
from papa_serving.cli.configuration import ConfigFile, Overrides, load
from papa_serving.cli.output import AsJson, console, print_json, print_table, voice
from papa_serving.contracts.revisions import RevisionStore, UserDirectory
from papa_serving.local.failure import Failure
from papa_serving.settings import Settings
from papa_serving.store.census import SETTLED, Finding, census
from papa_serving.store.census import repair as put_back
from papa_serving.store.census import sweep as remove_unnamed

store = typer.Typer(name="store", no_args_is_help=True, help="Compare the revision store with Redis, and mend them.")

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
    removed = _run(load(config, overrides), partial(_swept, older_than), json)
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


@store.command()
def rehash(
    config: ConfigFile = None,
    overrides: Overrides = [],  # noqa: B006 - typer's way
    yes: Yes = False,
    json: AsJson = False,
) -> None:
    """Name the backbone by the present version of its hash, in a store that an earlier release has made."""
    from papa_serving.local.stored_redis import stored_redis

    settings = load(config, overrides)
    if not yes:
        question = f"Has this store always been served with {settings.backbone}, in its present configuration?"
        typer.confirm(question, abort=True, err=True)
    with voice(json).status(f"loading {settings.backbone} …"):
        present, former = loaded(settings.backbone).hashes
    with stored_redis(settings) as reached:
        renamed = asyncio.run(_rehash(reached, present, former))
    if json:
        print_json({"renamed": renamed, "backbone_hash": present, "former_hash": former})
    elif renamed:
        console.print(f"the store names its backbone {present} now, formerly {former}")
    else:
        console.print(f"nothing to rename: the store names its backbone {present}, or none yet")


async def _rehash(settings: Settings, present: str, former: str) -> bool:
    from papa_serving.store import open_items
    from papa_serving.store.rehash import rehash

    items = open_items(settings)
    try:
        return await rehash(items, settings.backbone, present, former)
    except ValueError as error:
        hint = "choose the backbone that the store has always been served with: --set backbone=NAME"
        raise Failure(str(error), hint) from error
    finally:
        await items.close()


async def _swept(older_than: float, users: UserDirectory, revisions: RevisionStore, emptied: bool) -> int:
    return await remove_unnamed(users, revisions, older_than, emptied)


async def _census(users: UserDirectory, revisions: RevisionStore, emptied: bool) -> list[Finding]:
    return [finding async for finding in census(users, revisions, emptied)]


def _run(settings: Settings, work: Callable[[UserDirectory, RevisionStore, bool], Awaitable[T]], json: bool) -> T:
    """Runs `work` with the two stores, and whether Redis was emptied."""
    from papa_serving.local.stored_redis import stored_redis
    from papa_serving.store import open_items, open_revisions, open_users

    async def run() -> T:
        users, items = open_users(reached), open_items(reached)
        try:
            emptied = await items.backbone_info() is None
            return await work(users, open_revisions(reached), emptied)
        finally:
            await users.close()
            await items.close()

    with stored_redis(settings) as reached, voice(json).status("comparing the revision store with Redis …"):
        return asyncio.run(run())
