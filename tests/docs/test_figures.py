"""Figures in prose that follow from the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from papa_serving.contracts.limits import MAX_GUIDANCE, MAX_ID, MAX_PROMPT, MAX_REMEMBERED_LABELS
from papa_serving.demo.loop import DemoPlan
from papa_serving.gateway.conversion.pictures import MAX_SCANS
from papa_serving.gateway.conversion.validation import MIN_GRADE
from papa_serving.gateway.rpc.admission import GROUP_WEIGHT
from papa_serving.gateway.rpc.edge import OPEN_STREAMS, OPEN_STREAMS_PER_CONNECTION
from papa_serving.local.service import REDIS_DEATHS
from papa_serving.settings.schema import GatewaySettings, StoreSettings

from papa.config import DEFAULT_LORA, DEFAULT_UPDATE, LATENT_UPDATE
from papa.denoiser import SHIPPED, load_denoiser
from papa.denoiser.wrapper import PROMPTS_KEPT
from tests.chaos.__main__ import SCHEDULES
from tests.chaos.lanes import LANES
from tests.chaos.schedule import KINDS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def adapter_size() -> int:
    return load_denoiser(str(SHIPPED / "fashion_mnist"), DEFAULT_LORA).layout.size


@pytest.mark.parametrize(
    ("page", "sentence"),
    [
        ("README.md", "An adapter is a flat vector of {:,} numbers"),
        ("docs/algorithm.md", "{:,} numbers per user"),
        ("docs/operations.md", "the shipped backbone's adapters have {:,} parameters"),
    ],
)
def test_the_size_of_an_adapter_is_that_of_the_code(page: str, sentence: str, adapter_size: int) -> None:
    assert sentence.format(adapter_size) in " ".join((ROOT / page).read_text().split())


WORDS = {1: "one", 2: "two", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine", 10: "ten"}
GATEWAY, STORE = GatewaySettings(), StoreSettings()
LEARNING, PLAN = DEFAULT_UPDATE, DemoPlan()
CONTRARY = round(LEARNING.change_share * LEARNING.change_window)
CONTRACT = "protos/papa/serving/v1"

FIGURES = {
    "items rated by the demo": ("README.md", f"rates {PLAN.per_round} items a round for {PLAN.rounds} rounds"),
    "ratings of the demo": ("docs/index.md", f"{PLAN.rounds} rounds of {PLAN.per_round} ratings"),
    "all ratings of the demo": ("README.md", f"after {PLAN.rounds * PLAN.per_round} ratings"),
    "rank": ("docs/algorithm.md", f"**LoRA** of rank {DEFAULT_LORA.rank} "),
    "share of the pool": ("docs/algorithm.md", f"{LEARNING.pool_share:.0%} of the rows".replace("%", " %")),
    "neighbours": ("docs/algorithm.md", f"nearest {WORDS[LEARNING.neighbours]} among"),
    "labels that show a change": (
        "docs/algorithm.md",
        f"{WORDS[CONTRARY]} of the newest {WORDS[LEARNING.change_window]} labels",
    ),
    "K": ("docs/backbones.md", f"t < {LEARNING.adapt_from} to the backbone"),
    "bounds of latents": (
        "docs/backbones.md",
        f"β is {LATENT_UPDATE.like_beta:.0f} instead of {LEARNING.like_beta:.0f}",
    ),
    "prompts": ("docs/backbones.md", f"the last {PROMPTS_KEPT} prompts"),
    "smallest grade": ("docs/backend-guide.md", f"at least {MIN_GRADE} from 0"),
    "image bytes": ("docs/backend-guide.md", f"up to {GATEWAY.max_image_bytes >> 20} MiB"),
    "image pixels": ("docs/backend-guide.md", f"and {GATEWAY.max_image_pixels >> 20} megapixels"),
    "scans": ("docs/backend-guide.md", f"{MAX_SCANS} scans"),
    "remembered labels": (
        "docs/backend-guide.md",
        f"{LEARNING.replay_likes} likes and {MAX_REMEMBERED_LABELS - LEARNING.replay_dislikes} dislikes",
    ),
    "event ids of a user": (
        "docs/backend-guide.md",
        f"the newest {STORE.user_event_ids // 2:,} to {STORE.user_event_ids:,} (`store.user_event_ids`)",
    ),
    "event ids of an import": (
        "docs/attribution.md",
        f"the newest {STORE.user_event_ids // 2:,} to {STORE.user_event_ids:,} (`store.user_event_ids`)",
    ),
    "event ids": ("docs/backend-guide.md", "seconds (a week)" if STORE.event_id_ttl == 7 * 86_400 else "changed"),
    "items' life": ("docs/backend-guide.md", "(`store.item_ttl`, a day)" if STORE.item_ttl == 86_400 else "changed"),
    "streams without a credential": (
        "docs/security.md",
        f"have {OPEN_STREAMS} streams among them, {OPEN_STREAMS_PER_CONNECTION} on one connection",
    ),
    "a group's places": ("docs/security.md", f"at most {WORDS[GROUP_WEIGHT]} eighths"),
    "deaths of Redis": ("docs/command-line.md", f"After {WORDS[REDIS_DEATHS]} deaths"),
    "schedules": ("docs/reliability.md", f"runs {SCHEDULES:,} seeded schedules, {WORDS[LANES]} at a time"),
    "kinds of schedules": ("docs/reliability.md", f"There are {len(KINDS)} kinds."),
    "contract: characters of an id": (f"{CONTRACT}/types.proto", f"1 to {MAX_ID} characters"),
    "contract: characters of a prompt": (f"{CONTRACT}/generation.proto", f"at most {MAX_PROMPT:,} characters"),
    "contract: steps": (f"{CONTRACT}/generation.proto", f"Denoising steps, 1 to {GATEWAY.max_steps:,}"),
    "contract: guidance": (f"{CONTRACT}/generation.proto", f"in [1, {MAX_GUIDANCE:.0f}]"),
    "contract: events": (f"{CONTRACT}/feedback.proto", f"1 to {GATEWAY.max_events:,} events"),
    "contract: bytes of a message": (f"{CONTRACT}/feedback.proto", f"at most {GATEWAY.max_message_bytes >> 20} MiB"),
    "contract: pixels": (f"{CONTRACT}/feedback.proto", f"{GATEWAY.max_image_pixels:,} pixels"),
}


@pytest.mark.parametrize("figure", FIGURES)
def test_figures_in_prose_are_those_of_the_code(figure: str) -> None:
    page, sentence = FIGURES[figure]
    text = re.sub(r"\s+(?://)?\s*", " ", (ROOT / page).read_text())
    assert sentence in text, page


def test_the_pool_has_the_size_that_the_docs_say() -> None:
    pool = load_denoiser(str(SHIPPED / "fashion_mnist"), DEFAULT_LORA).pool
    assert pool is not None
    assert f"a pool of {len(pool.x0)} of the backbone's own samples" in (ROOT / "docs/algorithm.md").read_text()
