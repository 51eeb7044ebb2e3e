"""The short form of `make attack`, and proof that it would notice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.attack import floods, messages, pictures, starts, strangers, web
from tests.attack.result import Attack, Found, Target
from tests.attack.run import Row, attack, table
from tests.attack.target import attacked

SCALE = 0.1
SHORT = (
    *floods.ATTACKS, *pictures.ATTACKS, *messages.ATTACKS, *strangers.ATTACKS, *starts.ATTACKS, *web.ATTACKS,
    *floods.LAST,
)  # fmt: skip


@pytest.mark.timeout(300)
async def test_every_attack_is_withstood(tmp_path: Path) -> None:
    async with attacked(tmp_path) as (target, process):
        rows = await attack(target, process, SHORT, SCALE)
    assert not [row for row in rows if not row.found.held], table(rows)


async def test_a_gateway_that_errs_or_dies_is_noticed(tmp_path: Path) -> None:
    async with attacked(tmp_path) as (target, process):

        async def err(target: Target, scale: float) -> Found:
            raise TimeoutError("no answer")

        async def kill(target: Target, scale: float) -> Found:
            process.kill()
            await asyncio.to_thread(process.wait)
            return Found(True, "killed")

        erring, dying = await attack(target, process, [Attack("err", err), Attack("kill", kill)], SCALE)
    assert (erring.found.held, erring.found.what) == (False, "TimeoutError: no answer")
    assert (dying.found.held, dying.found.what) == (False, "the gateway died; killed")


def test_the_table_marks_what_broke_and_what_was_slow() -> None:
    rows = [Row("one", Found(True, "refused"), 0.01, 0.015), Row("another", Found(False, "taken"), 0.01, 0.05)]
    first, second = table(rows).splitlines()[1:3]
    assert not {"!!", "+"} & set(first.split())
    assert "5.0+ !! taken" in second
