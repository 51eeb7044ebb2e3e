"""`papa config`: what is in effect, and whether it is valid."""

from __future__ import annotations

import typer

from papa_serving.cli.configuration import ConfigFile, Overrides, as_json, as_toml, load
from papa_serving.cli.output import AsJson, print_json, print_text

config = typer.Typer(
    name="config", no_args_is_help=True, help="Show and check settings: papa.toml, then PAPA_* variables, then flags."
)


@config.command()
def show(file: ConfigFile = None, overrides: Overrides = [], json: AsJson = False) -> None:  # noqa: B006 - typer copies it
    """Print the settings in effect as a papa.toml (or JSON), secrets masked."""
    settings = load(file, overrides)
    print_text(as_json(settings) if json else as_toml(settings))


@config.command()
def validate(file: ConfigFile = None, overrides: Overrides = [], json: AsJson = False) -> None:  # noqa: B006
    """Check the settings; an error names the field and leaves with exit code 1."""
    load(file, overrides)
    if json:
        print_json({"valid": True})
    else:
        print_text("the settings are valid")
