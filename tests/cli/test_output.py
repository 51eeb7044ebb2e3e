"""Text from strangers has no effect, ids are never cut, and JSON is alone on standard output."""

from __future__ import annotations

import ast
import io
import logging
from pathlib import Path

import pytest
from papa_serving.cli import bench_commands, output
from papa_serving.local.startup_steps import StartupSteps
from papa_serving.logs import TextFormatter
from papa_serving.terminal_text import harmless
from rich.console import Console

from tests.cli.conftest import Papa

COMMANDS = Path(output.__file__).parent
AROUND = ("print", "Console", "typer.echo", "sys.stdout.write")
HOSTILE = (
    "[red]",
    "[/b]",
    "[/red]",
    "\x1b[31mred",
    "\x1b]8;;http://evil.example\x1b\\link",
    "\u202eexe.gnp",
    "a\nb",
    "\x9b2J",
)
KEPT = ("نمی\u200cخواهم", "👨\u200d👩\u200d👧", "a\u00a0b", "क्\u200dष", "[bold]", "Zoë")


class Terminal:
    """Captures the output for a terminal of 80 columns."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, encoding: str = "utf-8") -> None:
        self._bytes = io.BytesIO()
        file = io.TextIOWrapper(self._bytes, encoding=encoding, errors="replace", write_through=True)
        self.console = output.PlainConsole(file=file, force_terminal=True, width=80, color_system=None)
        monkeypatch.setattr(output, "console", self.console)
        self._encoding = encoding

    @property
    def text(self) -> str:
        return self._bytes.getvalue().decode(self._encoding)


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_stranger_wrote_is_shown_and_does_nothing(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    terminal = Terminal(monkeypatch)
    output.print_table("", ("user", "grade"), [(name, 1e-300)])
    output.print_fields({"user": name})
    terminal.console.print(name)
    output.console.print(output.styled(("user ", "bold"), name))
    assert harmless(name) in terminal.text
    assert not set(terminal.text) & {"\x1b", "\x9b", "\u202e"}
    if "[" in name and "\x1b" not in name:
        assert terminal.text.count(name) == 4


@pytest.mark.parametrize("name", KEPT)
def test_letters_of_every_script_and_their_joiners_stay(name: str) -> None:
    assert harmless(name) == name


def test_ids_are_whole_at_eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch)
    ids = [f"{letter * 64}" for letter in "ab"]
    output.print_table("", ("item", "seed", "file"), [(each, 2**63, f"/a/long/folder/{each}.png") for each in ids])
    output.print_fields({"receipt": "c" * 120})
    terminal.console.print(f"written to {'d' * 120}")
    for whole in (*ids, *(f"/a/long/folder/{each}.png" for each in ids), "c" * 120, "d" * 120):
        assert whole in terminal.text


def test_a_narrow_table_is_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch)
    output.print_table("", ("item", "seed"), [("x", 1), ("y", 2)])
    assert next(line.split() for line in terminal.text.splitlines() if line.strip()) == ["item", "seed"]


def test_a_latin_1_terminal_gets_letters_for_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch, "latin-1")
    with StartupSteps(terminal.console).step("redis") as step:
        step.result = "ready → 日本"
    output.print_table("", ("item",), [("日本",)])
    assert "ok redis" in terminal.text


def test_a_log_line_stays_one_line() -> None:
    record = logging.makeLogRecord(
        {"msg": "user %s", "args": ("x\n2026 ERROR forged\x1b[2J",), "name": "n", "levelname": "INFO"}
    )
    line = TextFormatter().format(record)
    assert "\n" not in line
    assert "\x1b" not in line


def test_there_is_one_way_to_print() -> None:
    """Commands print through `output`, which knows what is data."""
    around = [
        f"{path.name}:{node.lineno}"
        for path in COMMANDS.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if path.name != "output.py" and isinstance(node, ast.Call) and ast.unparse(node.func) in AROUND
    ]
    assert not around
    assert not isinstance(Console(), output.PlainConsole)


@pytest.mark.parametrize("command", [("generate", "alice"), ("users", "export", "alice"), ("demo",)])
def test_nothing_is_made_for_a_folder_that_is_closed(papa: Papa, tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "file").write_text("")
    ended = papa(*command, "--out", str(tmp_path / "file" / "items"), "--address", "127.0.0.1:1")
    assert ended.code == 1
    assert "cannot be written" in ended.err


@pytest.mark.parametrize(
    "command",
    [
        ("generate", "alice"),
        ("items", "get", "alice", "g-0"),
        ("users", "export", "alice"),
        ("demo",),
        ("data", "fetch", "mnist"),
        ("backbone", "train", "no.npz"),
    ],
    ids=lambda command: command[0],
)
def test_a_folder_is_tried_where_its_permissions_say_nothing(papa: Papa, command: tuple[str, ...]) -> None:
    """/proc is open to root by its permissions, and takes no file of anybody, as a read-only mount does."""
    address = ("--address", "127.0.0.1:1") if command[0] in ("generate", "items", "users") else ()
    ended = papa(*command, "--out", "/proc/papa", *address)
    assert ended.code == 1
    assert "papa: /proc/papa cannot be written" in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [
        ("backbone", "train", "no.npz"),
        ("backbone", "train-latent", "no.npz"),
        ("backbone", "oracle", "no.npz"),
        ("backbone", "report", "no.npz"),
        ("backbone", "lora", "."),
        ("data", "fetch", "mnist", "--mirror", "http://127.0.0.1:1"),
    ],
    ids=lambda command: command[1],
)
def test_long_work_begins_only_where_its_result_can_be_written(
    papa: Papa, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """Nothing else is looked at before: neither the data, which are not there, nor the adapter."""
    (tmp_path / "file").write_text("")
    ended = papa(*command, "--out", str(tmp_path / "file" / "out"))
    assert ended.code == 1
    assert ended.err.startswith(f"papa: {tmp_path}/file")
    assert f"cannot be written: {tmp_path}/file is no folder (name another folder with --out)" in ended.err
    assert ended.err.count("\n") == 1


def test_a_benchmark_begins_only_where_its_figures_can_be_written(
    papa: Papa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "benchmarks" / "engine").mkdir(parents=True)
    (tmp_path / "docs").write_text("")
    monkeypatch.setattr(bench_commands, "CHECKOUT", tmp_path)
    ended = papa("bench", "engine")
    assert ended.code == 1
    assert f"{tmp_path}/docs/results cannot be written" in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("option", ["--out", "--page"])
@pytest.mark.parametrize("joined", [True, False])
def test_a_benchmark_looks_at_the_place_that_is_named(
    papa: Papa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, joined: bool
) -> None:
    """Paths are the caller's, wherever the checkout lies."""
    (tmp_path / "file").write_text("")
    checkout = tmp_path / "checkout"
    program = checkout / "benchmarks" / "engine"
    program.mkdir(parents=True)
    (checkout / "docs" / "results").mkdir(parents=True)
    (program.parent / "__init__.py").touch()
    (program / "__main__.py").write_text(
        "import pathlib, sys; pathlib.Path('asked').write_text(' '.join(sys.argv[1:]))"
    )
    monkeypatch.setattr(bench_commands, "CHECKOUT", checkout)

    def named(path: str) -> list[str]:
        return [f"{option}={path}"] if joined else [option, path]

    ended = papa("bench", "engine", *named("file/below/figures"))
    assert ended.code == 1
    assert f"cannot be written: {tmp_path}/file is no folder (name another" in ended.err
    assert ended.err.count("\n") == 1
    assert not (checkout / "asked").exists()
    assert papa("bench", "engine", *named("figures"), "--turns", "3").code == 0
    asked = (checkout / "asked").read_text()
    assert asked == " ".join([*named(f"{tmp_path}/figures"), "--turns", "3"])


def test_metrics_of_a_folder_that_cannot_be_made_are_refused_in_one_line(papa: Papa, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = papa("metrics", "--set", f"data_dir={tmp_path / 'file'}", "--set", "metrics.port=0")
    assert ended.code == 1
    assert "cannot be written" in ended.err
    assert "data_dir" in ended.err
    assert ended.err.count("\n") == 1


def test_a_report_on_no_backbone_is_one_line(papa: Papa, tmp_path: Path) -> None:
    ended = papa("backbone", "report", "no.npz", "--backbone", "nothing")
    assert ended.code == 1
    assert ended.err.startswith("papa: no backbone 'nothing'")
    assert ended.err.count("\n") == 1
