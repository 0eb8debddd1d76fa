"""A replica that a reassignment adds: copied at its own pace, then one like the others."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pegel_broker.replication import fetcher
from pegel_broker.replication.partition import Leader
from pegel_broker.replication.throttle import (
    LONGEST_REST,
    QUICKEST_WINDOW_SECONDS,
    REVIEW_SECONDS,
    SHARE_MAX,
    SHARE_MIN,
    SLICE_BYTES_MAX,
    SLICE_BYTES_MIN,
    SLICE_SECONDS,
    UNLIMITED,
    CatchUpPace,
    Quickest,
    RateLimit,
    throttled_replicas,
)
from pegel_controller.metadata import records as r
from pegel_controller.metadata.image import RESOURCE_BROKER
from tests.support.replicas import TOPIC, TOPIC_ID, Replicas, run, turns, until

VALUE = b"x" * 10_000


def move(cluster: Replicas, **change: tuple[int, ...]) -> None:
    """Commit other replicas of partition 0."""
    now = cluster.partition
    cluster.commit([replace(now, partition_epoch=now.partition_epoch + 1, **change)])


def limit(replicas: Replicas, side: str, rate: int) -> None:
    key = f"{side}.replication.throttled.rate"
    replicas.commit([r.ConfigRecord(RESOURCE_BROKER, "", key, str(rate))])


def test_an_added_replica_is_paced_until_it_is_in_sync_and_the_removed_one_deletes_its_files() -> (
    None
):
    async def main() -> None:
        async with Replicas(3) as replicas:
            replicas.create(1, 2)
            replicas.tell()
            for _ in range(200):
                await replicas.produce(1, VALUE)
            move(replicas, replicas=(1, 3, 2), adding=(3,), removing=(2,), original=(1, 2))
            replicas.tell()
            three = replicas.members[3]
            assert three.hosted().paced
            await until(lambda: 3 in replicas.partition.isr)
            replicas.tell()
            assert not three.hosted().paced
            await replicas.produce(1, b"after it joined")
            await replicas.until_identical()
            move(replicas, replicas=(1, 3), isr=(1, 3))
            replicas.tell()
            two = replicas.members[2]
            assert two.manager.hosted(TOPIC, 0) is None
            await until(lambda: not any("orders-0" in path for path in two.disk.files))
            await replicas.produce(1, b"without it")
            await replicas.until_identical(1, 3)

    run(main)


def test_a_move_asks_for_no_more_replicas_in_sync_than_before() -> None:
    """One replica and min.insync.replicas 2: writes go on while a second one is added."""

    async def main() -> None:
        async with Replicas(2) as replicas:
            replicas.create(1, min_insync_replicas=2)
            replicas.tell()
            assert not (await replicas.produce(1, b"before")).error
            move(replicas, replicas=(1, 2), adding=(2,), original=(1,))
            replicas.tell(1)
            assert not (await replicas.produce(1, b"on the way")).error

    run(main)


def test_a_leader_sends_throttled_replicas_no_more_than_its_limit() -> None:
    """KIP-73; and replicas in sync are never held back."""

    async def main() -> None:
        async with Replicas(3) as replicas:
            replicas.create(1, 2, leader_replication_throttled_replicas="0:1")
            limit(replicas, "leader", 50_000)
            replicas.tell()
            for _ in range(150):
                await replicas.produce(1, VALUE)
            one, three = replicas.members[1], replicas.members[3]
            assert one.manager.leader_limit.limited
            move(replicas, replicas=(1, 2, 3), adding=(3,), original=(1, 2))
            replicas.tell()
            await until(lambda: three.log.log_end_offset > 0)
            await turns(100)
            assert three.log.log_end_offset < 150, "one burst at most, and the round it ends in"
            await replicas.produce(1, b"in sync replicas go on")
            assert three.log.log_end_offset < 150
            limit(replicas, "leader", UNLIMITED)
            replicas.tell()
            await until(lambda: three.log.log_end_offset == 151)

    run(main)


def test_a_follower_takes_no_more_than_its_limit() -> None:
    async def main() -> None:
        async with Replicas(3) as replicas:
            replicas.create(1, 2)
            limit(replicas, "follower", 100_000)
            replicas.tell()
            for _ in range(150):
                await replicas.produce(1, VALUE)
            three = replicas.members[3]
            move(replicas, replicas=(1, 2, 3), adding=(3,), original=(1, 2))
            replicas.tell()
            await until(lambda: three.log.log_end_offset > 0)
            await turns(100)
            assert three.log.log_end_offset < 150
            limit(replicas, "follower", UNLIMITED)
            replicas.tell()
            await until(lambda: three.log.log_end_offset == 150)

    run(main)


def test_what_was_appended_for_another_leader_is_not_claimed_before_it_is_stable() -> None:
    """The disk of a follower hangs while its leader changes: the new one must not count it."""

    async def main() -> None:
        async with Replicas(3) as replicas:
            replicas.create(1, 2, 3)
            replicas.tell()
            await replicas.produce(1, b"a")
            await replicas.until_identical()
            three = replicas.members[3]
            writes = [q for q in three.queues.made if "write" in q.name]
            assert writes
            for queue in writes:
                queue.hold()
            replicas.produce(1, b"b")
            await until(lambda: three.log.log_end_offset == 2)
            await until(lambda: replicas.members[2].log.stable_offset == 2)
            assert three.log.stable_offset == 1
            replicas.elect(2)
            replicas.tell()
            await turns(100)
            followers = replicas.members[2].hosted().core.state.followers
            assert followers[3].log_end_offset < 2
            for queue in writes:
                queue.release()
            await until(lambda: replicas.members[2].high_watermark == 2)

    run(main)


def test_a_follower_owes_what_it_took_beyond_its_limit_however_long_that_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One byte a second, and a round takes thousands: it does not go on before hours are over."""
    monkeypatch.setattr(fetcher, "REST_MAX", 0.001)

    async def main() -> None:
        async with Replicas(2) as replicas:
            replicas.create(1)
            limit(replicas, "follower", 1)
            replicas.tell()
            for _ in range(50):
                await replicas.produce(1, VALUE)
            two = replicas.members[2]
            move(replicas, replicas=(1, 2), adding=(2,), original=(1,))
            replicas.tell()
            await until(lambda: two.log.log_end_offset > 0)
            taken = two.log.log_end_offset
            assert taken < 50
            await turns(200)
            assert two.log.log_end_offset == taken
            limit(replicas, "follower", UNLIMITED)
            replicas.tell()
            await until(lambda: two.log.log_end_offset == 50)

    run(main)


