"""The console script `papa`."""

from __future__ import annotations

import io
import sys


def main() -> None:
    """Runs one command and exits with its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a letter gets "?", not a traceback
    try:
        from papa_serving.cli.app import run
    except ModuleNotFoundError as missing:
        sys.exit(f"papa: the package {missing.name} is missing. Try: pip install 'papa-serving[server]'")
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
