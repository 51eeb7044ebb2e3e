"""The generator as it is deployed: Ray Serve, gRPC, Redis and files, all real; Ray is started once for all tests."""

from __future__ import annotations

import asyncio
import io
import json
import math
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2
from papa_serving.catalogue.memory import MemoryCatalogues
from papa_serving.client import AsyncClient, Retry
from papa_serving.contracts.errors import PapaError, Status, UserDeleted
from papa_serving.contracts.feedback import FeedbackEvent, UserBatch
from papa_serving.contracts.identity import UserKey
from papa_serving.contracts.revisions import Revision, revision_name
from papa_serving.contracts.samples import unpack_sample
from papa_serving.feedback import open_log
from papa_serving.gateway.api.health import GENERATION, Readiness
from papa_serving.gateway.backends import open_backends
from papa_serving.gateway.engine_client import EngineClient
from papa_serving.gateway.rpc.drain import Drain
from papa_serving.gateway.server import Gateway
from papa_serving.generator.deployment import app, reconfigured
from papa_serving.generator.wiring import defaults
from papa_serving.settings import CatalogueSettings, GatewaySettings, GeneratorSettings, Settings
from papa_serving.store import open_items, open_revisions, open_users
from papa_serving.stubs.engine.v1 import engine_pb2, engine_pb2_grpc
from PIL import Image
from ray import serve

from papa.adapter import Adapter, new_adapter
from papa.config import DEFAULT_LORA, DEFAULT_UPDATE
from papa.denoiser import load_denoiser
from papa.revision_files import MANIFEST_FILE, Origin, digest, pack
from papa.sampler import sample
from tests.generator.deployed import NAME, TOKEN, Deployed, deployed, key, until
from tests.generator.support import random_weights

ROUTE = (("application", NAME), ("authorization", f"Bearer {TOKEN}"))
CALLERS = 6
RUNNING, QUEUED = "papa_engine_running_rows", "papa_engine_queued_rows"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    # Ray's sockets lie below its folder, and their paths must be short.
    ray_folder = Path(tempfile.mkdtemp(prefix="ray-"))
    with deployed(tmp_path_factory.mktemp("deployed"), ray_folder) as running:
        yield running
    shutil.rmtree(ray_folder, ignore_errors=True)


@pytest.fixture
def stub(service: Deployed) -> Iterator[engine_pb2_grpc.EngineServiceStub]:
    with grpc.insecure_channel(service.address) as channel:
        yield engine_pb2_grpc.EngineServiceStub(channel)


def request(name: str, **fields: object) -> engine_pb2.RunRequest:
    defaults = {"request_id": f"q-{name}", "generation_id": f"g-{name}", "count": 2, "seed": 5, "exploration": -1.0}
    return engine_pb2.RunRequest(tenant="tenant", user=name, **(defaults | fields))  # type: ignore[arg-type]


def run(stub: engine_pb2_grpc.EngineServiceStub, asked: engine_pb2.RunRequest) -> list[engine_pb2.RunResponse]:
    return list(stub.Run(asked, metadata=ROUTE, timeout=60))


def items_of(responses: list[engine_pb2.RunResponse]) -> list[engine_pb2.EngineItem]:
    return [item for response in responses for item in response.items.items]


async def learn(settings: Settings, user: UserKey, item_id: str, adapter_seed: int, spoil: bool = False) -> str:
    """Does what gateway and trainer do with one like: append, store a revision, commit."""
    denoiser = load_denoiser(settings.backbone, DEFAULT_LORA)
    log, users, revisions = open_log(settings), open_users(settings), open_revisions(settings)
    (appended,) = await log.append([FeedbackEvent(f"e-{item_id}", user, 1.0, item_id)])
    assert appended.error is None
    lease = await log.acquire(user.partition(settings.feedback.partitions), "test", 30)
    assert lease is not None
    events = tuple(event for event in await log.read(lease, "", 10) if event.user == user)
    state = await users.get(user)
    parent = state.current.name if state.current else ""
    origin = Origin(denoiser.backbone_hash, parent, time.time())
    adapter = Adapter(random_weights(denoiser, adapter_seed), new_adapter(denoiser).replay)
    files = pack(adapter, denoiser.layout, DEFAULT_UPDATE, origin)
    sha256 = digest(files[MANIFEST_FILE])
    made = Revision(revision_name(state.revisions + 1, sha256), parent, time.time(), sha256, 1, 1)
    await revisions.put(user, made.name, files if not spoil else {n: d[:-1] for n, d in files.items()})
    await log.commit(lease, UserBatch(user, events), made)
    await log.release(lease)
    await log.close()
    await users.close()
    return made.name