def test_a_throttled_follower_that_falls_out_again_is_throttled_again() -> None:
    async def main() -> None:
        async with Replicas(2) as replicas:
            replicas.create(1, 2, follower_replication_throttled_replicas="*")
            two = replicas.members[2]
            for _ in range(2):
                move(replicas, isr=(1,))
                replicas.tell()
                assert two.hosted().paced
                await replicas.produce(1, b"a")
                await until(lambda: 2 in replicas.partition.isr)
                replicas.tell()
                assert not two.hosted().paced

    run(main)


def test_what_came_while_it_waited_for_its_turn_is_not_claimed_before_it_is_stable() -> None:
    """Two fetchers of a broker wait for a third; a partition goes over from one to the other."""

    async def main() -> None:
        async with Replicas(3) as replicas:
            replicas.commit(
                [
                    r.TopicRecord(TOPIC, TOPIC_ID),
                    r.PartitionRecord(TOPIC_ID, 0, (2, 1), (2, 1), 2),
                    r.PartitionRecord(TOPIC_ID, 1, (1, 2), (1, 2), 1),
                ]
            )
            replicas.tell()
            await replicas.produce(2, b"a", b"b")
            await replicas.produce(1, b"c", partition=1)
            one, two, three = (replicas.members[i] for i in (1, 2, 3))
            turn = three.manager._fetchers._paced.turn
            await turn.acquire()
            now = replicas.partition
            replicas.commit(
                [
                    replace(
                        now, partition_epoch=1, partition=number, replicas=(*old, 3), isr=old,
                        leader=old[0], adding=(3,), original=old,
                    )
                    for number, old in enumerate([(2, 1), (1, 2)])
                ]
            )  # fmt: skip
            replicas.tell()
            assert three.hosted(0).paced
            await turns(100)  # both fetchers are connected, and wait for their turn
            three.queues.named("log-write").hold()
            content = await two.content(0)
            three.log.append_as_follower(memoryview(content))  # what its last round brought
            replicas.elect(1)
            replicas.tell(1, 3)
            turn.release()
            await turns(200)
            assert (three.log.stable_offset, three.log.log_end_offset) == (0, 2)
            state = one.hosted(0).core.state
            assert isinstance(state, Leader)
            claimed = state.followers[3].log_end_offset
            three.queues.named("log-write").release()
            assert claimed <= 0, "nothing of it is written"
            await until(lambda: 3 in replicas.partition.isr)

    run(main)


