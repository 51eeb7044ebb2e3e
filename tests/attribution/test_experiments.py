"""Experiments over a running gateway: who is in which arm, what that changes, and what is counted."""

from __future__ import annotations

import json
from collections import Counter

import grpc
import pytest
from papa_serving.attribution.assignment import arm_of, assigned
from papa_serving.client import AsyncClient, FeedbackEvent
from papa_serving.contracts.attribution import Count
from papa_serving.contracts.identity import UserKey
from papa_serving.gateway.auth.identity import Identity, Scope
from papa_serving.settings import AttributionSettings, Settings
from papa_serving.settings.experiments import Experiment
from papa_serving.settings.variables import settings_environment
from papa_serving.stubs.serving.v1 import experiment_pb2, experiment_pb2_grpc, generation_pb2, types_pb2
from prometheus_client import REGISTRY

from tests.gateway.support.service import Service, eventually, refusal
from tests.store.support import Backend

LIFT = {
    "salt": "s1",
    "arms": {"held": {"share": 0.3, "holdout": True}, "own": {"share": 0.5}, "bold": {"share": 0.2, "overdraw": 3.0}},
}
TWO = {"lift": LIFT, "floor": {"salt": "s2", "arms": {"a": {"share": 0.5}, "b": {"share": 0.5, "exploration": 0.5}}}}
EXPERIMENT = Experiment.model_validate(LIFT)


def users(count: int, tenant: str = "shop") -> list[UserKey]:
    return [UserKey(tenant, f"u{number}") for number in range(count)]


def user_of(arm: str, tenant: str = "default") -> str:
    return next(user.user for user in users(1_000, tenant) if arm_of(EXPERIMENT, user) == arm)


async def running(experiments: object) -> Service:
    service = Service(AttributionSettings.model_validate({"experiments": experiments}))
    await service.start()
    return service


def test_arms_have_their_shares_are_stable_and_independent() -> None:
    people = users(6_000)
    arms = [arm_of(EXPERIMENT, user) for user in people]
    assert arms == [arm_of(EXPERIMENT, user) for user in people]
    turned = Experiment.model_validate({**LIFT, "arms": dict(reversed(LIFT["arms"].items()))})  # type: ignore[attr-defined]
    assert arms == [arm_of(turned, user) for user in people], "the order of a file does not matter"
    assert turned.baseline == EXPERIMENT.baseline == "held"
    counts = Counter(arms)
    for arm, settings in EXPERIMENT.arms.items():
        assert abs(counts[arm] / len(people) - settings.share) < 0.02
    for other in (
        [arm_of(EXPERIMENT, UserKey("another", user.user)) for user in people],
        [arm_of(EXPERIMENT.model_copy(update={"salt": "s9"}), user) for user in people],
    ):
        same = sum(one == two for one, two in zip(arms, other, strict=True)) / len(people)
        assert abs(same - sum(arm.share**2 for arm in EXPERIMENT.arms.values())) < 0.03


def test_a_request_that_decides_itself_is_outside() -> None:
    experiments = AttributionSettings.model_validate({"experiments": TWO}).experiments
    assert set(assigned(experiments, users(1)[0]).arms) == {"lift", "floor"}
    assert set(assigned(experiments, users(1)[0], ["revision"]).arms) == {"floor"}
    assert set(assigned(experiments, users(1)[0], ["exploration", "overdraw"]).arms) == set()


async def test_an_arm_decides_what_is_asked_of_the_engine_and_is_told() -> None:
    service = await running({"lift": LIFT})
    try:
        for arm in LIFT["arms"]:  # type: ignore[attr-defined]
            request = generation_pb2.GenerateRequest(user=types_pb2.User(user=user_of(arm)), count=1)
            answer = await service.generation.Generate(request)
            assert dict(answer.arms) == {"lift": arm}
        held, own, bold = service.engine.requests
        assert (held.revision, own.revision, bold.revision) == ("base", "", "")
        assert (held.overdraw, own.overdraw, bold.overdraw) == (0.0, 0.0, 3.0)
        request = generation_pb2.GenerateRequest(
            user=types_pb2.User(user=user_of("held")), count=1, revision="000001-aa"
        )
        assert dict((await service.generation.Generate(request)).arms) == {}
        assert service.engine.requests[-1].revision == "000001-aa"
        key = UserKey("default", user_of("bold"))
        await eventually(lambda: len(service.state.user(key).impressions) == 1)
        assert json.loads(service.state.user(key).impressions[0].data)["arms"] == {"lift": "bold"}
    finally:
        await service.stop()


