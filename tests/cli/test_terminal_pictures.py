"""Pictures in a terminal: what is written is the picture."""

from __future__ import annotations

import base64
import io
import re

import pytest
from papa_serving.cli import terminal_pictures
from papa_serving.client import Item, ServedBy
from PIL import Image
from rich.console import Console

RED, BLUE = (255, 0, 0), (0, 0, 255)


def item(colour: tuple[int, int, int]) -> Item:
    encoded = io.BytesIO()
    Image.new("RGB", (28, 28), colour).save(encoded, "PNG")
    return Item("", encoded.getvalue(), "image/png", 0, 0, ServedBy.BASE)


def shown(environment: dict[str, str], width: int = 60) -> str:
    """Two items as they reach a terminal of so many columns."""
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, color_system="truecolor", width=width)
    terminal_pictures.show([item(RED), item(BLUE)], console, environment)
    return written.getvalue()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"LC_TERMINAL": "iTerm2"}, "iterm"),
        ({"TERM": "xterm-256color"}, None),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux"}, None),
    ],
)
def test_the_terminal_is_known_by_its_variables(environment: dict[str, str], expected: str | None) -> None:
    assert terminal_pictures.graphics_protocol(environment) == expected


def colours(encoded: str) -> tuple[object, object]:
    """The colours in the middle of the first and of the second tile."""
    sheet = Image.open(io.BytesIO(base64.b64decode(encoded)))
    return sheet.getpixel((sheet.width // 4, sheet.height // 2)), sheet.getpixel(
        (3 * sheet.width // 4, sheet.height // 2)
    )


def test_kitty_and_iterm_get_the_picture_itself() -> None:
    pieces = re.findall("\x1b_G(.*?);(.*?)\x1b\\\\", shown({"KITTY_WINDOW_ID": "1"}))
    assert [keys for keys, _ in pieces] == ["a=T,f=100,m=0"]
    assert colours("".join(piece for _, piece in pieces)) == (RED, BLUE)
    (inline,) = re.findall("\x1b]1337;File=inline=1;size=\\d+:(.*?)\x07", shown({"TERM_PROGRAM": "WezTerm"}))
    assert colours(inline) == (RED, BLUE)


def test_a_large_picture_goes_to_kitty_in_pieces() -> None:
    pieces = re.findall("\x1b_G(.*?);(.*?)\x1b\\\\", terminal_pictures.kitty(bytes(10_000)))
    assert [keys for keys, _ in pieces] == ["a=T,f=100,m=1", "m=1", "m=1", "m=0"]
    assert base64.b64decode("".join(piece for _, piece in pieces)) == bytes(10_000)


def test_elsewhere_two_pixels_make_a_character() -> None:
    lines = shown({}).splitlines()
    assert len(lines) == 10
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    assert set(plain) == {"▀" * 42}
    assert "38;2;255;0;0;48;2;255;0;0" in lines[5]
    assert "38;2;0;0;255;48;2;0;0;255" in lines[5]
    assert len(shown({}, width=30).splitlines()) == 21, "a narrow terminal gets one item a row"