def test_base_serves_and_the_items_can_be_named(service: Deployed, stub: engine_pb2_grpc.EngineServiceStub) -> None:
    responses = run(stub, request("ann", count=3))
    items = items_of(responses)
    assert responses[-1].WhichOneof("event") == "done"
    assert responses[-1].done.revision == ""
    assert [(item.index, item.seed, item.adapter) for item in items] == [(0, 5, False), (1, 6, False), (2, 7, False)]

    async def check() -> None:
        store = open_items(service.settings)
        info = await store.backbone_info()
        assert info is not None
        assert info.image_shape == (1, 8, 8)
        for item in items:
            stored = await store.get(key("ann"), item.item_id)
            picture = np.asarray(Image.open(io.BytesIO(item.image)))
            assert np.array_equal(unpack_sample(stored.sample)[0], picture)
        await store.close()

    asyncio.run(check())


def test_newest_revision_is_served_at_once(service: Deployed, stub: engine_pb2_grpc.EngineServiceStub) -> None:
    denoiser = load_denoiser(service.settings.backbone, DEFAULT_LORA)
    revisions = []
    for adapter_seed in (1, 2):
        liked = items_of(run(stub, request("bob", generation_id=f"g{adapter_seed}")))[0].item_id
        revisions.append(asyncio.run(learn(service.settings, key("bob"), liked, adapter_seed)))
        responses = run(stub, request("bob", count=1))
        assert responses[-1].done.revision == revisions[-1]
        assert responses[-1].done.adapter_load_seconds > 0
        weights = random_weights(denoiser, adapter_seed)
        alone = sample(denoiser, [5], weights[None], "ddim", 4, DEFAULT_UPDATE.adapt_from)[0, 0]
        picture = np.asarray(Image.open(io.BytesIO(items_of(responses)[0].image)))
        assert np.abs(picture - ((alone.clamp(-1, 1) + 1) * 127.5).numpy()).max() <= 1
    assert run(stub, request("bob", revision=revisions[0]))[-1].done.revision == revisions[0]
    assert run(stub, request("bob", revision="base"))[-1].done.revision == ""
    assert service.metric("papa_adapter_lookups_total", tier="store") == 2

    liked = items_of(run(stub, request("bob", generation_id="g3")))[0].item_id
    broken = asyncio.run(learn(service.settings, key("bob"), liked, 3, spoil=True))
    assert run(stub, request("bob"))[-1].done.revision == revisions[1]
    assert run(stub, request("bob", revision=broken))[-1].error.reason == "REVISION_DAMAGED"
    assert service.metric("papa_adapter_refused_total", reason="checksum") == 1


def test_errors_travel_in_the_stream(service: Deployed, stub: engine_pb2_grpc.EngineServiceStub) -> None:
    (response,) = run(stub, request("cat", revision="000001-nothere", request_id="find-me"))
    assert response.error.reason == "REVISION_NOT_FOUND"
    (response,) = run(stub, request("cat", seconds_left=1e-6))
    assert response.error.reason == "DEADLINE_EXCEEDED"
    asyncio.run(delete(service.settings, key("cat")))
    (response,) = run(stub, request("cat"))
    assert response.error.reason == UserDeleted.reason
    lines = [json.loads(line) for line in service.log_lines().splitlines() if '"request_id": "find-me"' in line]
    assert [line["reason"] for line in lines] == ["REVISION_NOT_FOUND"]


