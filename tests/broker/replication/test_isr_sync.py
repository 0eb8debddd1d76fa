"""What keeps the in-sync replicas right outlives an error that nobody foresaw."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pegel_broker.replication import isr_sync
from pegel_broker.replication.hosted import HostedPartition
from pegel_broker.replication.isr_sync import IsrSync
from pegel_controller.rpc import messages as m
from tests.support.replicas import Replicas, run, until


async def _two_joins(replicas: Replicas) -> None:
    """It has fallen out, and fetches: the leader is to ask for it."""
    replicas.create(1, 2)
    now = replicas.partition
    replicas.commit([replace(now, isr=(1,), partition_epoch=now.partition_epoch + 1)])
    replicas.tell()
    await until(lambda: 2 in replicas.partition.isr)


def test_an_answer_that_makes_no_sense_costs_a_pause(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(isr_sync, "FAILURE_DELAY", 0.001)

    async def main() -> None:
        async with Replicas(2) as replicas:

            def alter(item: m.AlterPartitionItem) -> m.AlterPartitionResult:
                if len(replicas.asked) < 3:
                    raise AssertionError("a response of another kind")
                return replicas.accept(item)

            replicas.alter = alter
            await _two_joins(replicas)
            assert len(replicas.asked) == 3

    run(main)
    failed = [r for r in caplog.records if r.getMessage() == "asking for ISR changes failed"]
    assert [r.exc_info is not None for r in failed] == [True, True]


@pytest.mark.parametrize("step", ["_propose", "_take"])
def test_an_error_of_one_partition_is_not_the_end(
    step: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(isr_sync, "FAILURE_DELAY", 0.001)
    honest = getattr(IsrSync, step)
    failures: list[HostedPartition] = []

    def fails_once(self: IsrSync, hosted: HostedPartition, **more: object) -> object:
        if not failures:
            failures.append(hosted)
            raise ZeroDivisionError
        return honest(self, hosted, **more)

    monkeypatch.setattr(IsrSync, step, fails_once)

    async def main() -> None:
        async with Replicas(2) as replicas:
            await _two_joins(replicas)
            for _ in range(2):  # the second needs the task
                now = replicas.partition
                replicas.commit([replace(now, isr=(1,), partition_epoch=now.partition_epoch + 1)])
                replicas.tell()
                await until(lambda: 2 in replicas.partition.isr)

    run(main)
    assert failures
    logged = [r for r in caplog.records if "cannot be kept right" in r.getMessage()]
    assert [r.exc_info is not None for r in logged] == [True]
