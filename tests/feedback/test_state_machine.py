"""The state machine on both kinds of state, and that it would notice a defect."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from papa_serving.attribution.memory import MemoryActivityLog
from papa_serving.feedback.memory import MemoryFeedbackLog
from papa_serving.local.redis_process import RedisProcess
from papa_serving.settings import FeedbackSettings, Settings
from papa_serving.store.memory import MemoryItemStore, MemorySeenItems, MemoryState, MemoryUserDirectory

from tests.feedback.loop_machine import LoopMachine
from tests.store.support import PARTITIONS, Backend, open_redis, redis_settings

EXAMPLES = {"memory": 60, "redis": 25}
STEPS = 40


def budget(examples: int, *phases: Phase) -> settings:
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=slow,
        phases=phases or tuple(Phase),
    )


def memory(folder: Path) -> Backend:
    given = Settings(feedback=FeedbackSettings(partitions=PARTITIONS), data_dir=folder)
    state = MemoryState(given)
    stores = MemoryUserDirectory(state), MemoryItemStore(state), MemoryActivityLog(state), MemorySeenItems(state)
    return Backend(given, MemoryFeedbackLog(state), *stores)


def test_the_loop_in_memory(tmp_path: Path) -> None:
    run_state_machine_as_test(lambda: LoopMachine(lambda: memory(tmp_path)), settings=budget(EXAMPLES["memory"]))


def test_the_loop_on_redis(redis_server: RedisProcess, tmp_path: Path) -> None:
    def machine() -> LoopMachine:
        return LoopMachine(lambda: open_redis(redis_settings(redis_server.url, tmp_path)))

    run_state_machine_as_test(machine, settings=budget(EXAMPLES["redis"]))


def test_a_commit_that_does_not_ask_who_owns_the_partition_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The epoch alone: parent and sequence numbers of the events are still checked, and a history could look sound."""
    monkeypatch.setattr(MemoryFeedbackLog, "_owned", lambda log, lease: log._state.partitions[lease.partition])
    with pytest.raises(AssertionError, match="Fenced was not raised"):
        run_state_machine_as_test(lambda: LoopMachine(lambda: memory(tmp_path)), settings=budget(200, Phase.generate))


def test_a_commit_script_without_the_epoch_is_noticed(
    redis_server: RedisProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from papa_serving.feedback import redis_log

    from tests.chaos.scripts import rewritten

    unfenced = rewritten(redis_log._COMMIT, lambda lua: lua.replace("return 'fenced'", "do end"))
    monkeypatch.setattr(redis_log, "_COMMIT", unfenced)

    def machine() -> LoopMachine:
        return LoopMachine(lambda: open_redis(redis_settings(redis_server.url, tmp_path)))

    with pytest.raises(AssertionError, match="Fenced was not raised"):
        run_state_machine_as_test(machine, settings=budget(200, Phase.generate))
