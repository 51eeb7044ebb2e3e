from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from papa.adapter import Adapter, new_adapter
from papa.config import UpdateConfig
from papa.denoiser import Conditions, Denoiser
from papa.objective import squared_error
from papa.replay import Replay
from papa.updating import Labels, UpdateJob, update, update_many
from tests.papa.support import drawn_by, tiny_denoiser

SMALL = UpdateConfig(steps=3, like_rows=6, dislike_rows=4)


def labels(likes: int, dislikes: int, seed: int = 0) -> Labels:
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randint(0, 256, (likes + dislikes, 1, 8, 8), generator=generator, dtype=torch.uint8)
    return Labels(samples, torch.tensor([1.0] * likes + [-1.0] * dislikes))


def test_users_trained_together_equal_each_alone(denoiser: Denoiser) -> None:
    jobs = [
        UpdateJob(new_adapter(denoiser), labels(3, 2, seed=1), seed=11),
        UpdateJob(new_adapter(denoiser), labels(0, 4, seed=2), seed=12),
        UpdateJob(update(denoiser, new_adapter(denoiser), labels(2, 2), SMALL, 5)[0], labels(5, 0, seed=3), seed=13),
    ]
    together = update_many(denoiser, jobs, SMALL)
    for job, (adapter, stats) in zip(jobs, together, strict=True):
        alone, alone_stats = update(denoiser, job.adapter, job.labels, SMALL, job.seed)
        # Adam turns a gradient of nearly nothing into a whole step, so that single weights may differ: the norm tells.
        moved, differs = adapter.weights - job.adapter.weights, adapter.weights - alone.weights
        assert torch.linalg.vector_norm(differs) < 0.02 * torch.linalg.vector_norm(moved)
        assert torch.equal(adapter.replay.samples, alone.replay.samples)
        assert stats.differentiated == alone_stats.differentiated


