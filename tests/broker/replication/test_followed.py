"""The follower's side of a fetch session: what each request names, and what it leaves out."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import cast
from uuid import UUID

import pytest

from pegel.protocol.codec import decode_request, encode_request, read_request_header
from pegel.protocol.messages.fetch import FetchRequest
from pegel_broker.replication import followed as module
from pegel_broker.replication.followed import (
    FORGOTTEN_MAX,
    NAMED_MAX,
    Followed,
    Following,
    Key,
)
from pegel_broker.replication.hosted import HostedPartition

TOPIC = UUID(int=1)


def partition(end: int, start: int = 0) -> Following:
    log = SimpleNamespace(
        log_end_offset=end, log_start_offset=start, epoch_for_offset=lambda _offset: 3
    )
    return Following(cast(HostedPartition, SimpleNamespace(log=log)), epoch=4)


def followed(*ends: int) -> tuple[Followed, dict[int, Following]]:
    it, all_of_it = Followed(1 << 20), {n: partition(end) for n, end in enumerate(ends)}
    for number, following in all_of_it.items():
        it.add(key(number), following)
    return it, all_of_it


def key(number: int) -> Key:
    return TOPIC, number


def taken(it: Followed) -> tuple[dict[int, int], list[int]]:
    """Partition → fetch offset of what a request names, and what it forgets."""
    topics, forgotten = it.take()
    named = {p.partition: p.fetch_offset for t in topics for p in t.partitions}
    return named, [number for t in forgotten for number in t.partitions]


def test_a_new_session_names_everything_and_the_next_request_only_what_changed() -> None:
    it, partitions = followed(5, 0, 7)
    assert taken(it) == ({0: 5, 1: 0, 2: 7}, [])
    it.on_answered(99)
    assert (it.session_id, it.session_epoch) == (99, 1)
    assert taken(it) == ({}, [])
    partitions[2].hosted.log.log_end_offset = 8
    it.dirty[key(2)] = it.dirty[key(1)] = None  # touched, but only one has moved
    assert taken(it) == ({2: 8}, [])


def test_an_empty_log_has_no_last_epoch_to_compare() -> None:
    it = Followed(1)
    it.add(key(0), partition(5, start=5))
    it.add(key(1), partition(6, start=5))
    topics, _ = it.take()
    assert [p.last_fetched_epoch for p in topics[0].partitions] == [-1, 3]


def test_what_is_removed_is_forgotten_once_and_what_comes_back_is_named() -> None:
    it, partitions = followed(5, 6)
    it.take()
    it.on_answered(99)
    assert it.remove(key(0))
    assert not it.remove(key(0))
    assert taken(it) == ({}, [0])
    assert taken(it) == ({}, [])
    it.remove(key(1))
    partitions[1].asked = None
    it.add(key(1), partitions[1])
    assert taken(it) == ({1: 6}, [])


def test_a_partition_that_is_being_cut_is_left_out_until_it_is_ready() -> None:
    it, partitions = followed(5, 6)
    it.take()
    it.on_answered(99)
    partitions[1].truncating = True
    it.dirty[key(1)] = None
    assert taken(it) == ({}, [1])
    partitions[1].truncating = False
    it.dirty[key(1)] = None
    assert taken(it) == ({1: 6}, [])


def test_the_epoch_of_a_session_wraps_to_one_and_a_reset_begins_anew() -> None:
    it, _ = followed(5)
    it.take()
    it.on_answered(0)  # the leader keeps no session
    assert (it.session_id, it.session_epoch) == (0, 0)
    it.on_answered(99)
    it.session_epoch = 0x7FFFFFFF
    it.on_answered(99)
    assert it.session_epoch == 1
    it.reset()
    assert taken(it) == ({0: 5}, [])
    assert (it.session_id, it.session_epoch) == (0, 0)


def test_more_than_one_request_can_name_takes_several() -> None:
    """A leader takes a bounded number of elements; here every partition has a topic of its own."""
    count = 2 * NAMED_MAX + 7
    it = Followed(1 << 20)
    for number in range(count):
        it.add((UUID(int=number + 1), 0), partition(number))
    for _ in range(2):  # a new session after a lost one names all of it again
        it.reset()
        sizes = []
        while True:
            topics, _ = it.take()
            request = FetchRequest(max_wait_ms=0, min_bytes=1, topics=topics)
            frame = memoryview(b"".join(encode_request(request, 17, 1, "follower")))[4:]
            decode_request(read_request_header(frame), frame)
            it.on_answered(99)
            sizes.append(len(topics))
            if not it.dirty:
                break
        assert sizes == [NAMED_MAX, NAMED_MAX, 7]
    for key in list(it.partitions):
        it.remove(key)
    forgotten = 0
    while batch := it.take()[1]:
        assert len(batch) <= FORGOTTEN_MAX
        forgotten += len(batch)
    assert forgotten == count


@pytest.mark.parametrize("seed", range(20))
def test_the_session_ends_up_with_what_is_followed_and_ready(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whatever order partitions go, come back, are cut and are named."""
    monkeypatch.setattr(module, "NAMED_MAX", 5)
    monkeypatch.setattr(module, "FORGOTTEN_MAX", 3)
    rng = random.Random(seed)
    it, _ = followed()
    session: dict[int, int] = {}  # as the leader's: it forgets first

    def ask() -> None:
        if it.session_id == 0:
            session.clear()
        named, forgotten = taken(it)
        assert not named.keys() & set(forgotten)
        for number in forgotten:
            session.pop(number, None)
        session.update(named)
        it.on_answered(99)

    for _ in range(400):
        number = rng.randrange(30)
        following = it.partitions.get(key(number))
        match rng.randrange(8):
            case 0:
                it.remove(key(number))
            case 1 | 2:  # also one that is followed already, in a new epoch
                it.add(key(number), partition(rng.randrange(9)))
                it.partitions[key(number)].truncating = rng.random() < 0.3
            case 3 | 4 if following is not None:
                following.delayed = not following.delayed
                it.dirty[key(number)] = None
            case 5 if following is not None:
                cast(SimpleNamespace, following.hosted.log).log_end_offset += 1
                it.dirty[key(number)] = None
            case 6 if rng.random() < 0.05:
                it.reset()
            case _:
                ask()
    for _ in range(30):
        ask()
    assert session == {
        number: following.hosted.log.log_end_offset
        for (_, number), following in it.partitions.items()
        if not following.delayed and not following.truncating
    }
