"""A text backbone through the whole service, everything real: prompt, items, feedback, update, the next items."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from papa_serving.client import Client, FeedbackEvent, InvalidRequest, ServedBy
from PIL import Image
from playwright.sync_api import expect

from papa.backbone.vocabulary_file import write_vocabulary
from tests.loop.service_process import Running, papa_up
from tests.papa.pipelines import saved, stable_diffusion
from tests.playground.browser import chromium

ENVIRONMENT = {
    "PAPA_PLAYGROUND__ENABLED": "true",
    "PAPA_PLAYGROUND__PORT": "0",
    "PAPA_PLAYGROUND__PER_PAGE": "4",
    "PAPA_GENERATOR__STEPS": "5",
    "PAPA_TRAINER__MIN_LABELS": "5",
    "PAPA_TRAINER__MAX_WAIT": "60",
    "PAPA_TRAINER__GATE__MIN_DIVERSITY": "0",
    "PAPA_TRAINER__GATE__MIN_CONTRAST": "0",
    "PAPA_TRAINER__GATE__MAX_SHIFT": "100",
}
BOOT = {"prompt": "a red boot", "guidance_scale": 3.0, "seed": 5, "steps": 5}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("prompts")
    backbone = Path(saved(stable_diffusion(), folder / "backbone"))
    write_vocabulary(backbone, ["boot", "shirt"], {"wellington": "boot"})
    with papa_up(folder / "data", backbone, ENVIRONMENT) as service:
        yield service


def test_prompts_and_feedback_on_latents(running: Running) -> None:
    with Client(running.grpc) as client:
        first = client.generate("ada", 4, **BOOT)
        assert Image.open(io.BytesIO(first.items[0].image)).size == (16, 16)
        assert client.generate("ada", 4, **BOOT).items[0].image == first.items[0].image
        assert client.generate("ada", 4, **BOOT | {"prompt": "shirt"}).items[0].image != first.items[0].image
        with pytest.raises(InvalidRequest, match="guidance_scale"):
            client.generate("ada", 1, prompt="shirt", guidance_scale=0.5)
        events = [
            FeedbackEvent("ada", 1.0 if i % 2 else -1.0, item_id=item.item_id) for i, item in enumerate(first.items)
        ]
        catalogue = FeedbackEvent("ada", 1.0, image=first.items[1].image, prompt="a boot")
        client.submit_feedback([*events, catalogue])
        revision = client.wait_for_revision("ada", settled=True, timeout=180)
        again = client.generate("ada", 4, **BOOT)
        assert again.served_by is ServedBy.ADAPTER
        assert revision
        before, after = (np.asarray(Image.open(io.BytesIO(run.items[0].image))) for run in (first, again))
        assert not np.array_equal(before, after)


@pytest.mark.browser
def test_the_page_asks_for_what_is_written(running: Running) -> None:
    """Items, the backbone's version of them and the revisions' strips are all of what was asked for."""
    asked: list[str] = []
    with chromium() as browser:
        page = browser.new_page()
        page.on("request", lambda each: asked.append(each.post_data or "") if each.url.endswith("generate") else None)
        page.goto(f"{running.playground}/?user=eve")
        expect(page.locator(".item img")).to_have_count(4, timeout=60_000)
        expect(page.locator("#history .strip img")).to_have_count(6, timeout=60_000)
        asked.clear()
        page.get_by_label("Show me").fill("a red boot")
        page.keyboard.press("Enter")
        expect(page.locator("#said")).to_contain_text("Made by the backbone", timeout=60_000)
        expect(page.locator("#reading")).to_have_text("The backbone does not know “red”: left out.")
        page.get_by_role("button", name="Before").click()
        expect(page.locator(".badge")).to_have_count(4)
        expect(page.locator("#history .strip img")).to_have_count(6, timeout=60_000)
        assert len(asked) == 3
        assert all('"prompt":"a red boot"' in body for body in asked)
        asked.clear()
        words = page.get_by_role("group", name="Words that the backbone knows").get_by_role("button")
        expect(words).to_have_text(["boot", "shirt"])
        words.nth(1).click()
        expect(page.get_by_label("Show me")).to_have_value("shirt")
        expect(page.locator("#reading")).to_be_hidden(timeout=60_000)
        assert any('"prompt":"shirt"' in body for body in asked)
