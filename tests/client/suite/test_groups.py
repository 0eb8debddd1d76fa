"""Groups, on every system and with both clients: members share, come, go and are thrown out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from pegel import (
    CommitFailedError,
    CommittedOffset,
    GroupError,
    GroupNotEmptyError,
    TopicPartition,
)
from tests.client.suite.conftest import System
from tests.client.suite.flavours import connect

pytestmark = [pytest.mark.process, pytest.mark.timeout(90)]
New = Callable[..., str]
QUICK = {"offset_reset": "earliest", "heartbeat_interval": 0.1, "session_timeout": 10.0}


class Reader(threading.Thread):
    """A member with a client of its own that reads until it is told to stop.

    It stops where there is nothing to read: a batch counts as finished when its reader comes back.
    """

    def __init__(self, system: System, flavour: str, topic: str, **settings: Any) -> None:
        super().__init__(daemon=True)
        self._arguments = (flavour, system.bootstrap)
        self._topic, self._settings = topic, {**QUICK, **settings}
        self.values: list[bytes] = []
        self.assigned: list[TopicPartition] = []
        self.ended = threading.Event()
        self.stopping = False
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            with (
                connect(*self._arguments) as client,
                client.consumer(self._topic, **self._settings) as consumer,
            ):
                while True:
                    batch = consumer.next_batch(timeout=0.1)
                    if batch is None and self.stopping:
                        break
                    self.values += batch.values if batch is not None else ()
                    self.assigned = consumer.assignment
        except BaseException as error:
            self.error = error

    def stop(self) -> None:
        self.stopping = True
        self.join(30)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 40
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


@pytest.mark.parametrize("assignor", ["range", "cooperative-sticky"])
def test_members_come_and_go_and_every_record_is_read_once(
    client: Any, new_topic: New, group: str, system: System, flavour: str, assignor: str
) -> None:
    topic = new_topic(4)
    sent: list[bytes] = []

    def send(count: int) -> None:
        values = [b"%d" % i for i in range(len(sent), len(sent) + count)]
        client.send_many(topic, values, keys=values)
        sent.extend(values)

    send(400)
    one = Reader(system, flavour, topic, group=group, assignors=[assignor])
    until(lambda: len(one.values) == 400)
    two = Reader(system, flavour, topic, group=group, assignors=[assignor])
    until(lambda: len(one.assigned) == len(two.assigned) == 2)
    send(400)
    until(lambda: len(one.values) + len(two.values) == 800)
    one.stop()
    send(400)
    until(lambda: len(one.values) + len(two.values) == 1200)
    two.stop()
    assert sorted(one.values + two.values) == sorted(sent)
    assert two.values
    lag = client.admin.group_lag(group)
    assert sum(p.end_offset for p in lag) == 1200
    assert sum(p.records for p in lag) == 0


def test_commits_by_hand_and_where_a_group_goes_on(client: Any, new_topic: New, group: str) -> None:
    topic = new_topic()
    client.send_many(topic, [b"%d" % i for i in range(10)])
    p0 = TopicPartition(topic, 0)
    with client.consumer(topic, group=group, commit="manual", **QUICK) as consumer:
        assert consumer.wait_for_assignment(30) == [p0]
        assert consumer.committed() == {}
        records = [next(consumer) for _ in range(4)]
        assert records[-1].value == b"3"
        consumer.commit()
        assert consumer.committed()[p0].offset == 4
        consumer.commit({p0: CommittedOffset(6, -1, "a note")})
        next(consumer)  # not committed
    assert client.admin.group_offsets(group) == {p0: CommittedOffset(6, -1, "a note")}
    with client.consumer(topic, group=group, commit="manual", **QUICK) as consumer:
        assert next(consumer).value == b"6"
    with client.consumer(partitions=[p0], group=group, offset_reset="earliest") as consumer:
        assert next(consumer).value == b"6"
        next(consumer)  # finishes the one before, and is not finished itself
    assert client.admin.group_offsets(group)[p0].offset == 7


def test_hooks_see_partitions_come_and_go(client: Any, new_topic: New, group: str) -> None:
    topic = new_topic(2)
    events: list[tuple[str, int]] = []
    with client.consumer(
        topic, group=group, **QUICK,
        on_assigned=lambda ps: events.append(("assigned", len(ps))),
        on_revoked=lambda ps: events.append(("revoked", len(ps))),
    ) as consumer:  # fmt: skip
        consumer.wait_for_assignment(30)
    assert events == [("assigned", 2), ("revoked", 2)]


def test_a_reader_that_stays_away_loses_its_partitions(
    client: Any, new_topic: New, group: str
) -> None:
    topic = new_topic(2)
    client.send_many(topic, [b"a"])
    lost: list[TopicPartition] = []
    with client.consumer(
        topic, group=group, commit="manual", max_poll_interval=0.5, on_lost=lost.extend, **QUICK
    ) as consumer:
        assert next(consumer).value == b"a"
        until(lambda: not client.admin.describe_group(group).members)
        with pytest.raises(CommitFailedError, match="read again"):
            consumer.commit()
        assert next(consumer).value == b"a"  # it is a member again, and reads it again
        assert len(lost) == 2
        consumer.commit()


def test_a_static_member_keeps_its_place(
    client: Any, new_topic: New, group: str, system: System, flavour: str
) -> None:
    topic = new_topic(2)
    options = {"group": group, "instance_id": "one", **QUICK}
    with client.consumer(topic, **options) as consumer:
        assert len(consumer.wait_for_assignment(30)) == 2
    assert [m.instance_id for m in client.admin.describe_group(group).members] == ["one"]
    old = client.consumer(topic, **options)
    with old:
        old.wait_for_assignment(30)
        with connect(flavour, system.bootstrap) as other, other.consumer(topic, **options) as new:
            assert len(new.wait_for_assignment(30)) == 2
            with pytest.raises(GroupError, match="took the place"):
                until(lambda: old.next_batch(timeout=0.2) is not None)


def test_groups_are_described_moved_and_deleted(client: Any, new_topic: New, group: str) -> None:
    topic = new_topic(2)
    client.send_many(topic, [b"%d" % i for i in range(10)], partition=0)
    p0, p1 = TopicPartition(topic, 0), TopicPartition(topic, 1)
    admin = client.admin
    with client.consumer(topic, group=group, **QUICK) as consumer:
        consumer.wait_for_assignment(30)
        found = admin.describe_group(group)
        assert (found.state, found.assignor) == ("Stable", "cooperative-sticky")
        assert [m.partitions for m in found.members] == [(p0, p1)]
        assert (group, "Stable") in [(g.group, g.state) for g in admin.list_groups()]
        with pytest.raises(GroupNotEmptyError):
            admin.alter_group_offsets(group, {p0: 1})
        with pytest.raises(GroupNotEmptyError):
            admin.delete_group(group)
    admin.alter_group_offsets(group, {p0: 4, p1: 0})
    first, second = admin.group_lag(group, seconds=True)
    assert (first.records, second.records) == (6, 0)
    assert first.seconds is not None
    assert 0 <= first.seconds < 60
    admin.delete_group_offsets(group, [p1])
    assert list(admin.group_offsets(group)) == [p0]
    admin.delete_group(group)
    assert group not in [g.group for g in admin.list_groups()]
