"""The command tree, and the one function that turns errors into a line and an exit code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import typer
from pydantic import ValidationError

from papa_serving.cli.adapters_commands import adapters, export_user, import_adapter
from papa_serving.cli.backbone_commands import backbone
from papa_serving.cli.bench_commands import bench
from papa_serving.cli.catalogue_commands import catalogue
from papa_serving.cli.configuration import describe
from papa_serving.cli.data_commands import data
from papa_serving.cli.dead_letter_commands import deadletters
from papa_serving.cli.demo_command import demo
from papa_serving.cli.experiment_commands import experiment
from papa_serving.cli.feedback_command import feedback
from papa_serving.cli.generate_command import generate
from papa_serving.cli.health_command import health, smoke
from papa_serving.cli.items_commands import items
from papa_serving.cli.latent_commands import lora, train_latent
from papa_serving.cli.output import complain, print_text
from papa_serving.cli.playground_command import playground
from papa_serving.cli.recommend_command import recommend
from papa_serving.cli.service_commands import gateway, metrics, up
from papa_serving.cli.setup_commands import config, doctor, version
from papa_serving.cli.store_commands import store
from papa_serving.cli.users_commands import users
from papa_serving.contracts.errors import PapaError
from papa_serving.local.failure import Failure

SERVICE, CALLS, SETUP = "The service", "Calling a running service", "Setting up"

HINTS = {
    "CATALOGUE_NOT_FOUND": "papa catalogue list prints them, papa catalogue import fills one",
    "CATALOGUE_UNSUPPORTED": "papa doctor says which Redis is in use",
    "CALL_FAILED": "does a service run there? papa up starts one, --address names another",
    "UNAUTHENTICATED": "the settings client.token and client.token_file say who you are",
    "CREDENTIAL_EXPIRED": "the settings client.token and client.token_file say who you are",
    "FORBIDDEN": "another token is needed: see client.token",
    "ITEM_NOT_FOUND": "papa generate prints items that may be rated",
    "REVISION_NOT_FOUND": "papa adapters list prints them",
    "GENERATOR_UNAVAILABLE": "papa health says what serves; the service's log says more",
    "STORAGE_DAMAGED": "is what listens at redis.url its Redis? the service's log says more",
    "STORAGE_UNAVAILABLE": "is its Redis there? the service's log says more",
    "USER_DELETED": "the name is free again after store.tombstone_ttl",
}
"""Remedies for a person who meets an error of the service, by its reason."""

app = typer.Typer(
    name="papa",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Settings come from papa.toml, then PAPA_* variables, then flags. Try first: [bold]papa demo[/bold]",
)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """A diffusion model of their own for every user of your recommender, learnt from likes."""
    del debug  # taken from the arguments before they are parsed: it is allowed behind a command as well


def _add(panel: str, *commands: Callable[..., None]) -> None:
    for command in commands:
        app.command(rich_help_panel=panel)(command)


_add(SERVICE, up, demo, playground, gateway, metrics)
_add(CALLS, generate, recommend)
app.add_typer(feedback, rich_help_panel=CALLS)
_add(CALLS, health, smoke)
backbone.command("train-latent")(train_latent)
backbone.command("lora")(lora)
users.command("export")(export_user)
users.command("import")(import_adapter)
app.add_typer(items, rich_help_panel=CALLS)
app.add_typer(users, rich_help_panel=CALLS)
app.add_typer(adapters, rich_help_panel=CALLS)
app.add_typer(catalogue, rich_help_panel=CALLS)
app.add_typer(experiment, rich_help_panel=CALLS)
app.add_typer(deadletters, rich_help_panel=CALLS)
_add(SETUP, doctor)
app.add_typer(store, rich_help_panel=SETUP)
app.add_typer(config, rich_help_panel=SETUP)
app.add_typer(data, rich_help_panel=SETUP)
app.add_typer(backbone, rich_help_panel=SETUP)
app.add_typer(bench, rich_help_panel=SETUP)
_add(SETUP, version)


def run(arguments: Sequence[str]) -> int:
    """Runs one command line (without the program's name) and returns the exit code."""
    debug = "--debug" in arguments
    try:
        code = app([each for each in arguments if each != "--debug"], prog_name="papa", standalone_mode=False)
    except Exception as error:
        if debug:
            raise
        return _report(error)
    return code if isinstance(code, int) else 0


def _service_hint(error: PapaError) -> str:
    """The reason, by which documentation and logs know the error, and what to do about it."""
    after = f", try again in {error.retry_after:g} s" if error.retry_after else ""
    known = HINTS.get(error.reason, "")
    return error.reason + after + (f"; {known}" if known else "")


def _report(error: Exception) -> int:
    """Prints what a person needs to know of `error` on standard error."""
    match error:
        case typer.Abort():
            line, hint, code = "given up", "", 1
        case typer.TyperException() if type(error).__name__ == "NoArgsIsHelpError":
            print_text(error.format_message())
            return 0
        case typer.TyperException():
            context = getattr(error, "ctx", None)
            line, code = error.format_message().rstrip("."), error.exit_code
            hint = f"see {context.command_path} --help" if context else ""
        case Failure():
            line, hint, code = error.message, error.hint, 1
        case ValidationError():
            line, hint, code = describe(error), "papa config show prints what is in effect", 1
        case PapaError():
            line, hint, code = error.message, _service_hint(error), 1
        case _:
            line, hint, code = f"{type(error).__name__}: {error}", "run it again with --debug for the traceback", 1
    complain(line + (f" ({hint})" if hint else ""))
    return code
