"""The engine against the naive loop: whoever shares a batch, and whenever, each row comes out as if it were alone."""

from __future__ import annotations

import time

import pytest
import torch
from papa_serving import metrics
from papa_serving.contracts.errors import GeneratorUnavailable
from papa_serving.generator.engine import FAILURES_UNTIL_DEAD
from prometheus_client import Gauge

from papa.denoiser import Denoiser
from tests.generator.support import ADAPT_FROM, GatedDenoiser, Run, random_weights, running, submit, tiny_denoiser


def mixed(denoiser: Denoiser) -> list[Run]:
    return [
        Run("ann", 3, 9, "ddim", seed=5, weights=random_weights(denoiser, 1), explore=frozenset({1})),
        Run("bob", 2, 12, "ddpm", seed=5, weights=random_weights(denoiser, 2)),
        Run("cat", 2, 7, "dpmpp_2m", seed=70, weights=random_weights(denoiser, 3)),
        Run("dan", 2, 6, "ddpm", seed=2**63 - 3),
        Run("ann", 1, 5, "dpmpp_2m", seed=9, weights=random_weights(denoiser, 4), revision="r2"),
    ]


def test_mixed_batch_equals_each_row_alone(gate: GatedDenoiser, reference: Denoiser) -> None:
    runs = mixed(gate)
    with running(gate) as engine:
        for run in runs:
            submit(engine, run)
            gate.advance(2)
        gate.open()
        for run in runs:
            run.wait()
    assert max(len(step) for step in gate.steps) >= 9
    assert max(len(set(step)) for step in gate.steps) >= 4
    for run in runs:
        run.assert_as_alone(reference)


def test_a_step_that_hangs_shows_the_rows_that_it_holds(gate: GatedDenoiser) -> None:
    def value(gauge: Gauge) -> float:
        (sample,) = next(iter(gauge.collect())).samples
        return sample.value

    before = time.time()
    with running(gate) as engine:
        run = submit(engine, Run("ann", 3))
        gate.arrive()
        assert value(metrics.ENGINE_RUNNING_ROWS) == 3
        assert value(metrics.ENGINES_RUNNING) == 1
        assert value(metrics.ENGINE_STEP_STARTED) >= before
        gate.open()
        run.wait()
    assert value(metrics.ENGINES_RUNNING) == 0
    assert value(metrics.ENGINE_STEP_STARTED) == 0


def test_rows_that_make_room_come_out_the_same(reference: Denoiser) -> None:
    denoiser = tiny_denoiser()
    runs = [*mixed(denoiser), Run("eve", 3, 20, "ddpm", seed=1, weights=random_weights(denoiser, 5))]
    with running(denoiser, slots=2, max_rows=3) as engine:
        for run in runs:
            submit(engine, run)
        for run in runs:
            run.wait()
    for run in runs:
        run.assert_as_alone(reference)


def test_neighbours_do_not_matter(reference: Denoiser) -> None:
    denoiser = tiny_denoiser()
    weights = random_weights(denoiser, 1)
    alone, crowded = (Run("ann", 2, 8, "ddpm", seed=3, weights=weights) for _ in range(2))
    with running(denoiser) as engine:
        submit(engine, alone).wait()
        others = [Run(f"u{i}", 1 + i % 3, 3 + i, seed=i, weights=random_weights(denoiser, i)) for i in range(6)]
        for run in [*others[:3], crowded, *others[3:]]:
            submit(engine, run)
        crowded.wait()
    for index in range(2):
        torch.testing.assert_close(alone.samples[index], crowded.samples[index], rtol=0, atol=1e-3)


def test_adapters_go_to_the_rows_that_are_due(gate: GatedDenoiser) -> None:
    with running(gate) as engine:
        runs = [submit(engine, Run("ann", 2, 10, weights=random_weights(gate, 1)))]
        gate.advance()
        runs += [submit(engine, run) for run in (Run("bob", 2, 5), Run("cat", 1, 7, weights=random_weights(gate, 2)))]
        gate.open()
        for run in runs:
            run.wait()
    with_adapter = [t for step, adapted in zip(gate.steps, gate.adapted, strict=True) for t in step[:adapted]]
    assert len(with_adapter) == 2 * 6 + 5
    assert min(with_adapter) >= ADAPT_FROM
    plans = {t for step, adapted in zip(gate.steps, gate.adapted, strict=True) for t in step[adapted:]}
    assert {999, 799, 599} <= plans, "rows without adapter run at t ≥ K as well"


def test_short_one_joins_and_leaves_while_a_long_one_runs(gate: GatedDenoiser) -> None:
    with running(gate) as engine:
        long = submit(engine, Run("ann", 2, 100))
        gate.advance(10)
        short = submit(engine, Run("bob", 1, 3))
        gate.advance(5)
        assert short.wait().samples
        assert not long.ended


def test_failed_step_fails_its_jobs_alone(gate: GatedDenoiser, caplog: pytest.LogCaptureFixture) -> None:
    with running(gate) as engine:
        gate.failing = True
        broken = submit(engine, Run("ann", 2, weights=random_weights(gate, 1)))
        gate.advance()
        assert broken.wait().error
        gate.failing = False
        good = submit(engine, Run("ann", 2, weights=random_weights(gate, 1)))
        gate.open()
        assert good.wait().error is None
        assert engine.alive
    assert "a denoising step failed" in caplog.text


def test_jobs_whose_samples_cannot_be_delivered_fail(
    gate: GatedDenoiser, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no features, says the test")

    gate.open()
    with running(gate) as engine:
        with monkeypatch.context() as patched:
            patched.setattr("papa_serving.generator.engine.like_probabilities", broken)
            assert submit(engine, Run("ann", 2, 3)).wait().error
        assert submit(engine, Run("ann", 2, 3)).wait().error is None
    assert "a denoising step failed" in caplog.text


def test_engine_that_keeps_failing_ends_and_says_so(gate: GatedDenoiser) -> None:
    with running(gate, max_rows=1) as engine:
        gate.failing = True
        runs = [submit(engine, Run(f"u{i}")) for i in range(FAILURES_UNTIL_DEAD + 2)]
        gate.advance(FAILURES_UNTIL_DEAD)
        for run in runs:
            run.wait()
        engine.stop()
        assert not engine.alive
        with pytest.raises(GeneratorUnavailable):
            engine.inbox.reserve(runs[0].job.user, 1, 1)
    unavailable = [run for run in runs if isinstance(run.error, GeneratorUnavailable)]
    assert len(unavailable) == 2


def test_stopping_answers_everybody(gate: GatedDenoiser) -> None:
    with running(gate, max_rows=1) as engine:
        runs = [submit(engine, Run(name, steps=1000)) for name in ("ann", "bob")]
        gate.advance()
    late = Run("cat")
    engine.inbox.submit(late.job)
    assert all(isinstance(run.wait().error, GeneratorUnavailable) for run in [*runs, late])
