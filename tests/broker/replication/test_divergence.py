"""Logs that disagree, one scripted case for each rule that makes them agree again.

Each ends with logs that are the same bytes, and with everything that was acknowledged in them.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from pegel.protocol.errors import ErrorCode
from pegel.record.encode import encode_batch
from pegel_controller.metadata import records as r
from pegel_controller.rpc.messages import AlterPartitionItem, AlterPartitionResult
from tests.support.replicas import Replicas, run, turns, until


def test_a_restarted_follower_does_not_cut_at_its_own_high_watermark() -> None:
    """KIP-101, scenario 1: a follower that knew an old high watermark comes back and must lead."""

    async def main() -> None:
        async with Replicas(2) as replicas:
            replicas.create(1, 2)
            replicas.tell()
            one, two = replicas.members[1], replicas.members[2]
            assert (await replicas.produce(1, b"a")).error is ErrorCode.NONE
            await until(lambda: two.high_watermark == 1)
            assert (await replicas.produce(1, b"b")).error is ErrorCode.NONE
            # Written on both and acknowledged; the follower may not know of the latter yet.
            two.hosted().core.high_watermark = two.log.high_watermark = 1
            await replicas.kill(2)
            await replicas.restart(2)
            await replicas.kill(1)
            replicas.elect(2, (2,))
            replicas.tell(2)
            assert two.log.log_end_offset == 2, "acknowledged data was cut"
            assert (await replicas.produce(2, b"c")).error is ErrorCode.NONE
            await replicas.restart(1)
            replicas.tell()
            await replicas.until_identical()
            assert await one.values() == [b"a", b"b", b"c"]

    run(main)


def test_a_tail_that_only_the_old_leader_had_gives_way() -> None:
    """KIP-101, scenario 2: equal offsets, different records; the epoch tells them apart."""

    async def main() -> None:
        async with Replicas(2) as replicas:
            replicas.create(1, 2)
            replicas.tell(1)  # broker 2 does not follow yet
            one, two = replicas.members[1], replicas.members[2]
            replicas.tell(2)
            await replicas.produce(1, b"both")
            replicas.elect(2, (2,))
            replicas.tell(2)
            await replicas.produce(1, b"only on 1", b"only on 1 as well", acks=1)
            await replicas.produce(2, b"only on 2", acks=1)
            assert await one.values() == [b"both", b"only on 1", b"only on 1 as well"]
            replicas.tell(1)
            await replicas.until_identical()
            assert await one.values() == [b"both", b"only on 2"]
            assert await two.values() == [b"both", b"only on 2"]

    run(main)


def test_epochs_that_the_leader_never_saw_are_walked_back() -> None:
    """KIP-279: leaders change without meeting; the follower's epochs are unknown to the leader."""

    async def main() -> None:
        async with Replicas(3) as replicas:
            replicas.create(1, 2, 3)
            replicas.tell()
            await replicas.produce(1, b"common")
            one, two, three = (replicas.members[i] for i in (1, 2, 3))
            await until(lambda: three.log.stable_offset == 1 and two.log.stable_offset == 1)
            # Epoch 1 at broker 2, epoch 2 at broker 1, epoch 3 at 2 again: nobody hears the other.
            replicas.elect(2, (2,))
            replicas.tell(2)
            await replicas.produce(2, b"e1", acks=1)
            replicas.elect(1, (1,))
            replicas.tell(1)
            await replicas.produce(1, b"e2", b"e2'", acks=1)
            replicas.elect(2, (2,))
            replicas.tell(2)
            await replicas.produce(2, b"e3", acks=1)
            replicas.elect(3, (3,))
            replicas.tell(3)
            await replicas.produce(3, b"e4", acks=1)
            assert [len(await x.values()) for x in (one, two, three)] == [3, 3, 2]
            replicas.tell()
            await replicas.until_identical()
            assert await one.values() == await two.values() == [b"common", b"e4"]
            epochs = [m.log.epochs.entries() for m in (one, two, three)]
            assert epochs == [[(0, 0), (4, 1)]] * 3

    run(main)


def test_a_follower_cuts_where_its_own_records_of_the_common_epoch_end() -> None:
    """KIP-279: the leader wrote on in that epoch, so its end of it lies beyond."""

    async def main() -> None:
        async with Replicas(2) as replicas:
            replicas.create(1, 2)
            replicas.tell()
            one, two = replicas.members[1], replicas.members[2]
            await replicas.produce(1, b"common")
            replicas.elect(2, (1, 2))
            replicas.tell()
            await replicas.produce(2, b"e1")
            replicas.elect(1, (1,))
            replicas.tell(1)  # broker 2 leads on by itself
            await replicas.produce(1, b"e2", b"e2'", acks=1)
            await replicas.produce(2, b"e1'", b"e1''", b"e1+", acks=1)
            replicas.elect(2, (2,))
            replicas.tell(2)
            assert (one.log.log_end_offset, two.log.log_end_offset) == (4, 5)
            replicas.tell(1)
            await replicas.until_identical()
            assert await one.values() == [b"common", b"e1", b"e1'", b"e1''", b"e1+"]

    run(main)


