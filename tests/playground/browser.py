"""A real headless Chromium, Debian's, driven by Playwright, which downloads none of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

from tests import absent

QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


@contextmanager
def chromium() -> Iterator[Browser]:
    """Skips the test where no Chromium is installed."""
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    if binary is None:
        absent.skip("Chromium is not installed", absent.SYSTEM_PACKAGES)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=list(QUIET))
        yield browser
        browser.close()
