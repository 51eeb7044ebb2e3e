"""`papa doctor`."""

from __future__ import annotations

import typer

from papa_serving.cli.configuration import ConfigFile, Overrides, load
from papa_serving.cli.output import AsJson, console, print_json, styled, voice
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