def test_an_update_is_a_function_of_its_seed(denoiser: Denoiser) -> None:
    first, second, other = (update(denoiser, new_adapter(denoiser), labels(3, 3), SMALL, seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first.weights, second.weights)
    assert not torch.equal(first.weights, other.weights)


def test_what_is_served_is_the_fading_average_of_the_iterates_and_learning_goes_on_from_the_last(
    denoiser: Denoiser,
) -> None:
    averaged, plain = replace(SMALL, averaging=0.25), replace(SMALL, averaging=0.0)
    served = iterated = new_adapter(denoiser)
    average = served.weights
    for number in range(3):
        given, before = labels(3, 2, seed=number), iterated.weights
        served, stats = update(denoiser, served, given, averaged, number)
        iterated, plain_stats = update(denoiser, iterated, given, plain, number)
        assert served.iterate is not None and iterated.iterate is not None
        assert torch.equal(served.iterate, iterated.weights)
        assert torch.equal(iterated.iterate, iterated.weights)
        average = 0.25 * average + 0.75 * iterated.weights
        torch.testing.assert_close(served.weights, average)
        # What the gate bounds is the step that learning took, not the smaller one of the average.
        assert stats.change == plain_stats.change == pytest.approx(float((iterated.weights - before).norm()))


def test_an_adapter_without_an_iterate_is_learnt_on_from_its_weights(denoiser: Denoiser) -> None:
    first, _ = update(denoiser, new_adapter(denoiser), labels(3, 2), SMALL, 0)
    foreign = Adapter(first.weights, first.replay)
    again, stats = update(denoiser, foreign, labels(2, 2, seed=1), SMALL, 1)
    assert again.iterate is not None
    assert stats.change == pytest.approx(float((again.iterate - first.weights).norm()))


def test_an_update_learns_the_likes_and_unlearns_the_dislikes(denoiser: Denoiser) -> None:
    config = UpdateConfig(steps=40, like_rows=16, dislike_rows=16, learning_rate=2e-2, averaging=0.0)
    bright, dark = torch.full((4, 1, 8, 8), 220), torch.full((4, 1, 8, 8), 30)
    labels = Labels(torch.cat([bright, dark]).to(torch.uint8), torch.tensor([1.0] * 4 + [-1.0] * 4))
    adapter, stats = update(denoiser, new_adapter(denoiser), labels, config, 0)
    before, after = (_errors(denoiser, labels, weights) for weights in (None, adapter.weights))
    # Weights that were never trained explain everything worse when they move: what counts is the difference.
    change = after - before
    assert change[4:].mean() > change[:4].mean() + 0.001
    assert change[4:].mean() > 0
    assert stats.likes == stats.dislikes == 4
    assert stats.change > 0


@torch.no_grad()
def _errors(denoiser: Denoiser, labels: Labels, weights: Tensor | None) -> Tensor:
    x0 = (labels.samples.float() / 127.5 - 1).repeat(64, 1, 1, 1)
    generator = torch.Generator().manual_seed(99)
    noise = torch.randn(x0.shape, generator=generator)
    t = torch.randint(400, 1000, (len(x0),), generator=generator)
    adapters = None if weights is None else weights.expand(len(x0), -1)
    eps = denoiser.epsilon(denoiser.schedule.add_noise(x0, noise, t), t, adapters)
    return squared_error(eps, noise).view(64, -1).mean(dim=0)


def test_epapa_trains_no_timestep_below_k(denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    epsilon = denoiser.epsilon

    def spy(x: Tensor, t: Tensor, adapters: Tensor | None = None, conditions: Conditions | None = None) -> Tensor:
        if adapters is not None:
            seen.append(t)
        return epsilon(x, t, adapters, conditions)

    monkeypatch.setattr(denoiser, "epsilon", spy)
    update(denoiser, new_adapter(denoiser), labels(3, 3), replace(SMALL, adapt_from=700), 0)
    assert torch.cat(seen).min() >= 700
    seen.clear()
    update(denoiser, new_adapter(denoiser), labels(3, 3), replace(SMALL, adapt_from=0, steps=10), 0)
    assert torch.cat(seen).min() < 300


@pytest.mark.parametrize("grades", [[], [0.0], [1.5], [float("nan")]])
def test_labels_that_mean_nothing_are_refused(denoiser: Denoiser, grades: list[float]) -> None:
    samples = torch.zeros(len(grades), 1, 8, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match="grade"):
        update(denoiser, new_adapter(denoiser), Labels(samples, torch.tensor(grades)), SMALL, 0)


def test_replay_keeps_the_newest_of_each_kind(denoiser: Denoiser) -> None:
    config = replace(SMALL, replay_likes=3, replay_dislikes=2, steps=1)
    adapter = new_adapter(denoiser)
    for seed in range(3):
        adapter, _ = update(denoiser, adapter, labels(2, 2, seed), config, seed)
    assert adapter.replay.grades.tolist() == [1.0, 1.0, 1.0, -1.0, -1.0]
    newest = labels(2, 2, 2).samples
    assert torch.equal(adapter.replay.samples[1:], newest)


def test_the_newest_label_of_a_sample_replaces_the_older_ones(denoiser: Denoiser) -> None:
    first = labels(2, 1)
    adapter, _ = update(denoiser, new_adapter(denoiser), first, SMALL, 0)
    changed = Labels(first.samples[:1], torch.tensor([-1.0]))
    adapter, _ = update(denoiser, adapter, changed, SMALL, 1)
    assert adapter.replay.grades.tolist() == [1.0, -1.0, -1.0]
    assert torch.equal(adapter.replay.samples[-1], first.samples[0])
    # The same picture, asked for with other words, has a label of its own.
    words = Replay(
        first.samples[[0, 0, 0]], torch.tensor([1.0, -1.0, 0.5]), torch.zeros(3, 4), ("boot", "shoe", "boot")
    )
    assert (words.latest().grades.tolist(), words.latest().prompts) == ([-1.0, 0.5], ("shoe", "boot"))


def test_after_a_change_of_taste_the_adapter_starts_afresh_from_the_newest_labels(denoiser: Denoiser) -> None:
    bright, dark = (torch.full((10, 1, 8, 8), value, dtype=torch.uint8) for value in (250, 5))
    noise = torch.randint(0, 6, (10, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    config = replace(SMALL, change_window=10, change_share=0.9)
    adapter = new_adapter(denoiser)
    for samples, grade in ((bright - noise, 1.0), (dark + noise, -1.0), (bright - noise.flip(0), 1.0)):
        adapter, stats = update(denoiser, adapter, Labels(samples, torch.full((10,), grade)), config, 0)
        assert not stats.restarted
    turned = Labels(bright - noise.flip(2), torch.full((10,), -1.0))
    after, stats = update(denoiser, adapter, turned, config, 7)
    assert stats.restarted
    assert torch.equal(after.replay.samples, turned.samples)
    alone, _ = update(denoiser, new_adapter(denoiser), turned, config, 7)
    torch.testing.assert_close(after.weights, alone.weights)


def test_graded_labels_are_drawn_by_their_strength(denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch) -> None:
    given = Labels(labels(2, 0).samples, torch.tensor([1.0, 0.25]))
    (likes,) = drawn_by(denoiser, given, SMALL, monkeypatch)
    assert likes.tolist() == pytest.approx([0.8, 0.2])


def test_labels_that_the_others_contradict_are_seldom_drawn(
    denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = torch.randint(0, 6, (12, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    bright, dark = 250 - noise[:6], 5 + noise[6:]
    grades = torch.tensor([1.0] * 6 + [-1.0] * 6)
    grades[[2, 8]] *= -1
    given = Labels(torch.cat([bright, dark]), grades)
    likes, dislikes = drawn_by(denoiser, given, SMALL, monkeypatch)
    for probabilities, right, wrong in ((likes, [0, 1, 3, 4, 5], 8), (dislikes, [6, 7, 9, 10, 11], 2)):
        assert probabilities.sum().item() == pytest.approx(1, abs=1e-5)
        assert (probabilities > 0).sum() == 6
        assert probabilities[wrong] < 0.3 * probabilities[right].min()


def test_an_adapter_without_history_starts_empty(denoiser: Denoiser) -> None:
    adapter: Adapter = new_adapter(denoiser)
    assert len(adapter.replay) == 0
    assert adapter.weights.shape == (denoiser.layout.size,)


def test_weight_decay_shrinks_what_learns(denoiser: Denoiser) -> None:
    """With a learning rate of zero only the decay remains: (1 − 0.1)² after two steps."""
    weights = torch.randn(denoiser.layout.size, generator=torch.Generator().manual_seed(1))
    start = replace(new_adapter(denoiser), weights=weights)
    config = replace(SMALL, learning_rate=0.0, weight_decay=0.1, steps=2, averaging=0.0)
    after = update(denoiser, start, labels(2, 2), config, seed=0)[0].weights
    torch.testing.assert_close(after, weights * 0.81)


def test_a_frozen_a_stays_and_a_free_one_learns() -> None:
    for frozen in (True, False):
        free = tiny_denoiser(frozen_a=frozen)
        before = new_adapter(free)
        # Two updates: A has no gradient while B is zero.
        after = update(free, update(free, before, labels(2, 2), SMALL, 0)[0], labels(2, 2), SMALL, 1)[0]
        first = free.layout.layers[0]
        assert torch.equal(first.a(after.weights[None]), first.a(before.weights[None])) == frozen
