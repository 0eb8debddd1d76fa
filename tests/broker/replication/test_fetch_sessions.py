"""Incremental fetch sessions, alone and against a model that never forgets (KIP-227)."""

from __future__ import annotations

import random
from uuid import UUID

import pytest

from pegel.protocol.errors import ErrorCode
from pegel_broker.replication.fetch_session import (
    FINAL_EPOCH,
    MAX_SESSION_ID,
    STALE_AFTER,
    FetchSessionCache,
    SessionError,
    SessionRequest,
)
from pegel_broker.replication.results import FetchItem, PartitionFetchResult

ID = UUID(int=7)


def _item(partition: int, offset: int = 0) -> FetchItem:
    return FetchItem("t", ID, partition, offset, 1000)


def _key(partition: int) -> tuple[str, UUID, int]:
    return ("t", ID, partition)


def _answer(request: SessionRequest, **changes: PartitionFetchResult) -> list[int]:
    """Partitions visible in the response; ``p0=…`` replaces the answer of partition 0."""
    results = [
        changes.get(
            f"p{item.partition}", PartitionFetchResult(high_watermark=5, log_start_offset=0)
        )
        for item in request.items
    ]
    return [item.partition for item, _ in request.visible(request.items, results)]


def _open(
    cache: FetchSessionCache, *partitions: int, follower: bool = False, now: float = 0.0
) -> int:
    items = [_item(p) for p in partitions]
    request = cache.resolve(0, 0, items, [], follower=follower, now=now)
    assert _answer(request) == list(partitions)
    return request.session_id


def _next(cache: FetchSessionCache, session: int, epoch: int, *items: FetchItem) -> SessionRequest:
    return cache.resolve(session, epoch, items, [], follower=False, now=0.0)


def test_an_increment_tells_only_what_is_new() -> None:
    cache = FetchSessionCache(random.Random(1))
    session = _open(cache, 0, 1, 2)
    assert session > 0
    assert _answer(_next(cache, session, 1)) == []
    more = PartitionFetchResult(high_watermark=6, log_start_offset=0)
    assert _answer(_next(cache, session, 2), p1=more) == [1]
    assert _answer(_next(cache, session, 3), p1=more) == []
    start = PartitionFetchResult(high_watermark=5, log_start_offset=2)
    assert _answer(_next(cache, session, 4), p1=more, p2=start) == [2]


def test_an_error_is_told_each_time_and_so_is_its_end() -> None:
    cache = FetchSessionCache(random.Random(1))
    session = _open(cache, 0)
    broken = PartitionFetchResult(ErrorCode.NOT_LEADER_OR_FOLLOWER)
    assert _answer(_next(cache, session, 1), p0=broken) == [0]
    assert _answer(_next(cache, session, 2), p0=broken) == [0]
    assert _answer(_next(cache, session, 3)) == [0]
    assert _answer(_next(cache, session, 4)) == []


def test_who_got_data_goes_to_the_end_of_the_line() -> None:
    cache = FetchSessionCache(random.Random(1))
    session = _open(cache, 0, 1, 2)
    data = PartitionFetchResult(high_watermark=5, log_start_offset=0, size=10)
    _answer(_next(cache, session, 1), p0=data)
    assert [item.partition for item in _next(cache, session, 2).items] == [1, 2, 0]


def test_partitions_come_change_and_go() -> None:
    cache = FetchSessionCache(random.Random(1))
    session = _open(cache, 0, 1)
    request = cache.resolve(session, 1, [_item(1, 9), _item(2)], [_key(0)], follower=False, now=0.0)
    assert [(i.partition, i.fetch_offset) for i in request.items] == [(1, 9), (2, 0)]


def test_a_session_that_is_not_there_and_a_request_out_of_turn() -> None:
    cache = FetchSessionCache(random.Random(1))
    session = _open(cache, 0)
    with pytest.raises(SessionError) as unknown:
        _next(cache, session + 1, 1)
    assert unknown.value.code is ErrorCode.FETCH_SESSION_ID_NOT_FOUND
    with pytest.raises(SessionError) as out_of_turn:
        _next(cache, session, 2)
    assert out_of_turn.value.code is ErrorCode.INVALID_FETCH_SESSION_EPOCH
    _next(cache, session, 1)  # and nothing was lost by that


