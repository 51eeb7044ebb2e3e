"""`make screenshots`: the README's pictures of the playground, from the shipped backbone as a shopper teaches it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.absent import reason
from tests.loop.service_process import papa_up
from tests.playground.browser import chromium

FOLDER = os.environ.get("SCREENSHOTS", "")
DESKTOP, PHONE = {"width": 1440, "height": 960}, {"width": 390, "height": 844}
ON_A_FREE_PORT = {"PAPA_PLAYGROUND__ENABLED": "true", "PAPA_PLAYGROUND__PORT": "0"}
ROUNDS, ITEMS = 5, 10
PATIENCE = 600_000
asked_for = pytest.mark.skipif(
    not FOLDER, reason=reason("takes pictures of the playground, for a minute or two", "make screenshots")
)


@asked_for
def test_take_pictures(tmp_path: Path) -> None:
    with chromium() as browser, papa_up(tmp_path, Path("fashion_mnist"), ON_A_FREE_PORT) as service:
        context = browser.new_context(viewport=DESKTOP, color_scheme="light")  # type: ignore[arg-type]
        page = context.new_page()
        _open(page, f"{service.playground}/?user=ana")
        page.get_by_role("button", name="Start the shopper").click()
        expect(page.locator("#shopper-hint")).to_contain_text(f"Round {ROUNDS + 1} of", timeout=PATIENCE)
        page.get_by_role("button", name="Stop the shopper").click()
        # A revision for each round, beside the backbone, each with its strip.
        expect(page.locator("#history .strip img")).to_have_count((ROUNDS + 1) * 6, timeout=PATIENCE)
        liked = int(page.locator("#likes").inner_text())
        assert liked / (ITEMS * ROUNDS) > 0.3, "the shopper sees more and more to its taste"
        page.screenshot(path=Path(FOLDER) / "playground_desktop.png")
        users = context.storage_state()
        context.close()

        phone = browser.new_context(
            viewport=PHONE, device_scale_factor=2, is_mobile=True, has_touch=True, color_scheme="dark",
            storage_state=users,
        )  # type: ignore[arg-type]  # fmt: skip
        page = phone.new_page()
        _open(page, f"{service.playground}/?user=ana")
        page.locator(".item .yes").nth(0).tap()
        page.locator(".item .no").nth(1).tap()
        page.locator(".item .yes").nth(4).tap()
        expect(page.locator("#said")).to_contain_text("Learning", timeout=PATIENCE)
        page.screenshot(path=Path(FOLDER) / "playground_phone.png")
        phone.close()


@asked_for
def test_take_a_picture_of_what_was_asked_for(tmp_path: Path) -> None:
    """Uses the shipped text backbone."""
    with chromium() as browser, papa_up(tmp_path, Path("fashion_mnist_text"), ON_A_FREE_PORT) as service:
        page = browser.new_page(viewport={"width": 1440, "height": 640}, color_scheme="light")  # type: ignore[arg-type]
        _open(page, f"{service.playground}/?user=ada")
        page.get_by_label("Show me").fill("a boot")
        page.get_by_role("button", name="Ask").click()
        expect(page.locator("#said")).to_contain_text("Made by the backbone", timeout=PATIENCE)
        expect(page.locator("#history .strip img")).to_have_count(6, timeout=PATIENCE)
        page.locator(".item .yes").nth(1).click()
        page.locator(".item .no").nth(3).click()
        page.screenshot(path=Path(FOLDER) / "playground_words.png")


def _open(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.locator(".item img")).to_have_count(ITEMS, timeout=PATIENCE)
