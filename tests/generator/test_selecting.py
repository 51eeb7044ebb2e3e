"""Selection in the engine: what is served is what the rule says of each generation alone, whoever shares the batch."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import grpc
import pytest
import torch
from papa_serving.client import AsyncClient
from papa_serving.contracts.errors import InvalidRequest, PapaError, QueueFull
from papa_serving.contracts.generation import FinishedItems, GeneratedItem, GenerationSpec
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.samples import unpack_sample
from papa_serving.generator.generation import Defaults
from papa_serving.generator.job import FinishedRows, Job
from papa_serving.generator.wire import error_to_wire, event_to_wire, spec_from_wire
from papa_serving.metrics import DRAWS, ENGINE_RUNNING_ROWS
from papa_serving.stubs.engine.v1 import engine_pb2, engine_pb2_grpc
from papa_serving.stubs.serving.v1 import generation_pb2, types_pb2
from torch import Tensor

from papa.denoiser import Denoiser
from papa.pixels import to_pixels, to_x0
from papa.regions import Regions
from papa.sampler import sample
from papa.selection import Rule, Selected, select
from papa.taste import Head, Taste
from tests.gateway.support.service import Service, refusal
from tests.generator.support import (
    ADAPT_FROM,
    ANN,
    PATIENCE,
    GatedDenoiser,
    World,
    everything,
    random_weights,
    spec,
    tiny_denoiser,
)

BOB, EVE = UserKey("tenant", "bob"), UserKey("tenant", "eve")
STEPS, OVERDRAW, QUEUE = 3, 2.0, 64


@asynccontextmanager
async def running_world(
    judges: bool = True,
    overdraw: float = OVERDRAW,
    teaching: float = 0.0,
    max_rows: int = 64,
    denoiser: Denoiser | None = None,
) -> AsyncIterator[World]:
    defaults = Defaults(steps=STEPS, overdraw=overdraw, teaching=teaching)
    world = World(
        denoiser or tiny_denoiser(), judges=judges, defaults=defaults, max_rows=max_rows, max_queued_rows=QUEUE
    )
    world.engine.start()
    try:
        yield world
    finally:
        if isinstance(denoiser, GatedDenoiser):
            denoiser.open()
        await asyncio.to_thread(world.engine.stop, PATIENCE)


@pytest.fixture(scope="module")
def weights(reference: Denoiser) -> Tensor:
    return random_weights(reference, 2)


@pytest.fixture(scope="module")
def head(reference: Denoiser, weights: Tensor) -> Head:
    """Of a user who likes some of what the adapter makes, calibrated so that chances from 0.1 to 0.9 are usual."""
    samples = sample(reference, list(range(100, 140)), weights.expand(40, -1), "ddim", STEPS, ADAPT_FROM)
    features = reference.features(samples).half()
    grades = torch.where(torch.arange(20) % 2 == 0, 1.0, -1.0)
    found = Taste(features[:20], grades, None, 0.3, 0).head()
    assert found is not None
    f = replace(found, calibration=(1.0, 0.0)).probability(features[20:]).logit()
    slope = 1.5 / float(f.std())
    return replace(found, calibration=(slope, -slope * float(f.mean())))


def alone(reference: Denoiser, weights: Tensor, head: Head, asked: GenerationSpec, rule: Rule) -> Selected:
    """The library's answer, one sample after another."""

    def draw(seeds: list[int]) -> Tensor:
        return torch.cat([sample(reference, [seed], weights[None], "ddim", STEPS, ADAPT_FROM) for seed in seeds])

    def judge(samples: Tensor) -> Tensor:
        return head.probability(reference.features(to_x0(to_pixels(samples))).half())

    return select(draw, judge, range(asked.seed, asked.seed + asked.count), rule)