def test_a_final_request_closes_and_a_first_one_replaces() -> None:
    cache = FetchSessionCache(random.Random(1))
    first, second = _open(cache, 0), _open(cache, 1)
    request = cache.resolve(first, FINAL_EPOCH, [_item(3)], [], follower=False, now=0.0)
    assert (request.session_id, _answer(request)) == (0, [3])
    third = cache.resolve(second, 0, [_item(4)], [], follower=False, now=0.0).session_id
    assert len(cache) == 1
    with pytest.raises(SessionError):
        _next(cache, second, 1)
    _next(cache, third, 1)


def test_epochs_wrap_to_one() -> None:
    cache = FetchSessionCache(random.Random(1))
    session = _open(cache, 0)
    cache._sessions[session].epoch = MAX_SESSION_ID
    _next(cache, session, MAX_SESSION_ID)
    _next(cache, session, 1)


def test_without_room_a_fetch_works_without_a_session() -> None:
    cache = FetchSessionCache(random.Random(1), max_sessions=2)
    client, _ = _open(cache, 0), _open(cache, 0, follower=True)
    assert _open(cache, 0) == 0
    assert len(cache) == 2
    follower = _open(cache, 0, follower=True)
    assert follower > 0, "a follower pushes out a client"
    with pytest.raises(SessionError):
        _next(cache, client, 1)
    assert _open(cache, 0, follower=True) == 0, "but no other follower"


def test_sessions_that_nobody_uses_any_more_make_room() -> None:
    """A follower opens a new one with each connection, and never closes the old one."""
    cache = FetchSessionCache(random.Random(1), max_sessions=3)
    old = [_open(cache, 0, follower=True, now=float(n)) for n in range(3)]
    assert _open(cache, 0, now=STALE_AFTER) == 0
    assert cache.resolve(old[0], 1, [], [], follower=True, now=STALE_AFTER).session
    client = _open(cache, 0, now=STALE_AFTER + 1.5)
    assert client > 0
    assert len(cache) == 3
    for session, used in zip(old, (True, False, True), strict=True):
        assert (session in cache._sessions) == used


@pytest.mark.parametrize("seed", range(40))
def test_a_client_that_remembers_knows_what_a_full_fetch_would_tell(seed: int) -> None:
    """Random requests: the client merges increments, and must always hold the server's truth."""
    rng = random.Random(seed)
    cache = FetchSessionCache(random.Random(seed))
    truth = {p: PartitionFetchResult(high_watermark=0, log_start_offset=0) for p in range(6)}
    wanted = dict.fromkeys(range(3), 0)
    known: dict[int, PartitionFetchResult] = {}
    session = epoch = 0
    for _ in range(200):
        for p in rng.sample(range(6), rng.randrange(3)):
            old = truth[p]
            error = rng.choice([ErrorCode.NONE] * 3 + [ErrorCode.NOT_LEADER_OR_FOLLOWER])
            truth[p] = PartitionFetchResult(
                error,
                high_watermark=old.high_watermark + rng.randrange(2),
                log_start_offset=old.log_start_offset + rng.randrange(2),
            )
        added = {p: rng.randrange(9) for p in rng.sample(range(6), rng.randrange(2))}
        gone = [p for p in rng.sample(range(6), rng.randrange(2)) if p in wanted and p not in added]
        wanted = {p: o for p, o in {**wanted, **added}.items() if p not in gone}
        if epoch == 0 or rng.random() < 0.05:
            asked, epoch, known = wanted, 0, {}
        else:
            asked = added
        request = cache.resolve(
            session, epoch, [_item(p, o) for p, o in asked.items()], [_key(p) for p in gone],
            follower=False, now=0.0,
        )  # fmt: skip
        session, epoch = request.session_id, epoch + 1
        assert {i.partition: i.fetch_offset for i in request.items} == wanted
        told = request.visible(request.items, [truth[i.partition] for i in request.items])
        known.update({item.partition: result for item, result in told})
        for p in wanted:
            seen, is_ = known[p], truth[p]
            assert seen.error == is_.error
            if not is_.error:
                assert seen.high_watermark == is_.high_watermark
                assert seen.log_start_offset == is_.log_start_offset
        known = {p: result for p, result in known.items() if p in wanted}
