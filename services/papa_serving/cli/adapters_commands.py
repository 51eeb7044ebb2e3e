"""`papa adapters`: a user's revisions as things to list, return to, take along and bring back.

The commands are those of `papa users`, under the name under which one looks for them.
"""

from __future__ import annotations

import typer

from papa_serving.cli.transfer_commands import export_user, import_adapter
from papa_serving.cli.users_commands import reset, revisions, rollback

adapters = typer.Typer(
    name="adapters", no_args_is_help=True, help="A user's adapters: list, roll back, export, import, reset."
)
adapters.command("list")(revisions)
adapters.command()(rollback)
adapters.command("export")(export_user)
adapters.command("import")(import_adapter)
adapters.command()(reset)
