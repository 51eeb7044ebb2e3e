"""`papa deadletters`: lists, retries and drops events that no revision applied."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated

import typer

from papa_serving.cli.connection import Address, Tenant, connect
from papa_serving.cli.output import AsJson, console, print_json, print_table
from papa_serving.client import Client, DeadLetter, User
from papa_serving.local.failure import Failure

deadletters = typer.Typer(
    name="deadletters", no_args_is_help=True, help="Events that no revision applied: list, retry, drop."
)

OfUser = Annotated[str, typer.Option("--user", help="Of this user only.", show_default=False)]
Letters = Annotated[
    list[str] | None,
    typer.Argument(metavar="[LETTER]...", help="Ids as papa deadletters list prints them.", show_default=False),
]
All = Annotated[bool, typer.Option("--all", help="All that list would print.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@deadletters.command("list")
def list_letters(user: OfUser = "", address: Address = "", tenant: Tenant = "", json: AsJson = False) -> None:
    """Dead letters with their reasons, the oldest of each partition first."""
    with connect(address, tenant) as client:
        found = list(_letters(client, user, tenant))
    if json:
        print_json(found)
        return
    columns = ("letter", "tenant", "user", "event", "died", "attempts", "reason")
    rows = (
        (e.letter_id, e.tenant, e.user, e.event_id, f"{e.died_at:%Y-%m-%d %H:%M:%S}", e.attempts, e.reason)
        for e in found
    )
    print_table("", columns, rows)


@deadletters.command()
def retry(
    letters: Letters = None,
    every: All = False,
    user: OfUser = "",
    address: Address = "",
    tenant: Tenant = "",
    json: AsJson = False,
) -> None:
    """Append events again, each as its user's newest. Mend the cause first."""
    with connect(address, tenant) as client:
        chosen = _chosen(_letters(client, user, tenant), letters, every)
        _act("retried", chosen, client.retry_dead_letter, json)


@deadletters.command()
def drop(
    letters: Letters = None,
    every: All = False,
    yes: Yes = False,
    user: OfUser = "",
    address: Address = "",
    tenant: Tenant = "",
    json: AsJson = False,
) -> None:
    """Remove events for good. Cannot be undone."""
    with connect(address, tenant) as client:
        chosen = _chosen(_letters(client, user, tenant), letters, every)
        if not yes:
            typer.confirm(f"Remove {len(chosen)} events for good?", abort=True, err=True)
        _act("dropped", chosen, client.drop_dead_letter, json)


def _letters(client: Client, user: str, tenant: str) -> Iterable[DeadLetter]:
    """The dead letters of the user, or of all users (of the tenant, if one is given)."""
    if user:
        return client.dead_letters(User(user, tenant))
    return (letter for letter in client.dead_letters() if tenant in ("", letter.tenant))


def _chosen(found: Iterable[DeadLetter], letters: list[str] | None, every: bool) -> list[DeadLetter]:
    """The chosen letters. Raises Failure when none is chosen or one does not exist."""
    if every == bool(letters):
        raise Failure("name the letters, or say --all", "papa deadletters list prints them")
    chosen = [letter for letter in found if every or letter.letter_id in (letters or ())]
    missing = set(letters or ()) - {letter.letter_id for letter in chosen}
    if missing:
        raise Failure(f"no such dead letter: {', '.join(sorted(missing))}", "papa deadletters list prints them")
    return chosen


def _act(done: str, chosen: list[DeadLetter], act: Callable[[User, str], bool], json: bool) -> None:
    """Applies the action to each letter and counts the successes. A letter that is already gone does not count."""
    touched = [letter for letter in chosen if act(User(letter.user, letter.tenant), letter.letter_id)]
    if json:
        print_json({done: touched})
    else:
        console.print(f"{done} {len(touched)} of {len(chosen)} dead letters")
