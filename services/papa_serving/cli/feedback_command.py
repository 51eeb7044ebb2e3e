"""`papa feedback`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typing_extensions import override

from papa_serving.cli.connection import Address, Tenant, UserId, connect
from papa_serving.cli.feedback_import import import_history
from papa_serving.cli.generate_command import MetadataOption, Tags, notes_of
from papa_serving.cli.output import AsJson, console, print_json, print_table, voice
from papa_serving.client import FeedbackEvent
from papa_serving.local.failure import Failure

Likes = Annotated[list[str], typer.Option("--like", metavar="ITEM", help="A liked item; may be repeated.")]
Dislikes = Annotated[list[str], typer.Option("--dislike", metavar="ITEM", help="A disliked item; may be repeated.")]
Grades = Annotated[
    list[str], typer.Option("--grade", metavar="ITEM=GRADE", help="A graded item, -1 to 1 but not 0; may be repeated.")
]
LikedImages = Annotated[
    list[Path], typer.Option("--like-image", help="An image of your own catalogue.", dir_okay=False)
]
DislikedImages = Annotated[list[Path], typer.Option("--dislike-image", help="The same, disliked.", dir_okay=False)]
Typed = Annotated[
    list[str],
    typer.Option(
        "--event",
        metavar="ITEM=TYPE",
        help="What the user did with an item: view, click, cart, purchase, like, dislike or skip; may be repeated.",
    ),
]
GenerationId = Annotated[
    str, typer.Option("--generation", metavar="ID", help="The generation that led to all of it.", show_default=False)
]
Wait = Annotated[bool, typer.Option("--wait", help="Return once the adapter has learnt all of it.")]


class OfUsers(TyperGroup):
    """`papa feedback USER …` is `papa feedback send USER …`: what is no command is a user."""

    @override
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["send", *args]
        return super().parse_args(ctx, args)


feedback = typer.Typer(
    name="feedback",
    cls=OfUsers,
    no_args_is_help=True,
    help="Tell what users like and did: papa feedback USER …, or import a history.",
)
feedback.command("import")(import_history)


@feedback.command()
def send(
    user: UserId,
    likes: Likes = [],  # noqa: B006 - typer copies defaults
    dislikes: Dislikes = [],  # noqa: B006
    grades: Grades = [],  # noqa: B006
    liked_images: LikedImages = [],  # noqa: B006
    disliked_images: DislikedImages = [],  # noqa: B006
    typed: Typed = [],  # noqa: B006
    generation: GenerationId = "",
    metadata: MetadataOption = [],  # noqa: B006
    tags: Tags = [],  # noqa: B006
    wait: Wait = False,
    address: Address = "",
    tenant: Tenant = "",
    json: AsJson = False,
) -> None:
    """Tell what a user likes and dislikes."""
    events = [FeedbackEvent(user, 1.0, item_id=item) for item in likes]
    events += [FeedbackEvent(user, -1.0, item_id=item) for item in dislikes]
    events += [_graded(user, text) for text in grades]
    events += [_typed(user, text) for text in typed]
    events += [FeedbackEvent(user, 1.0, image=_image(path)) for path in liked_images]
    events += [FeedbackEvent(user, -1.0, image=_image(path)) for path in disliked_images]
    if not events:
        raise Failure("there is nothing to say", "name at least one --like, --dislike, --grade or --event")
    notes = notes_of(metadata)
    events = [replace(each, generation_id=generation, metadata=notes, tags=tags) for each in events]
    with connect(address, tenant) as client:
        before = client.get_user(user).current_revision
        outcomes = client.submit_feedback(events)
        revision = None
        if wait and any(each.accepted for each in outcomes):
            with voice(json).status("learning …"):
                revision = client.wait_for_revision(
                    user, after=before.name if before else "", settled=True, timeout=300.0
                )
    if json:
        answers = [
            {"event_id": each.event_id, "sequence": each.sequence, "duplicate": each.duplicate}
            | ({"reason": each.error.reason, "message": each.error.message} if each.error else {})
            for each in outcomes
        ]
        print_json({"outcomes": answers, "revision": revision})
    else:
        rows = [
            (each.event_id, each.sequence or "-", each.error.message if each.error else "accepted") for each in outcomes
        ]
        print_table("", ("event", "sequence", "outcome"), rows)
        if revision:
            console.print(f"learnt: revision {revision.name} of {revision.events_total} events")
    if not all(each.accepted for each in outcomes):
        raise typer.Exit(1)


def _graded(user: str, text: str) -> FeedbackEvent:
    item, _, grade = text.rpartition("=")
    try:
        return FeedbackEvent(user, float(grade), item_id=item)
    except ValueError as error:
        raise Failure(f"--grade takes ITEM=GRADE, not {text!r}", "for instance --grade 3f0c…=0.5") from error


def _typed(user: str, text: str) -> FeedbackEvent:
    item, equals, kind = text.rpartition("=")
    if not equals or not item:
        raise Failure(f"--event takes ITEM=TYPE, not {text!r}", "for instance --event 3f0c…=click")
    return FeedbackEvent(user, item_id=item, type=kind)


def _image(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Failure(f"{path} cannot be read: {error.strerror}") from error