@pytest.mark.parametrize(
    "shown", [(), (("authorization", "Bearer guessed"),), (("authorization-bin", TOKEN.encode()),)]
)
def test_who_does_not_know_the_secret_learns_nothing(
    service: Deployed, stub: engine_pb2_grpc.EngineServiceStub, shown: tuple[tuple[str, str | bytes], ...]
) -> None:
    """The token is needed on loopback as well, for pictures and for packing an adapter."""
    metadata = (("application", NAME), *shown)
    for call in (
        lambda: list(stub.Run(request("ann"), metadata=metadata, timeout=60)),
        lambda: stub.PackAdapter(engine_pb2.PackAdapterRequest(backbone="b"), metadata=metadata, timeout=60),
    ):
        with pytest.raises(grpc.RpcError) as refusal:
            call()
        assert refusal.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert items_of(run(stub, request("ann", generation_id="again"))), "the gateway's own call is served"


async def test_a_gateway_with_another_secret_says_that_no_generator_answers(service: Deployed) -> None:
    """UNAUTHENTICATED would blame the callers, whose own credentials are valid."""
    settings = GatewaySettings(port=0, generator=service.address, notice_seconds=0.0)
    gateway = Gateway(settings, open_backends(service.settings), engine_token=lambda: "another")
    await gateway.start()
    async with AsyncClient(gateway.address, retry=Retry(attempts=1)) as client:
        with pytest.raises(PapaError) as refusal:
            await client.generate("ann", 1)
    await gateway.close()
    assert refusal.value.reason == "GENERATOR_UNAVAILABLE"


def test_the_engine_bounds_what_it_is_asked_for(service: Deployed, stub: engine_pb2_grpc.EngineServiceStub) -> None:
    """A count that would fill the memory is refused before a row exists, also while the queue is empty."""
    (replica,) = service.replicas()
    before = replica.memory_info().rss
    for fields in ({"count": 2**31 - 1}, {"steps": 2**31}, {"prompt": "a" * 2_000_000}, {"seconds_left": math.nan}):
        (response,) = run(stub, request("mallory", **fields))
        assert (response.error.reason, response.error.metadata["field"]) == ("INVALID_REQUEST", next(iter(fields)))
    assert replica.memory_info().rss - before < 200 * 2**20
    assert service.metric(QUEUED) == 0


def test_an_item_is_encoded_again(service: Deployed, stub: engine_pb2_grpc.EngineServiceStub) -> None:
    (item,) = items_of(run(stub, request("again", count=1)))
    asked = engine_pb2.RenderItemRequest(tenant="tenant", user="again", item_id=item.item_id)
    rendered = stub.RenderItem(asked, metadata=ROUTE, timeout=60).rendered
    assert (rendered.item, rendered.generation_id) == (item, "g-again")
    asked.image.format, asked.image.max_edge = "webp", 4
    small = stub.RenderItem(asked, metadata=ROUTE, timeout=60).rendered.item
    assert Image.open(io.BytesIO(small.image)).size == (4, 4)
    asked.item_id = "g-again-7"
    assert stub.RenderItem(asked, metadata=ROUTE, timeout=60).error.reason == "ITEM_NOT_FOUND"
    with pytest.raises(grpc.RpcError) as refused:
        stub.RenderItem(asked, metadata=ROUTE[:1], timeout=60)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_adapters_from_elsewhere_are_checked_and_packed(
    service: Deployed, stub: engine_pb2_grpc.EngineServiceStub
) -> None:
    denoiser = load_denoiser(service.settings.backbone, DEFAULT_LORA)
    adapter = Adapter(random_weights(denoiser, 3) / 10, new_adapter(denoiser).replay)
    files = pack(adapter, denoiser.layout, DEFAULT_UPDATE, Origin(denoiser.backbone_hash, "", 1.0))
    asked = engine_pb2.PackAdapterRequest(backbone=denoiser.backbone_hash, parent="000001-aa", files=files)
    packed = stub.PackAdapter(asked, metadata=ROUTE, timeout=60).packed
    assert digest(packed.files[MANIFEST_FILE]) == packed.sha256
    assert json.loads(packed.files[MANIFEST_FILE])["parent"] == "000001-aa"
    assert packed.files["adapter_model.safetensors"] == files["adapter_model.safetensors"]
    asked.files["adapter_model.safetensors"] = b"x"
    error = stub.PackAdapter(asked, metadata=ROUTE, timeout=60).error
    assert (error.reason, error.metadata["field"]) == ("INVALID_REQUEST", "files")