def test_a_fetch_in_another_epoch_is_refused() -> None:
    """KIP-320: neither a reader that is behind nor one that is ahead gets data."""

    async def main() -> None:
        async with Replicas(2) as replicas:
            replicas.create(1, 2)
            replicas.elect(1)
            replicas.tell()
            await replicas.produce(1, b"a")
            for epoch, error in (
                (0, ErrorCode.FENCED_LEADER_EPOCH),
                (1, ErrorCode.NONE),
                (-1, ErrorCode.NONE),
                (2, ErrorCode.UNKNOWN_LEADER_EPOCH),
            ):
                for replica_id in (-1, 2):
                    result = await replicas.fetch(
                        1, 0, replica_id=replica_id, current_leader_epoch=epoch
                    )
                    assert result.error is error
                    assert bool(result.records) == (error is ErrorCode.NONE)

    run(main)


def test_a_consumer_learns_that_what_it_read_is_gone() -> None:
    """KIP-320: a consumer past the end of its epoch is told where that epoch ends now."""

    async def main() -> None:
        async with Replicas(2) as replicas:
            replicas.create(1, 2)
            replicas.tell(1)
            replicas.tell(2)
            await replicas.produce(1, b"a")
            replicas.elect(2, (2,))
            replicas.tell(2)
            await replicas.produce(2, b"b", b"c", acks=1)
            # The consumer had read up to 2 in epoch 0, which ended at 1.
            result = await replicas.fetch(2, 2, current_leader_epoch=1, last_fetched_epoch=0)
            assert result.error is ErrorCode.NONE
            assert result.diverging == (0, 1)
            assert not result.records
            two = replicas.members[2].manager
            ended = two.end_offset_for_epoch("orders", 0, 1, 0)
            assert (ended.leader_epoch, ended.end_offset) == (0, 1)

    run(main)


def test_a_follower_is_told_the_diverging_epoch_in_the_fetch_itself() -> None:
    """KIP-595: no second request is needed to find where the logs part."""

    async def main() -> None:
        async with Replicas(2) as replicas:
            replicas.create(1, 2)
            replicas.tell(1)
            await replicas.produce(1, b"a", b"b", acks=1)
            replicas.elect(1)
            replicas.tell(1)
            await replicas.produce(1, b"c", acks=1)
            for offset, epoch, diverging in (
                (2, 0, None),  # epoch 0 ends there: equal so far
                (3, 0, (0, 2)),  # has more of epoch 0 than we
                (1, 0, None),
                (3, 1, None),
            ):
                result = await replicas.fetch(1, offset, replica_id=2, last_fetched_epoch=epoch)
                assert (result.error, result.diverging) == (ErrorCode.NONE, diverging), offset

    run(main)


def test_a_follower_serves_what_is_committed_and_no_more() -> None:
    """KIP-392: the follower's high watermark bounds what it hands out."""

    async def main() -> None:
        async with Replicas(2) as replicas:
            replicas.create(1, 2)
            replicas.tell()
            two = replicas.members[2]
            await replicas.produce(1, b"a")
            await until(lambda: two.high_watermark == 1)
            result = await replicas.fetch(2, 0, allow_follower=True)
            assert (result.error, result.high_watermark) == (ErrorCode.NONE, 1)
            assert result.records
            # A client too old to know that followers may answer is sent away.
            assert (await replicas.fetch(2, 0)).error is ErrorCode.NOT_LEADER_OR_FOLLOWER
            # In the log, not known to be committed: nothing, and no error.
            two.log.append_as_follower(memoryview(_next_batch(1)))
            result = await replicas.fetch(2, 1, allow_follower=True)
            assert (result.error, result.size) == (ErrorCode.NONE, 0)

    run(main)


def _next_batch(offset: int) -> bytes:
    return bytes(encode_batch([b"later"], timestamps=0, base_offset=offset))


