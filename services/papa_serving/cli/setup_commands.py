"""`papa doctor`, `papa config` and `papa version`: what this installation has and what is in effect."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed

import typer

from papa_serving.cli.configuration import ConfigFile, Overrides, as_json, as_toml, load
from papa_serving.cli.output import AsJson, console, print_fields, print_json, print_text, styled, voice
from papa_serving.local.startup_steps import mark


def doctor(file: ConfigFile = None, overrides: Overrides = [], json: AsJson = False) -> None:  # noqa: B006
    """Check ports, Redis, disk, device and backbone; say how to mend what is wrong."""
    from papa_serving.local.diagnosis import Verdict, diagnose

    findings = []
    with voice(json).status("looking …"):
        for finding in diagnose(load(file, overrides)):
            findings.append(finding)
            if not json:
                sign, colour = mark(finding.verdict.value, console)
                console.print(styled((sign, colour), f" {finding.check:<15} {finding.found}"))
                if finding.hint:
                    console.print(styled((f"  {finding.hint}", "bold")))
    if json:
        print_json(findings)
    if any(finding.verdict is Verdict.BAD for finding in findings):
        raise typer.Exit(1)


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


_PACKAGES = ("grpcio", "torch", "diffusers", "ray", "redis")


def version(json: AsJson = False) -> None:
    """The versions of this product and of what it stands on."""
    versions = {"papa": _installed("papa-serving"), "python": platform.python_version()}
    versions |= {package: _installed(package) for package in _PACKAGES}
    if json:
        print_json(versions)
    else:
        print_fields(versions)


def _installed(package: str) -> str:
    try:
        return installed(package)
    except PackageNotFoundError:
        return "not installed"