async def eventually(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110 - another thread makes it so
            await asyncio.sleep(0.001)


async def assert_served(world: World, items: list[GeneratedItem], expected: Selected) -> None:
    items = sorted(items, key=lambda item: item.index)
    assert [item.index for item in items] == list(expected.items)
    assert [item.seed for item in items] == list(expected.seeds)
    assert [item.like_probability for item in items] == pytest.approx(expected.chances.tolist(), abs=5e-3)
    for item, x0 in zip(items, expected.samples, strict=True):
        stored = await world.items.get(ANN, item.item_id)
        kept = to_x0(torch.from_numpy(unpack_sample(stored.sample).copy()))
        torch.testing.assert_close(kept, x0.clamp(-1, 1), rtol=0, atol=1.5 / 127.5)
        assert stored.seed == item.seed


@pytest.mark.parametrize("max_rows", [64, 3])
async def test_a_selected_generation_is_the_same_alone_and_in_any_batch(
    reference: Denoiser, weights: Tensor, head: Head, max_rows: int
) -> None:
    """And in another process: nothing is remembered between generations."""
    asked = spec(count=8, seed=2**40)
    expected = alone(reference, weights, head, asked, Rule(OVERDRAW))
    assert asked.count < expected.drawn <= OVERDRAW * asked.count, "some are rejected"
    async with running_world(max_rows=max_rows) as world:
        await world.commit(ANN, "r1", weights, head=head)
        await world.commit(BOB, "r1", head=head)
        others = [spec(BOB, count=5, seed=7), spec(EVE, count=3, seed=9, generation_id="g-eve")]
        answers = await asyncio.gather(*(everything(world, each) for each in (asked, *others)))
        await assert_served(world, answers[0][0], expected)
        done = answers[0][1]
        assert (done.drawn, done.accepted) == (expected.drawn, expected.accepted)
        eve, eves = answers[2]
        assert [item.seed for item in sorted(eve, key=lambda item: item.index)] == [9, 10, 11], "nobody knows her"
        assert (eves.drawn, eves.accepted) == (3, 3)


async def test_the_seed_of_an_item_gives_it_again(weights: Tensor, head: Head) -> None:
    async with running_world() as world:
        await world.commit(ANN, "r1", weights, head=head)
        items, _ = await everything(world, spec(count=8, seed=2**40))
        redrawn = next(item for item in items if item.seed != 2**40 + item.index)
        again, done = await everything(world, spec(count=1, seed=redrawn.seed, overdraw=1.0, generation_id="g-again"))
    assert again[0].image == redrawn.image
    assert done.drawn == 1


async def test_a_floor_leaves_items_out_rather_than_serving_worse_ones(
    reference: Denoiser, weights: Tensor, head: Head
) -> None:
    rule = Rule(OVERDRAW, floor=0.7)
    asked = spec(count=8, seed=2**40, min_like_probability=0.7)
    expected = alone(reference, weights, head, asked, rule)
    assert 0 < len(expected.items) < 8
    async with running_world() as world:
        await world.commit(ANN, "r1", weights, head=head)
        items, done = await everything(world, asked)
        await assert_served(world, items, expected)
        none, end = await everything(world, spec(count=2, min_like_probability=1.0, generation_id="g-none"))
        assert (none, end.drawn) == ([], 4)
        unknown, _ = await everything(world, spec(BOB, count=2, min_like_probability=1.0))
    assert done.drawn == expected.drawn
    assert [item.like_probability for item in unknown] == [None, None], "held to no floor"


async def test_the_head_of_the_revision_that_serves_decides(weights: Tensor, head: Head) -> None:
    """After a rollback and where a request names a revision, too; a head is never another revision's."""
    never = replace(head, calibration=(0.0, -9.0))
    async with running_world() as world:
        await world.commit(ANN, "r1", weights, head=head)
        before, _ = await everything(world, spec(count=3, generation_id="g-1"))
        await world.commit(ANN, "r02", weights, parent="r1", head=never)
        _, refused = await everything(world, spec(count=3, generation_id="g-2"))
        named, _ = await everything(world, spec(count=3, revision="r1", generation_id="g-3"))
        world.state.user(ANN).current = "r1"
        back, _ = await everything(world, spec(count=3, generation_id="g-4"))
    assert (refused.drawn, refused.accepted) == (6, 0)
    wanted = {(item.index, item.seed, item.like_probability) for item in before}
    assert {(item.index, item.seed, item.like_probability) for item in named} == wanted
    assert {(item.index, item.seed, item.like_probability) for item in back} == wanted


async def test_a_floor_is_refused_where_nothing_is_judged() -> None:
    async with running_world(judges=False) as world:
        with pytest.raises(InvalidRequest) as refused:
            await everything(world, spec(min_like_probability=0.5))
    assert refused.value.field == "min_like_probability"


async def test_some_items_teach_where_the_head_is_in_doubt(reference: Denoiser, weights: Tensor, head: Head) -> None:
    """They are the backbone's, they say so, and a request that says what explores gets none of them."""
    async with running_world(teaching=0.5) as world:
        await world.commit(ANN, "r1", weights, head=head)
        items, _ = await everything(world, spec(count=16, seed=2**41))
        given, _ = await everything(world, spec(count=8, exploration=0.0, generation_id="g-none"))
        half, _ = await everything(world, spec(count=4, exploration=0.5, generation_id="g-half"))
        teaching = [item for item in items if item.exploring]
        assert 0 < len(teaching) < 8
        for item in teaching:
            assert item.revision == ""
            x0 = sample(reference, [item.seed], None, "ddim", STEPS)[0]
            kept = to_x0(torch.from_numpy(unpack_sample((await world.items.get(ANN, item.item_id)).sample).copy()))
            torch.testing.assert_close(kept, x0.clamp(-1, 1), rtol=0, atol=1.5 / 127.5)
    assert {item.revision for item in items if not item.exploring} == {"r1"}
    assert not any(item.exploring for item in given)
    assert sum(item.exploring for item in half) == 2


async def test_a_cancelled_generation_draws_no_more_and_leaves_the_queue_empty(weights: Tensor, head: Head) -> None:
    async with running_world(max_rows=4, overdraw=4.0) as world:
        await world.commit(ANN, "r1", weights, head=head)
        run = world.generator.run(spec(count=24, min_like_probability=1.0))
        pending = asyncio.ensure_future(anext(run))
        await eventually(world.slots.users)
        pending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pending
        await run.aclose()
        items, done = await everything(world, spec(count=2, min_like_probability=1.0, generation_id="g-2"))
        assert (items, done.drawn) == ([], 8)
        # Every row that was queued has left the queue: there is room for as many as it holds.
        world.engine.inbox.reserve(BOB, 1, STEPS)
        with pytest.raises(QueueFull, match=f"holds 1 rows of {QUEUE}"):
            world.engine.inbox.reserve(EVE, QUEUE, STEPS)


async def test_items_are_delivered_as_they_are_accepted(weights: Tensor, head: Head) -> None:
    async with running_world() as world:
        await world.commit(ANN, "r1", weights, head=head)
        events = [event async for event in world.generator.run(spec(count=8, seed=2**40))]
    groups = [event for event in events if isinstance(event, FinishedItems)]
    assert len(groups) > 1
    assert groups[0].items
    assert [group.drawn for group in groups] == sorted(group.drawn for group in groups)


async def test_a_slow_reader_is_told_what_is_drawn_by_now(reference: Denoiser, weights: Tensor, head: Head) -> None:
    """Whatever a hang-up leaves unread, the last event that was sent has counted the draws before it."""
    asked = spec(count=8, seed=2**40, generation_id="g-slow")
    expected = alone(reference, weights, head, asked, Rule(OVERDRAW))

    def drawn() -> float:
        return sum(DRAWS.labels(outcome)._value.get() for outcome in ("accepted", "rejected"))

    denoiser = GatedDenoiser()
    async with running_world(denoiser=denoiser, max_rows=3) as world:
        await world.commit(ANN, "r1", weights, head=head, maker=reference)
        before, stream = drawn(), world.generator.run(asked)
        first = asyncio.ensure_future(anext(stream))
        await asyncio.to_thread(denoiser.arrive)
        denoiser.open()
        assert isinstance(await first, FinishedItems)
        await eventually(lambda: drawn() == before + expected.drawn and not ENGINE_RUNNING_ROWS._value.get())
        rest = [event async for event in stream]
    groups = [event for event in rest if isinstance(event, FinishedItems) and event.items]
    assert len(groups) > 2
    assert {group.drawn for group in groups} == {expected.drawn}


async def test_draws_are_told_as_they_are_wanted_though_no_item_is_accepted(weights: Tensor, head: Head) -> None:
    async with running_world(overdraw=4.0) as world:
        await world.commit(ANN, "r1", weights, head=head)
        events = [event async for event in world.generator.run(spec(count=8, min_like_probability=1.0))]
    groups = [event for event in events if isinstance(event, FinishedItems)]
    assert [(group.items, group.drawn) for group in groups] == [((), 16), ((), 24), ((), 32), ((), 32)]


@pytest.mark.parametrize("floor", [0.0, 0.6])
def test_a_job_keeps_only_what_may_yet_be_served_and_serves_the_same(floor: float) -> None:
    """Whatever order its rows finish in, against the library, which keeps all that it drew."""
    count, rule = 40, Rule(OVERDRAW, floor, threshold=0.9)

    def draw(seeds: list[int]) -> Tensor:
        return torch.tensor([[random.Random(seed).random()] for seed in seeds], dtype=torch.float64)

    expected = select(draw, lambda samples: samples[:, 0], range(count), rule)
    order, groups = random.Random(1), list[FinishedRows]()
    job = Job(ANN, count, 0, "ddim", STEPS, lambda _: None, rule=rule)
    under_way = job.rows((2.0, 1.0, 0.0))
    while under_way:
        order.shuffle(under_way)
        rows = [under_way.pop() for _ in range(min(len(under_way), 5))]
        samples = draw([row.candidate.seed for row in rows])
        group, successors = job.settle(rows, samples[:, 0].tolist(), samples)
        groups += [group] if group else []
        under_way += successors
        assert all(sample >= floor for sample in job._spare.values())
        assert len(job._spare) <= count - sum(len(each.served) for each in groups if not each.last)
    served = {each.item: sample for group in groups for each, sample in zip(group.served, group.samples, strict=True)}
    assert sorted(served) == list(expected.items)
    assert torch.equal(torch.stack([served[item] for item in expected.items]), expected.samples)
    assert (groups[-1].last, groups[-1].drawn) == (True, expected.drawn)


class Engines(engine_pb2_grpc.EngineServiceServicer):
    """What a replica answers, over a socket and without Ray."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.ended = 0

    async def Run(
        self, request: engine_pb2.RunRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[engine_pb2.RunResponse]:
        try:
            async with aclosing(self._world.generator.run(spec_from_wire(request))) as events:
                async for event in events:
                    yield event_to_wire(event)
        except PapaError as error:
            yield error_to_wire(error)
        finally:
            self.ended += 1


@asynccontextmanager
async def served_world(world: World, **settings: object) -> AsyncIterator[tuple[Service, Engines]]:
    """A gateway in front of the world's engine."""
    service, server, engines = Service(), grpc.aio.server(), Engines(world)
    port = server.add_insecure_port("127.0.0.1:0")
    engine_pb2_grpc.add_EngineServiceServicer_to_server(engines, server)
    await server.start()
    await service.start(engine_up=False, generator=f"127.0.0.1:{port}", **settings)
    try:
        yield service, engines
    finally:
        await service.channel.close()
        await service.gateway.close()
        await server.stop(None)


async def test_questions_are_asked_and_can_be_drawn_again(reference: Denoiser, weights: Tensor, head: Head) -> None:
    """They are samples of the backbone, whatever the head says of them; fewer are asked the more labels there are."""
    asking = replace(head, questions=(2**53 - 9, 2**53 - 8), labels=15)
    async with running_world(teaching=0.25) as world:
        await world.commit(ANN, "r1", weights, head=asking)
        items, _ = await everything(world, spec(count=8, seed=2**40))
        questions = sorted((item for item in items if item.exploring), key=lambda item: item.seed)
        assert [item.seed for item in questions] == [2**53 - 9, 2**53 - 8]
        assert {item.revision for item in questions} == {""}
        for item in questions:
            plain = sample(reference, [item.seed], None, "ddim", STEPS)[0]
            kept = to_x0(torch.from_numpy(unpack_sample((await world.items.get(ANN, item.item_id)).sample).copy()))
            torch.testing.assert_close(kept, plain.clamp(-1, 1), rtol=0, atol=1.5 / 127.5)
        await world.commit(ANN, "r2", weights, head=replace(asking, labels=300))
        later, _ = await everything(world, spec(count=8, seed=2**40))
        assert not any(item.exploring for item in later)


async def test_of_a_head_that_counts_no_labels_the_revision_counts_them(weights: Tensor, head: Head) -> None:
    former = replace(head, labels=0)
    async with running_world(teaching=0.25) as world:
        await world.commit(ANN, "r1", weights, head=former)
        items, _ = await everything(world, spec(count=8, seed=2**40))
        assert any(item.exploring for item in items)
        lineage = world.state.user(ANN).lineage
        lineage["r1"] = replace(lineage["r1"], events_total=400)
        items, _ = await everything(world, spec(count=8, seed=2**40))
        assert not any(item.exploring for item in items)


async def test_what_is_typical_of_its_region_decides_about_a_candidate(
    reference: Denoiser, weights: Tensor, head: Head
) -> None:
    """Of one region, in which nearly nothing is typical, every first draw is accepted."""
    lenient = replace(head, regions=Regions(torch.zeros(1, len(head.mean))), typical_chances=torch.tensor([1e-3]))
    async with running_world() as world:
        await world.commit(ANN, "r1", weights, head=head)
        _, strict = await everything(world, spec(count=8, seed=2**40))
        await world.commit(ANN, "r2", weights, head=lenient)
        items, done = await everything(world, spec(count=8, seed=2**40))
    assert strict.drawn > 8 == done.drawn
    assert sorted(item.seed for item in items) == [2**40 + index for index in range(8)]


async def test_callers_learn_over_the_wire_what_was_selected(reference: Denoiser, weights: Tensor, head: Head) -> None:
    """From the client through the gateway to the engine, and back."""
    asked = spec(count=8, seed=2**40)
    expected = alone(reference, weights, head, asked, Rule(OVERDRAW))
    async with running_world() as world, served_world(world) as (service, _):
        await world.commit(ANN, "r1", weights, head=head)
        async with AsyncClient(service.gateway.address, tenant=ANN.tenant) as client:
            made = await client.generate(ANN.user, 8, seed=2**40)
            assert [item.seed for item in made.items] == list(expected.seeds)
            assert (made.drawn, made.acceptance) == (expected.drawn, expected.accepted / expected.drawn)
            raw = await client.generate(ANN.user, 8, seed=2**40, overdraw=1.0)
            assert [item.seed for item in raw.items] == [2**40 + index for index in range(8)]
            assert raw.acceptance == 1.0
            stream = client.stream_generate(ANN.user, 8, seed=2**40, min_like_probability=1.0)
            assert [item async for item in stream] == []
            assert (stream.acceptance, stream.drawn) == (0.0, 16)


async def test_a_caller_who_hangs_up_owes_the_draws_that_were_begun(
    reference: Denoiser, weights: Tensor, head: Head
) -> None:
    """Though no item was accepted, so that the caller has heard nothing."""
    count, rate = 8, 0.01
    user = types_pb2.User(tenant=ANN.tenant, user=ANN.user)
    asked = generation_pb2.StreamGenerateRequest(user=user, count=count, min_like_probability=1.0, overdraw=4.0)
    denoiser = GatedDenoiser()
    async with (
        running_world(denoiser=denoiser) as world,
        served_world(world, rates={"user": rate, "user_burst": float(count)}) as (service, engines),
    ):

        async def owed() -> float:
            """Draws that the user must wait for before another one is admitted."""
            one = service.generation.Generate(generation_pb2.GenerateRequest(user=user, count=1))
            refused = await refusal(one)
            assert refused.reason == "RATE_LIMITED"
            return round((refused.retry_after or 0.0) * rate) - 1

        await world.commit(ANN, "r1", weights, head=head, maker=reference)
        call = service.generation.StreamGenerate(asked)
        first = asyncio.ensure_future(anext(aiter(call)))
        await asyncio.to_thread(denoiser.arrive)
        assert await owed() == 0, "the items are paid for"
        await asyncio.to_thread(denoiser.advance, STEPS + 1)  # of the first draws, and what judges them
        async with asyncio.timeout(PATIENCE):
            while not (debt := await owed()):  # noqa: ASYNC110 - the gateway tells nobody
                await asyncio.sleep(0.001)
        assert debt == count, "the second draw of each"
        call.cancel()
        await eventually(lambda: engines.ended)
        denoiser.open()
        assert await owed() == count
        with pytest.raises(asyncio.CancelledError):
            await first
