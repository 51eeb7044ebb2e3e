"""`papa adapters`: a user's revisions as things to list, return to, export and import.

`papa users` has the same commands under its own name.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from papa_serving.cli.connection import Address, Tenant, UserId, connect
from papa_serving.cli.output import AsJson, check_writable, console, print_json, voice
from papa_serving.cli.users_commands import reset, revisions, rollback
from papa_serving.contracts.limits import ADAPTER_FILES
from papa_serving.local.failure import Failure

_NAME = re.compile(r"(?:history/)?[A-Za-z0-9][A-Za-z0-9._-]{0,140}")

Out = Annotated[Path, typer.Option("--out", help="Folder for the files; created when absent.", file_okay=False)]
RevisionName = Annotated[str, typer.Option("--revision", help="Not the current one.", show_default=False)]
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="An export, or a folder that peft has saved.")]
BackboneHash = Annotated[
    str, typer.Option("--backbone-hash", help="Hash of its backbone; the one in manifest.json.", show_default=False)
]


def export_user(
    user: UserId,
    out: Out = Path("export"),
    revision: RevisionName = "",
    address: Address = "",
    tenant: Tenant = "",
    json: AsJson = False,
) -> None:
    """Save a user's adapter in peft's format, and what it was learnt from."""
    check_writable(out)
    with connect(address, tenant) as client, voice(json).status("exporting …"):
        export = client.export_user(user, revision=revision)
    for name, data in export.files.items():
        # The names come from a server: none of them may lead out of the folder.
        if not _NAME.fullmatch(name):
            raise Failure(f"the export holds a file of the odd name {name!r}", "is this a papa gateway?")
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    files = {name: len(data) for name, data in export.files.items()}
    if json:
        print_json({"state": export.state, "revisions": export.revisions, "folder": out, "files": files})
        return
    for name, size in files.items():
        console.print(f"{size:>10} {out / name}")
    console.print(f"{len(export.revisions)} revisions, {len(files)} files")


def import_adapter(
    user: UserId,
    folder: Folder,
    backbone_hash: BackboneHash = "",
    address: Address = "",
    tenant: Tenant = "",
    json: AsJson = False,
) -> None:
    """Make an adapter in peft's format the user's current revision."""
    try:
        files = {name: (folder / name).read_bytes() for name in ADAPTER_FILES if (folder / name).is_file()}
    except OSError as error:
        raise Failure(f"{folder} cannot be read: {error.strerror}") from error
    if not files:
        raise Failure(f"{folder} holds no adapter", f"it wants {ADAPTER_FILES[0]} and {ADAPTER_FILES[1]}")
    with connect(address, tenant) as client:
        made = client.import_adapter(user, files, backbone_hash=backbone_hash)
    if json:
        print_json(made)
    else:
        console.print(f"serving {made.name} (before: {made.parent or 'the backbone'})")


adapters = typer.Typer(
    name="adapters", no_args_is_help=True, help="A user's adapters: list, roll back, export, import, reset."
)
adapters.command("list")(revisions)
adapters.command()(rollback)
adapters.command("export")(export_user)
adapters.command("import")(import_adapter)
adapters.command()(reset)
