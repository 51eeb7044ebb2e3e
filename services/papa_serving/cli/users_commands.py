"""`papa users`: shows and changes what the service knows of a user."""

from __future__ import annotations

from typing import Annotated

import typer

from papa_serving.cli.connection import Address, Tenant, UserId, connect
from papa_serving.cli.output import AsJson, console, print_fields, print_json, print_json_line, print_table
from papa_serving.client import Usage, UserState
from papa_serving.terminal_text import harmless

users = typer.Typer(name="users", no_args_is_help=True, help="A user's state, revisions, rollback, reset and deletion.")

RevisionId = Annotated[str, typer.Argument(metavar="REVISION", help="One of papa users revisions.", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@users.command("list")
def list_users(address: Address = "", tenant: Tenant = "", json: AsJson = False) -> None:
    """The users who have given feedback or have an adapter."""
    with connect(address, tenant) as client:
        found = list(client.list_users())
    if json:
        print_json(found)
        return
    columns = ("user", "tenant", "likes", "dislikes", "pending", "serving")
    rows = [
        (each.user, each.tenant, each.likes, each.dislikes, each.pending_events, _revision_name(each)) for each in found
    ]
    print_table("", columns, rows)


@users.command()
def get(user: UserId, address: Address = "", tenant: Tenant = "", json: AsJson = False) -> None:
    """Likes, dislikes, pending events and the current revision."""
    with connect(address, tenant) as client:
        _print_state(client.get_user(user), json)


@users.command()
def watch(user: UserId, address: Address = "", tenant: Tenant = "", json: AsJson = False) -> None:
    """Print the state now and after each change, until Ctrl-C."""
    with connect(address, tenant) as client:
        for state in client.watch_user(user):
            if json:
                print_json_line(state)
            else:
                console.print(
                    f"{state.likes} likes, {state.dislikes} dislikes, {state.pending_events} pending, "
                    f"serving {_revision_name(state)}"
                )


@users.command()
def revisions(user: UserId, address: Address = "", tenant: Tenant = "", json: AsJson = False) -> None:
    """The user's revisions, newest first."""
    with connect(address, tenant) as client:
        found = list(client.list_revisions(user))
    if json:
        print_json(found)
        return
    columns = ("revision", "made", "events", "in all", "parent")
    rows = [
        (
            each.name,
            f"{each.created_at:%Y-%m-%d %H:%M:%S}",
            each.events_applied,
            each.events_total,
            each.parent or "-",
        )
        for each in found
    ]
    print_table("", columns, rows)


@users.command()
def rollback(
    user: UserId, revision: RevisionId, address: Address = "", tenant: Tenant = "", json: AsJson = False
) -> None:
    """Serve an earlier revision from now on."""
    with connect(address, tenant) as client:
        _print_state(client.rollback(user, revision), json)


@users.command()
def reset(user: UserId, address: Address = "", tenant: Tenant = "", json: AsJson = False) -> None:
    """Serve the backbone from now on; the lineage is kept."""
    with connect(address, tenant) as client:
        _print_state(client.reset(user), json)


@users.command()
def delete(user: UserId, yes: Yes = False, address: Address = "", tenant: Tenant = "", json: AsJson = False) -> None:
    """Remove everything about the user. Cannot be undone."""
    if not yes:
        typer.confirm(harmless(f"Remove every event, item and revision of {user!r}?"), abort=True, err=True)
    with connect(address, tenant) as client:
        receipt = client.delete_user(user)
    if json:
        print_json(receipt)
    else:
        print_fields({
            "receipt": receipt.receipt_id, "at": receipt.deleted_at, "events": receipt.events,
            "dead letters": receipt.dead_letters, "items": receipt.items, "revisions": receipt.revisions,
        })  # fmt: skip


@users.command()
def merge(
    guest: Annotated[str, typer.Argument(metavar="GUEST", help="Who is merged and deleted.", show_default=False)],
    into: Annotated[str, typer.Argument(metavar="INTO", help="Who gets the labels.", show_default=False)],
    yes: Yes = False,
    address: Address = "",
    tenant: Tenant = "",
    json: AsJson = False,
) -> None:
    """Make a guest's likes and dislikes a member's, and delete the guest. Cannot be undone."""
    if not yes:
        typer.confirm(f"Give everything that {guest!r} said to {into!r} and delete {guest!r}?", abort=True, err=True)
    with connect(address, tenant) as client:
        receipt = client.merge_users(guest, into)
    if json:
        print_json(receipt)
    else:
        print_fields({"receipt": receipt.receipt_id, "at": receipt.deleted_at, "into": into})


def _print_state(state: UserState, json: bool) -> None:
    if json:
        print_json(state)
        return
    print_fields({
        "user": state.user, "tenant": state.tenant, "likes": state.likes, "dislikes": state.dislikes,
        "pending": state.pending_events, "dead letters": state.dead_letters, "serving": _revision_name(state),
        **({} if state.usage is None else _usage(state.usage)),
    })  # fmt: skip


def _usage(usage: Usage) -> dict[str, int]:
    return {
        "revisions": usage.revisions, "items": usage.items, "event ids": usage.event_ids,
        "remembered labels": usage.remembered_labels,
    }  # fmt: skip


def _revision_name(state: UserState) -> str:
    current = state.current_revision
    return f"{current.name} ({current.events_total} events)" if current else "the backbone"