@given(
    rate=st.integers(1, 10**9),
    sizes=st.lists(st.tuples(st.floats(0, 5), st.integers(0, 10**8)), max_size=50),
)
def test_a_limit_lets_its_rate_through_and_one_burst(
    rate: int, sizes: list[tuple[float, int]]
) -> None:
    limit, now, taken, last = RateLimit(rate), 0.0, 0, 0
    for gap, size in sizes:
        now += gap
        if limit.wait(now) == 0:
            limit.take(now, size)
            taken, last = taken + size, size
    assert taken - last <= rate * (now + 1) + 1
    wait = limit.wait(now)
    assert limit.wait(now + wait * 1.0001 + 1e-6) < 1e-3


def test_no_limit_never_waits() -> None:
    limit = RateLimit()
    limit.take(0.0, 10**15)
    assert limit.wait(0.0) == 0.0


HELD = SLICE_SECONDS / 2  # neither more nor less may be asked for


def rests(pace: CatchUpPace, rounds: int, took: float, quickest: float = 0.001) -> float:
    """The last rest of so many rounds."""
    return [pace.rest(took, quickest, HELD) for _ in range(rounds)][-1]


def test_a_move_at_leisure_works_its_share_of_the_time() -> None:
    pace = CatchUpPace()
    assert rests(pace, 1, 0.001) > 0.001 * (1 / SHARE_MAX - 1), "it begins gently"
    assert rests(pace, 100, 0.001) == pytest.approx(0.001 * (1 / SHARE_MAX - 1))


def test_a_move_yields_where_its_rounds_take_longer_and_comes_back() -> None:
    pace = CatchUpPace()
    rests(pace, 100, 0.001)
    assert rests(pace, 3, 0.003) == pytest.approx(0.003 * (1 / SHARE_MIN - 1))
    assert rests(pace, 1, 10.0) == LONGEST_REST
    assert rests(pace, 100, 0.001) == pytest.approx(0.001 * (1 / SHARE_MAX - 1))


def test_rounds_that_have_become_longer_for_good_are_the_new_measure() -> None:
    quickest = Quickest()
    assert [quickest.of(n, 0.003 + n / 1000, 1) for n in range(3)] == [0.003] * 3
    assert quickest.of(QUICKEST_WINDOW_SECONDS, 0.007, 1) == 0.003
    assert quickest.of(2 * QUICKEST_WINDOW_SECONDS, 0.008, 1) == 0.007
    assert quickest.of(2 * QUICKEST_WINDOW_SECONDS, 0.009, 2) == 0.009, "of another size"


def reviewed(pace: CatchUpPace, came_in: int, copied: int, times: int = 20) -> float:
    """The rest after so many reviews, with so many records between two of them."""
    position, lag = 0, 10**9
    for n in range(times):
        now = n * REVIEW_SECONDS
        assert pace.review_due(now)
        pace.review(now, position, lag)
        assert not pace.review_due(now + REVIEW_SECONDS / 2)
        position, lag = position + copied, lag + came_in - copied
    return rests(pace, 100, 0.001)


def test_a_move_that_gets_nearer_keeps_its_pace_however_long_it_takes() -> None:
    assert reviewed(CatchUpPace(), 400, 1000, 10_000) == pytest.approx(0.001 * (1 / SHARE_MAX - 1))


@pytest.mark.parametrize("came_in", [600, 1000, 5000])
def test_a_move_that_would_hardly_end_rests_no_more(came_in: int) -> None:
    assert reviewed(CatchUpPace(), came_in, 1000) == 0.0


def test_a_lag_that_grows_because_there_is_more_to_copy_hurries_nobody() -> None:
    pace = CatchUpPace()
    for n in range(20):
        pace.on_change()
        pace.review(REVIEW_SECONDS * n, 1000 * n, 5000 * n)
    assert rests(pace, 100, 0.001) == pytest.approx(0.001 * (1 / SHARE_MAX - 1))


def test_a_round_asks_for_what_the_event_loop_takes_in_in_time() -> None:
    pace = CatchUpPace()
    for _ in range(10):
        pace.rest(0.001, 0.001, 0.0)
    assert pace.slice_bytes == SLICE_BYTES_MAX
    pace.rest(0.010, 0.010, 2 * SLICE_SECONDS)
    assert pace.slice_bytes == SLICE_BYTES_MAX // 2
    for _ in range(10):
        pace.rest(0.010, 0.010, 2 * SLICE_SECONDS)
    assert pace.slice_bytes == SLICE_BYTES_MIN


def test_the_lists_of_kip_73_are_read() -> None:
    assert throttled_replicas(["*"]) is None
    assert throttled_replicas(["0:1", "12:3", "nonsense", "1:x"]) == {(0, 1), (12, 3)}
    assert throttled_replicas([]) == frozenset()
