"""Pictures in the terminal: by its graphics protocol if it has one, else two pixels per character.

Sources: sw.kovidgoyal.net/kitty/graphics-protocol; iterm2.com/documentation-images.html.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.style import Style
from rich.text import Text

from papa_serving.client import Item

if TYPE_CHECKING:
    from PIL.Image import Image

_GAP = 2
_BLOCK_TILE, _PIXEL_TILE = 20, 96  # pixels of one item: of a character cell there are only two
_PIXELS_A_COLUMN = 9  # of a usual font
_KITTY_CHUNK = 4096
_UPPER_HALF = "▀"


def show(items: Sequence[Item], console: Console, environment: Mapping[str, str]) -> None:
    """Prints the items in rows that fill the width of the terminal."""
    protocol = graphics_protocol(environment)
    if protocol is None:
        sheet = _sheet(items, _BLOCK_TILE, console.width)
        for line in half_blocks(sheet):
            console.print(line, soft_wrap=True)
        return
    encoded = io.BytesIO()
    _sheet(items, _PIXEL_TILE, console.width * _PIXELS_A_COLUMN).save(encoded, "PNG")
    console.file.write((kitty if protocol == "kitty" else iterm)(encoded.getvalue()) + "\n")
    console.file.flush()


def graphics_protocol(environment: Mapping[str, str]) -> str | None:
    """ "kitty" or "iterm", by the variables that terminals set; None below a multiplexer, which passes neither on."""
    if environment.get("TMUX") or environment.get("STY"):
        return None
    terminal, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if environment.get("KITTY_WINDOW_ID") or terminal == "xterm-kitty" or program == "ghostty":
        return "kitty"
    if program in ("iTerm.app", "WezTerm") or environment.get("LC_TERMINAL") == "iTerm2":
        return "iterm"
    return None


def kitty(png: bytes) -> str:
    """A PNG as kitty's escape sequences, in pieces of at most 4,096 characters."""
    text = base64.b64encode(png).decode()
    pieces = [text[start : start + _KITTY_CHUNK] for start in range(0, len(text), _KITTY_CHUNK)]
    last = len(pieces) - 1
    keys = [("a=T,f=100," if not index else "") + f"m={int(index < last)}" for index in range(len(pieces))]
    return "".join(f"\x1b_G{key};{piece}\x1b\\" for key, piece in zip(keys, pieces, strict=True))


def iterm(png: bytes) -> str:
    """A PNG as iTerm2's escape sequence."""
    return f"\x1b]1337;File=inline=1;size={len(png)}:{base64.b64encode(png).decode()}\x07"


def half_blocks(image: Image) -> Iterator[Text]:
    """One line of text for two rows of pixels: foreground colour above, background colour below."""
    colours, width = image.convert("RGB").tobytes().hex(), image.width
    pixels = [f"#{colours[start : start + 6]}" for start in range(0, len(colours), 6)]
    for y in range(0, image.height - 1, 2):
        line = Text(end="")
        for x in range(y * width, y * width + width):
            line.append(_UPPER_HALF, Style(color=pixels[x], bgcolor=pixels[x + width]))
        yield line


def _sheet(items: Sequence[Item], tile: int, width: int) -> Image:
    from PIL import Image

    step = tile + _GAP
    columns = max(1, min(len(items), width // step))
    rows = -(-len(items) // columns)
    sheet = Image.new("RGB", (columns * step - _GAP, rows * step - _GAP))
    for index, item in enumerate(items):
        picture = item.pil().convert("RGB").resize((tile, tile), Image.Resampling.BICUBIC)
        sheet.paste(picture, (index % columns * step, index // columns * step))
    return sheet
