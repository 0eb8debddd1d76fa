"""Another min.insync.replicas, told in one go with what happened before and after it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pegel.protocol.errors import ErrorCode
from pegel_controller.metadata.records import BrokerFencedRecord
from tests.support.replicas import Replicas, run, turns


async def _two_of_which_one_is_gone(replicas: Replicas) -> None:
    replicas.tell()
    assert (await replicas.produce(1, b"a")).error is ErrorCode.NONE
    await replicas.kill(2)
    assert (await replicas.produce(1, b"b", acks=1)).error is ErrorCode.NONE
    await turns()
    assert replicas.members[1].high_watermark == 1


def _fence_two(replicas: Replicas, *, eligible: bool) -> None:
    now = replicas.partition
    elr, epoch = (2,) if eligible else (), now.partition_epoch + 1
    replicas.commit([
        BrokerFencedRecord(2, replicas.members[2].epoch),
        replace(now, isr=(1,), elr=elr, partition_epoch=epoch),
    ])  # fmt: skip


@pytest.mark.parametrize("of_the_topic", [True, False])
def test_a_raise_counts_for_the_isr_that_comes_with_it(of_the_topic: bool) -> None:
    """Or the high watermark would pass the replica that left, who may lead by the new minimum."""

    async def main() -> None:
        async with Replicas(2) as replicas:
            replicas.create(1, 2)
            await _two_of_which_one_is_gone(replicas)
            waiting = replicas.produce(1, b"c")
            replicas.configure(of_the_topic=of_the_topic, min_insync_replicas=2)
            _fence_two(replicas, eligible=True)
            replicas.tell(1)
            await turns()
            assert replicas.members[1].high_watermark == 1
            assert not waiting.done()
            # 2 leads, and has all that was acknowledged.
            await replicas.restart(2)
            replicas.elect(2, (2,), elr=(1,))
            replicas.tell(2)
            replicas.tell(1)
            assert (await waiting).error is ErrorCode.NOT_LEADER_OR_FOLLOWER
            await replicas.until_identical()

    run(main)


def test_a_lower_minimum_does_not_count_for_a_leadership_that_is_over() -> None:
    """It was lowered after another had been elected: what waited here, and only here, is lost."""

    async def main() -> None:
        async with Replicas(2) as replicas:
            replicas.create(1, 2, min_insync_replicas=2)
            await _two_of_which_one_is_gone(replicas)
            waiting = replicas.produce(1, b"c")
            _fence_two(replicas, eligible=True)
            replicas.tell(1)
            await replicas.restart(2)
            replicas.elect(2, (2,), elr=(1,))
            replicas.configure(min_insync_replicas=1)
            replicas.tell(1)
            assert (await waiting).error is ErrorCode.NOT_LEADER_OR_FOLLOWER
            assert replicas.members[1].high_watermark == 1

    run(main)


def test_a_lower_minimum_counts_for_the_isr_as_it_is() -> None:
    async def main() -> None:
        async with Replicas(2) as replicas:
            replicas.create(1, 2, min_insync_replicas=2)
            await _two_of_which_one_is_gone(replicas)
            waiting = replicas.produce(1, b"c")
            _fence_two(replicas, eligible=True)
            replicas.tell(1)
            await turns()
            assert not waiting.done()
            _fence_two(replicas, eligible=False)
            replicas.configure(min_insync_replicas=1)
            replicas.tell(1)
            assert (await waiting).error is ErrorCode.NONE
            assert replicas.members[1].high_watermark == 3

    run(main)
