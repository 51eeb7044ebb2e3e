"""A text backbone through the whole service, everything real: prompt, items, feedback, update, the next items."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from services.client import Client, FeedbackEvent, InvalidRequest, ServedBy
from tests.loop.service_process import papa_up
from tests.papa.pipelines import saved, stable_diffusion

ENVIRONMENT = {
    "PAPA_TRAINER__MIN_LABELS": "5",
    "PAPA_TRAINER__MAX_WAIT": "60",
    "PAPA_TRAINER__GATE__MIN_DIVERSITY": "0",
    "PAPA_TRAINER__GATE__MIN_CONTRAST": "0",
    "PAPA_TRAINER__GATE__MAX_SHIFT": "100",
}
BOOT = {"prompt": "a red boot", "guidance_scale": 3.0, "seed": 5, "steps": 5}


def test_prompts_and_feedback_on_latents(tmp_path: Path) -> None:
    backbone = Path(saved(stable_diffusion(), tmp_path / "backbone"))
    with papa_up(tmp_path / "data", backbone, ENVIRONMENT) as running, Client(running.grpc) as client:
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