async def delete(settings: Settings, user: UserKey) -> None:
    users = open_users(settings)
    await users.delete(user)
    await users.close()


def test_full_queue_is_an_answer_and_cancelling_frees_the_rows(
    service: Deployed, stub: engine_pb2_grpc.EngineServiceStub
) -> None:
    """Calls keep coming until one is refused, so that it does not matter how quick the engine is beside them."""
    answers, found = SimpleQueue[engine_pb2.RunResponse](), threading.Event()

    def call(name: str) -> None:
        responses = stub.Run(request(name, count=12, steps=1000), metadata=ROUTE)
        cancelling = threading.Thread(target=lambda: (found.wait(), responses.cancel()))
        cancelling.start()
        with suppress(grpc.RpcError):  # cancelled
            for response in responses:
                answers.put(response)

    def one_is_refused() -> bool:
        if sum(not each.done() for each in reading) < CALLERS:
            reading.append(readers.submit(call, f"dan-{len(reading)}"))
        ended = [answers.get() for _ in range(answers.qsize())]
        refusals.extend(response.error for response in ended if response.WhichOneof("event") == "error")
        return bool(refusals)

    reading, refusals = list[Future[None]](), list[engine_pb2.RunError]()
    with ThreadPoolExecutor(CALLERS) as readers:
        try:
            until(one_is_refused)
        finally:
            found.set()  # also whoever has only begun is cancelled
    for each in reading:
        each.result()
    assert {refusal.reason for refusal in refusals} == {"QUEUE_FULL"}
    assert all(refusal.retry_after_seconds > 0 for refusal in refusals)
    until(lambda: service.metric(RUNNING) == service.metric(QUEUED) == 0)
    assert len(items_of(run(stub, request("eve")))) == 2


@pytest.mark.parametrize("told", [True, False])
def test_the_deadline_stops_the_work(service: Deployed, stub: engine_pb2_grpc.EngineServiceStub, told: bool) -> None:
    """Whether the request names it, or only the call has one: then the caller goes, and its rows are freed."""
    long = request("hal", count=24, steps=1000, seconds_left=1.5 if told else 0.0)
    if told:
        assert run(stub, long)[-1].error.reason == "DEADLINE_EXCEEDED"
    else:
        with pytest.raises(grpc.RpcError) as refusal:
            list(stub.Run(long, metadata=ROUTE, timeout=1.5))
        assert refusal.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    until(lambda: service.metric(RUNNING) == service.metric(QUEUED) == 0)


def test_configuration_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAPA_GENERATOR__MAX_REPLICAS", "3")
    monkeypatch.setenv("PAPA_GENERATOR__DRAIN_SECONDS", "77")
    deployment = app({})._bound_deployment
    assert deployment._deployment_config.autoscaling_config.max_replicas == 3
    assert deployment._deployment_config.graceful_shutdown_timeout_s >= 77
    (settings,) = deployment.init_args
    assert settings.data_dir == tmp_path / "papa-data"
    with pytest.raises(ValueError, match="PAPA_"):
        app({"max_rows": 3})