def test_readers_are_sent_to_a_replica_in_their_rack() -> None:
    """KIP-392: only to one that is in sync and holds the offset."""

    async def main() -> None:
        async with Replicas(3, racks={1: "a", 2: "b", 3: "c"}) as replicas:
            replicas.create(1, 2, 3)
            replicas.tell(1, 2)
            await replicas.produce(1, b"a", acks=1)
            two = replicas.members[2]
            await until(lambda: two.log.stable_offset == 1)
            await turns()
            for rack, replica in (("a", -1), ("b", 2), ("c", -1), ("elsewhere", -1), ("", -1)):
                result = await replicas.fetch(1, 0, rack=rack, allow_follower=True)
                assert result.preferred_read_replica == replica, rack

    run(main)


def test_a_fenced_broker_does_not_join_however_well_it_fetches() -> None:
    """KIP-631, KIP-841: who may lead is the metadata's business, not the fetcher's."""

    async def main() -> None:
        async with Replicas(2) as replicas:
            replicas.create(1, 2)
            replicas.elect(1, (1,))
            replicas.commit([r.BrokerFencedRecord(2, replicas.members[2].epoch)])
            replicas.tell()
            two = replicas.members[2]
            assert (await replicas.produce(1, b"a", acks=1)).error is ErrorCode.NONE
            await until(lambda: two.log.stable_offset == 1)
            await turns()
            assert replicas.asked == []
            replicas.commit([r.BrokerUnfencedRecord(2, two.epoch)])
            replicas.tell()
            await until(lambda: replicas.partition.isr == (1, 2))

    run(main)


def test_a_new_incarnation_is_not_admitted_for_what_the_old_one_had() -> None:
    """KIP-903: not asked for, and refused by the controller that knows of a newer one."""

    async def main() -> None:
        async with Replicas(2) as replicas:
            replicas.create(1, 2)
            replicas.elect(1, (1,))
            replicas.tell(1)
            result = await replicas.fetch(1, 0, replica_id=2, replica_epoch=7)
            assert result.error is ErrorCode.NONE
            await turns()
            assert replicas.asked == []
            known = replicas.members[2].epoch
            result = await replicas.fetch(1, 0, replica_id=2, replica_epoch=known)
            assert result.error is ErrorCode.NONE
            replicas.commit(replicas._registration(replicas.members[2]))  # told to nobody
            await until(lambda: bool(replicas.asked))
            assert [(i.broker_id, i.broker_epoch) for i in replicas.asked[0].new_isr] == [
                (1, -1), (2, known),
            ]  # fmt: skip
            await turns()
            assert replicas.partition.isr == (1,), "an old incarnation's fetch counted"

    run(main)


def test_the_high_watermark_stands_still_below_min_isr() -> None:
    """KIP-966: otherwise those that left last could not be elected without loss."""

    async def main() -> None:
        async with Replicas(2) as replicas:
            replicas.create(1, 2, min_insync_replicas=2)
            replicas.tell()
            one = replicas.members[1]
            await replicas.produce(1, b"a")
            assert one.high_watermark == 1
            await replicas.kill(2)
            fenced = r.BrokerFencedRecord(2, replicas.members[2].epoch)
            replicas.commit([fenced, _without_two(replicas)])
            replicas.tell(1)
            assert one.hosted().core.state.isr == (1,)  # type: ignore[union-attr]
            assert (await replicas.produce(1, b"b", acks=1)).error is ErrorCode.NONE
            await turns()
            assert (one.log.log_end_offset, one.high_watermark) == (2, 1)
            refused = await replicas.produce(1, b"c")
            assert refused.error is ErrorCode.NOT_ENOUGH_REPLICAS
            # Broker 2, now an eligible leader replica, may lead: what was committed is there.
            await replicas.restart(2)
            replicas.elect(2, (2,), elr=(1,))
            replicas.tell(2)
            assert await replicas.members[2].values() == [b"a"]
            replicas.tell(1)
            await replicas.until_identical()

    run(main)


def _without_two(replicas: Replicas) -> r.PartitionChangeRecord:
    now = replicas.partition
    return replace(now, isr=(1,), elr=(2,), partition_epoch=now.partition_epoch + 1)


