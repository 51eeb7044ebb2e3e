"""The documentation site: `make docs` builds it into build/site."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

project = "PAPA"
author = "The PAPA authors"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["examples"]
root_doc = "index"
language = "en"

html_theme = "furo"
html_title = "PAPA"
html_favicon = "images/icon.svg"
html_logo = "images/icon.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#5b3df5", "color-brand-content": "#4a30d0"},
    "dark_css_variables": {"color-brand-primary": "#a593ff", "color-brand-content": "#b7a9ff"},
}

myst_enable_extensions = ["colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 3
suppress_warnings = [
    "myst.xref_missing",  # links to files of the repository that are no pages; tests/docs checks that they exist
    "toc.not_included",  # a page may be read from where it is linked alone
]

nitpicky = True
nitpick_ignore_regex = [
    # Other people's types, whose pages are not ours; without a network there is no inventory to look them up in.
    ("py:class", r"(abc|torch|collections|datetime|pathlib|enum|grpc|np)\..*"),
    ("py:class", r"Image|NDArray"),
    # What Sphinx cuts off a generic type's name.
    ("py:class", r".*\[(str|float)"),
]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = False  # it reads the defaults in the source, where generate has **options
autodoc_default_options = {"members": True}
default_role = "code"
add_module_names = False

_MARKUP = re.compile(r"([*|\\])|(?<=\w)_(?=\W|$)")


def _as_plain_text(_app: object, _what: str, _name: str, _object: object, _options: object, lines: list[str]) -> None:
    """Docstrings are written as text, where *, | and a trailing _ mean themselves; only backticks mark code."""
    for place, line in enumerate(lines):
        parts = re.split(r"(`[^`]*`)", line)
        lines[place] = "".join(
            part if part.startswith("`") else _MARKUP.sub(lambda found: "\\" + found[0], part) for part in parts
        )


def setup(app: object) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _as_plain_text)  # type: ignore[attr-defined]