async def test_a_killed_replica_under_load_costs_only_errors_that_say_try_again(service: Deployed) -> None:
    """SIGKILL while callers generate through a gateway: typed errors with a delay meanwhile, then items again."""
    (replica,) = service.replicas()
    address = GatewaySettings(port=0, generator=service.address, notice_seconds=0.0)
    gateway = Gateway(address, open_backends(service.settings), engine_token=lambda: TOKEN)
    await gateway.start()
    refused, served_after, killed = list[PapaError](), Counter[int](), asyncio.Event()

    async def caller(client: AsyncClient, number: int) -> None:
        while served_after[number] < 2:
            since_kill = killed.is_set()
            try:
                generation = await client.generate(f"caller-{number}", 2, steps=40)
                assert len(generation.items) == 2
                served_after[number] += since_kill
            except PapaError as error:
                refused.append(error)
                await asyncio.sleep(0.1)

    async with AsyncClient(gateway.address, retry=Retry(attempts=1)) as client, asyncio.timeout(150):
        callers = [asyncio.create_task(caller(client, number)) for number in range(4)]
        await asyncio.to_thread(until, lambda: service.metric(RUNNING) >= 4)
        replica.send_signal(signal.SIGKILL)
        killed.set()
        await asyncio.gather(*callers)
    await gateway.close()
    assert {(error.reason, error.status) for error in refused} == {("GENERATOR_UNAVAILABLE", Status.UNAVAILABLE)}
    assert all(error.retry_after for error in refused)
    service.forget(replica.pid)
    (successor,) = service.replicas()
    assert successor.pid != replica.pid


def test_only_defaults_of_generations_can_be_changed_while_it_runs() -> None:
    settings = GeneratorSettings(steps=7)
    assert reconfigured(settings, {"sampler": "ddim"}) == GeneratorSettings(steps=7, sampler="ddim")
    selected = reconfigured(settings, {"overdraw": 1.5, "teaching": 0.2})
    assert (defaults(selected).overdraw, defaults(selected).teaching, defaults(selected).steps) == (1.5, 0.2, 7)
    assert reconfigured(settings, {}) == settings
    with pytest.raises(ValueError, match="slots"):
        reconfigured(settings, {"slots": 3})
    with pytest.raises(ValueError, match="steps"):
        reconfigured(settings, {"steps": 0})


async def until_serving(readiness: Readiness, expected: bool) -> None:
    async with asyncio.timeout(60):
        while True:
            answer = await readiness.servicer.Check(health_pb2.HealthCheckRequest(service=GENERATION), None)
            if (answer.status == health_pb2.HealthCheckResponse.SERVING) is expected:
                return
            await asyncio.sleep(0.05)


async def test_shutdown_says_so_first_and_lets_running_generations_finish(
    service: Deployed, stub: engine_pb2_grpc.EngineServiceStub
) -> None:
    """The health that a gateway gives tells that no others are taken, while what was accepted still runs."""
    gateway, items = EngineClient(service.address, lambda: TOKEN), open_items(service.settings)
    readiness = Readiness(gateway, items, MemoryCatalogues(CatalogueSettings()), Drain())
    await readiness.start()
    await until_serving(readiness, True)
    call = stub.Run(request("fay", steps=1000), metadata=ROUTE, timeout=180)
    await asyncio.to_thread(until, lambda: service.metric(RUNNING) == 2)
    removal = threading.Thread(target=serve.delete, args=(NAME,))
    removal.start()
    await until_serving(readiness, False)
    assert service.metric(RUNNING) == 2, "what was accepted still runs"
    with pytest.raises(grpc.RpcError) as refusal:
        await asyncio.to_thread(run, stub, request("gus"))
    assert refusal.value.code() is grpc.StatusCode.NOT_FOUND, "and the gateway makes GENERATOR_UNAVAILABLE of it"
    responses = await asyncio.to_thread(list, call)
    assert responses[-1].WhichOneof("event") == "done"
    assert len(items_of(responses)) == 2
    await asyncio.to_thread(removal.join, 120)
    assert not removal.is_alive()
    await readiness.leave()
    await gateway.close()
    await items.close()