@pytest.mark.parametrize("answer", ["lost", "refused"])
def test_an_expansion_in_doubt_counts_for_the_high_watermark(answer: str) -> None:
    """KIP-497: the controller may have committed it and may elect that replica."""

    async def main() -> None:
        async with Replicas(2) as replicas:
            replicas.create(1, 2)
            replicas.elect(1, (1,))
            replicas.tell(1)
            one = replicas.members[1]

            def alter(item: AlterPartitionItem) -> AlterPartitionResult | None:
                """It is done, but the leader hears of it otherwise or not at all."""
                replicas.accept(item)
                error = ErrorCode.INVALID_UPDATE_VERSION
                refused = AlterPartitionResult(item.topic_id, item.partition, error)
                return None if answer == "lost" else refused

            replicas.alter = alter
            await replicas.produce(1, b"a", acks=1)
            await until(lambda: one.high_watermark == 1)
            await replicas.fetch(1, 1, replica_id=2, replica_epoch=replicas.members[2].epoch)
            await until(lambda: replicas.partition.isr == (1, 2))
            await replicas.produce(1, b"b", acks=1)
            waiting = replicas.produce(1, b"c")
            await turns()
            assert one.high_watermark == 1, "went past a replica that may already be in the ISR"
            assert not waiting.done()
            replicas.tell(1)  # the metadata tells what became of it
            await replicas.fetch(1, 3, replica_id=2, replica_epoch=replicas.members[2].epoch)
            assert (await waiting).error is ErrorCode.NONE

    run(main)


def test_a_leader_that_comes_during_a_truncation_is_told_nothing_before_its_end() -> None:
    """What is about to be cut off may not be claimed, and what was cut off is fetched again."""

    async def main() -> None:
        async with Replicas(3) as replicas:
            three = await replicas.begin_to_cut()
            two = replicas.members[2]
            replicas.elect(2, (2, 3))
            replicas.tell(2, 3)
            await turns()
            claimed = two.high_watermark
            three.queues.named("log-write").release()
            assert claimed < 2, "broker 3 is about to cut what it has claimed"
            await replicas.until_identical(2, 3)
            assert await three.values() == [b"common", b"not on 1"]
            await until(lambda: two.high_watermark == 2)

    run(main)


def test_a_follower_elected_during_a_truncation_leads_what_is_left() -> None:
    """Its epoch begins where the cut log ends; nobody reads what is about to go."""

    async def main() -> None:
        async with Replicas(3) as replicas:
            three = await replicas.begin_to_cut()
            two = replicas.members[2]
            replicas.elect(3, (3,))
            replicas.tell(3)
            readable = three.high_watermark
            replicas.tell(2)
            await turns()
            early = max(readable, three.high_watermark)
            three.queues.named("log-write").release()
            await until(lambda: three.log.truncation is None)
            await turns()
            assert early < 2, "consumers could read what is cut off now"
            assert three.log.epochs.latest == 3
            assert three.hosted().core.is_settled
            await replicas.until_identical(2, 3)
            assert await two.values() == [b"common"]
            assert (await replicas.produce(3, b"next")).error is ErrorCode.NONE

    run(main)


def test_a_partition_that_comes_while_the_fetcher_connects_waits_for_its_own_disk() -> None:
    """A fetch offset claims what is written, whatever happened since the fetcher last looked."""

    async def main() -> None:
        async with Replicas(2) as replicas:
            replicas.create(1, 2, partitions=2)
            replicas.tell()
            one, two = replicas.members[1], replicas.members[2]
            await replicas.produce(1, b"a")
            await until(lambda: two.log.stable_offset == 1)
            fetchers = two.manager._fetchers
            fetchers.forget(two.hosted(0))
            fetchers.forget(two.hosted(1))
            fetchers.close_idle()
            queue = two.queues.named("log-write")
            queue.hold()
            two.log.append_as_follower(memoryview(_next_batch(1)))
            one.log.append_as_follower(memoryview(_next_batch(1)))
            await until(lambda: one.log.stable_offset == 2)
            fetchers.follow(two.hosted(1))
            await asyncio.sleep(0)  # it connects
            fetchers.follow(two.hosted(0))
            await turns()
            claimed = one.high_watermark
            queue.release()
            assert claimed < 2, "claimed before it was written"
            one.hosted().on_stable()
            await until(lambda: one.high_watermark == 2)

    run(main)


def test_what_a_follower_held_in_an_earlier_life_lets_it_not_join() -> None:
    """Asking for it in vain also kept others from joining, who were asked for with it."""

    async def main() -> None:
        async with Replicas(3) as replicas:
            replicas.create(1, 2, 3)
            replicas.tell()
            assert (await replicas.produce(1, b"a")).error is ErrorCode.NONE
            await until(lambda: all(m.high_watermark == 1 for m in replicas.members.values()))
            await replicas.kill(2)
            await replicas.kill(3)
            replicas.elect(1, (1,))
            replicas.tell(1)
            await replicas.restart(2)
            await replicas.restart(3)
            replicas.tell(1)
            replicas.tell(3)  # 2 does not follow
            await until(lambda: replicas.partition.isr == (1, 3))
            replicas.tell(1, 2)
            await until(lambda: replicas.partition.isr == (1, 2, 3))

    run(main)