async def test_what_is_shown_and_done_is_counted_once_and_reported() -> None:
    service = await running({"lift": LIFT})
    try:
        async with AsyncClient(service.gateway.address) as client:
            for arm in ("held", "own"):
                user = user_of(arm)
                generation = await client.generate(user, 3)
                assert generation.arms == {"lift": arm}
                first, second, _ = (item.item_id for item in generation.items)
                events = [
                    FeedbackEvent(user, item_id=first, type="click", event_id="a"),
                    FeedbackEvent(user, 1.0, item_id=second, event_id="b"),
                    FeedbackEvent(user, item_id=first, type="view", event_id="c"),
                    FeedbackEvent(user, -1.0, item_id=first, event_id="d"),
                ]
                for _ in range(2):
                    await client.submit_feedback(events)
            expected = {"shown": 3, "click": 1, "like": 1, "purchase": 0}

            def counted() -> list[dict[str, int]]:
                found = [service.state.counts("default", f"lift@s1/{arm}") for arm in ("held", "own")]
                return [dict(zip(expected, each[0], strict=True)) for each in found if each]

            await eventually(lambda: counted() == [expected, expected])
            (report,) = await client.experiments()
            assert (report.experiment, report.salt, report.baseline) == ("lift", "s1", "held")
            held, own, _ = report.arms
            assert [(arm.arm, arm.users, arm.shown) for arm in report.arms] == [
                ("held", 1, 3), ("own", 1, 3), ("bold", 0, 0),
            ]  # fmt: skip
            assert [(rate.measure, rate.hits) for rate in own.rates] == [("click", 1), ("like", 1), ("purchase", 0)]
            assert own.rates[0].rate.estimate == pytest.approx(1 / 3)
            assert held.rates[0].difference is None
            assert own.rates[0].difference is not None
            assert await client.experiments(tenant="elsewhere") != [report], "a tenant counts its own users"
        await service.gateway._trials.observe()
        labels = {"experiment": "lift", "arm": "own", "measure": "click", "bound": "estimate"}
        assert REGISTRY.get_sample_value("papa_experiment_rate", labels) == pytest.approx(1 / 3)
    finally:
        await service.stop()


@pytest.mark.parametrize(
    ("identity", "tenant"),
    [
        (Identity("shop", bound=True), "rival"),
        (Identity("shop", bound=True, user="ann"), ""),
        (Identity("shop", bound=True, scopes=frozenset({Scope.GENERATE, Scope.FEEDBACK})), ""),
    ],
)
async def test_a_report_is_the_owners_of_the_tenant(unstarted: Service, identity: Identity, tenant: str) -> None:
    async def authenticate(_: object) -> Identity:
        return identity

    await unstarted.start(authenticate)
    stub = experiment_pb2_grpc.ExperimentServiceStub(unstarted.channel)
    refused = await refusal(stub.GetReport(experiment_pb2.GetReportRequest(tenant=tenant)))
    assert refused.code is grpc.StatusCode.PERMISSION_DENIED


async def test_sums_are_those_of_the_users_and_a_deletion_leaves_them(backend: Backend, user: UserKey) -> None:
    other, foreign = UserKey(user.tenant, "other"), UserKey("elsewhere", "x")
    for whose, counts in (
        (user, [Count(shown=3), Count(click=2), Count(shown=2, like=1)]),
        (other, [Count(shown=7, purchase=1)]),
        (foreign, [Count(shown=1)]),
    ):
        for count in counts:
            await backend.activity.count(whose, {"lift@s/a": count})

    async def summed(tenant: str) -> tuple[object, ...]:
        sums, nothing = await backend.activity.sums(tenant, ["lift@s/a", "lift@s/b"])
        assert (nothing.users, nothing.shown) == (0, 0)
        return sums.users, sums.shown, sums.shown_squared, dict(sums.measures)

    of_user = {"click": (2, 4, 10), "like": (1, 1, 5), "purchase": (1, 1, 7)}
    assert await summed(user.tenant) == (2, 12, 74, of_user)
    assert await summed("") == (3, 13, 75, of_user)
    await backend.users.delete(user)
    await backend.activity.count(user, {"lift@s/a": Count(shown=3)})
    assert await summed(user.tenant) == (1, 7, 49, {"click": (0, 0, 0), "like": (0, 0, 0), "purchase": (1, 1, 7)})
    assert (await summed(""))[:3] == (2, 8, 50)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"lift": {**LIFT, "arms": {"a": {"share": 0.5}, "b": {"share": 0.4}}}}, "sum to 1"),
        ({"lift": {**LIFT, "arms": {"a": {"share": 1.0}}}}, "arms"),
        ({"Lift": LIFT}, "names no experiment"),
        ({"lift": {**LIFT, "arms": {"A b": {"share": 0.5}, "b": {"share": 0.5}}}}, "names no arm"),
        ({"lift": {**LIFT, "salt": ""}}, "salt"),
        ({"lift": LIFT, "more": {**LIFT, "salt": "s2"}}, "both decide overdraw"),
        ({"lift": {**LIFT, "arms": {"a": {"share": 0.5, "steps": 3}, "b": {"share": 0.5}}}}, "steps"),
    ],
)
def test_settings_refuse_what_is_no_experiment(wrong: object, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Settings(attribution={"experiments": wrong})  # type: ignore[arg-type]


def test_experiments_travel_to_other_processes_and_files(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(attribution={"experiments": TWO})  # type: ignore[arg-type]
    for name, value in settings_environment(settings).items():
        monkeypatch.setenv(name, value)
    assert Settings().attribution == settings.attribution
