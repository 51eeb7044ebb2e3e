"""Every code block of the documentation runs or at least parses."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass
from papa_serving.cli import app as application
from papa_serving.settings import Settings
from papa_serving.stubs.serving.v1 import feedback_pb2, generation_pb2, user_pb2

from tests.docs.support import (
    PAGES,
    ROOT,
    RUN_AGAINST_A_SERVICE,
    RUN_FOR_ITS_EVENT,
    RUN_WITH_A_PICTURE,
    blocks,
    command_lines,
    every_block,
)

PARSED_ALONE = {"docs/security.md"}
"""It names certificates and a host of the reader's; tests/gateway/test_tls.py does what it shows."""
PARSERS = {"python": ast.parse, "toml": tomllib.loads, "yaml": yaml.safe_load, "json": json.loads}
"""Blocks for a cluster or another language are only parsed; "sh" by bash."""


@pytest.mark.slow
def test_the_researchers_first_script_runs_as_a_notebook_too_and_shows_a_gain(tmp_path: Path) -> None:
    notebook = json.loads((ROOT / "docs" / "examples" / "first_steps.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    code = "\n\n\n".join(cells) + "\n"
    assert [code] == blocks("docs/researcher-guide.md"), "make generated"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    before, after = map(float, re.findall(r"success ([01]\.\d\d), coverage [01]\.\d\d", result.stdout))
    assert after > before + 0.2


def test_what_is_not_run_parses() -> None:
    for page, language, code in every_block():
        if language == "sh":
            done = subprocess.run(["bash", "-n"], input=code, text=True, capture_output=True, check=False)
            assert done.returncode == 0, f"{page}: {done.stderr}"
        elif language in PARSERS:
            PARSERS[language](code)


def test_every_page_with_python_is_run() -> None:
    """Each is in one of the tests that run pages; a page with more Python must be added to one."""
    written = {page for page, language, _ in every_block() if language == "python"}
    assert written - PARSED_ALONE == {
        "docs/researcher-guide.md",
        RUN_WITH_A_PICTURE,
        RUN_FOR_ITS_EVENT,
        *RUN_AGAINST_A_SERVICE,
    }


FORMULAS = {"docs/algorithm.md"}
"""An indented block that is no code."""


def test_every_block_says_what_it_is() -> None:
    """A block without a language, or with indentation alone, would not be tested."""
    for page in PAGES:
        name, inside, before = str(page.relative_to(ROOT)), False, ""
        for line in page.read_text().splitlines():
            if fence := re.match(r" *```(.*)", line):
                assert inside or fence[1], f"{name}: a block without a language after {before!r}"
                inside = not inside
            elif not inside and line.startswith("    ") and not before.strip():
                assert name in FORMULAS, f"{name}: {line}"
            before = line


COMMANDS: Any = typer.main.get_command(application.app)


def test_every_papa_command_exists_with_its_options() -> None:
    checked = 0
    for page, words in command_lines():
        if Path(words[0]).name != "papa":
            continue
        command, rest = COMMANDS, words[1:]
        while hasattr(command, "commands"):
            known = {option for each in command.params for option in each.opts} | {"--help", "--install-completion"}
            while rest and rest[0] in known:
                rest = rest[1:]
            if not rest:
                break
            assert rest[0] in command.commands, f"{page}: {words}"
            command, rest = command.commands[rest[0]], rest[1:]
        options = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
        if "ignore_unknown_options" not in command.context_settings:
            used = {word.partition("=")[0] for word in rest if word.startswith("--")}
            assert used <= options | {"--help", "--debug"}, f"{page}: {words}"
        checked += 1
    assert checked > 20


def test_every_setting_of_a_command_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    """And takes the value that is shown; each block by itself."""
    checked = 0
    for page, language, code in every_block():
        if language == "sh":
            with monkeypatch.context() as environment:
                for name, value in re.findall(r"\b(PAPA_\w+)=(\S+)", code):
                    section = name.removeprefix("PAPA_").partition("__")[0].lower()
                    assert section in Settings.model_fields, f"{page}: {name}"
                    environment.setenv(name, value)
                    checked += 1
                Settings()
    assert checked > 5


def test_every_grpcurl_call_is_one_of_the_contract() -> None:
    services = {
        each.full_name: each
        for module in (feedback_pb2, generation_pb2, user_pb2)
        for each in module.DESCRIPTOR.services_by_name.values()
    }
    bodies = [words for _, words in command_lines() if words[0] == "grpcurl"]
    assert len(bodies) == 3
    for words in bodies:
        service, _, method = words[-1].partition("/")
        request = GetMessageClass(services[service].methods_by_name[method].input_type)
        json_format.Parse(words[words.index("-d") + 1], request())


def test_every_make_target_module_and_file_of_a_command_exists() -> None:
    targets = set(re.findall(r"^([a-z]+[a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page, words in command_lines():
        if words[0] == "make":
            assert {word for word in words[1:] if "=" not in word} <= targets, f"{page}: {words}"
        if words[0] == "python" and words[1] == "-m" and words[2].startswith(("benchmarks", "tests")):
            folder = ROOT / words[2].replace(".", "/")
            assert folder.is_dir() or folder.with_suffix(".py").is_file(), f"{page}: {words}"
        for word in words:
            if word.startswith(("deploy/", "helm/", "protos/", "docs/")) and "*" not in word:
                assert (ROOT / word).exists(), f"{page}: {words}"


def test_every_link_within_the_repository_leads_somewhere() -> None:
    dead = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert dead == []
