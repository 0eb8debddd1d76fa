"""The synchronous client is the asynchronous one: same names, same parameters, same types."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable

import pytest

from pegel.admin.admin import Admin as AsyncAdmin
from pegel.client import AsyncClient
from pegel.consumer.consumer import Consumer as AsyncConsumer
from pegel.errors import ClosedError, TopicNotFoundError
from pegel.producer.producer import Producer as AsyncProducer
from pegel.sync.admin import Admin
from pegel.sync.client import Client
from pegel.sync.consumer import Consumer
from pegel.sync.portal import Portal
from pegel.sync.producer import Producer
from pegel.types import TopicPartition
from tests.client.sync.generate import FACADES, LEFT_OUT, TARGET, TYPES, formatted, generate
from tests.client.sync.served import served

PAIRS = [
    (AsyncClient, Client),
    (AsyncProducer, Producer),
    (AsyncConsumer, Consumer),
    (AsyncAdmin, Admin),
]
# Of another kind by nature: a loop of the caller's, or a network of a simulation's, has no place.
CONSTRUCTORS = {"__init__"}


@pytest.mark.parametrize("facade", FACADES, ids=lambda f: f.name)
def test_the_files_are_as_generated(facade) -> None:  # type: ignore[no-untyped-def]
    path = TARGET / facade.target
    assert formatted(generate(facade), path) == path.read_text(), "run `make facade`"


@pytest.mark.parametrize(("theirs", "ours"), PAIRS, ids=lambda c: c.__name__)
def test_names_parameters_and_types_are_the_same(theirs: type, ours: type) -> None:
    def public(cls: type) -> dict[str, object]:
        return {
            name: member
            for name, member in inspect.getmembers(cls)
            if not name.startswith("_") and name not in LEFT_OUT
        }

    expected, found = public(theirs), public(ours)
    assert set(expected) == set(found)
    for name, member in expected.items():
        other = found[name]
        assert isinstance(member, property) == isinstance(other, property)
        a, b = inspect.signature(_function(member)), inspect.signature(_function(other))
        assert list(a.parameters.values()) == list(b.parameters.values()), name
        assert TYPES.get(a.return_annotation, a.return_annotation) == b.return_annotation, name
        assert inspect.getdoc(member) == inspect.getdoc(other), name
        assert not inspect.iscoroutinefunction(other)


def _function(member: object) -> Callable[..., object]:
    function = member.fget if isinstance(member, property) else member
    assert callable(function)
    return function


def test_everything_once_through() -> None:
    with served() as cluster, Client(cluster.bootstrap) as client:
        client.create_topic("t", partitions=2)
        assert client.send("t", b"one", partition=0).offset == 0
        assert client.send_many("t", [b"two", b"three"], partition=1).count == 2
        with client.producer(linger_ms=1) as producer:
            pending = producer.send_soon("t", b"four", partition=0)
            assert pending.result(timeout=5).offset == 1
            assert pending.done
            producer.flush()
        given: list[TopicPartition] = []
        with client.consumer(
            "t", group="g", offset_reset="earliest", on_assigned=given.extend
        ) as consumer:
            assert len(consumer.wait_for_assignment(5)) == 2
            values = {record.value for _, record in zip(range(4), consumer, strict=False)}
            assert values == {b"one", b"two", b"three", b"four"}
            assert sorted(given) == [TopicPartition("t", 0), TopicPartition("t", 1)]
            assert consumer.lag(("t", 0)) == 0
            consumer.pause(("t", 0))
            consumer.seek_to_beginning(("t", 1))
            consumer.commit()
            batch = next(iter(consumer.batches()))
            assert list(batch.values) == [b"two", b"three"]
            consumer.commit()
        assert client.admin.group_offsets("g") == {
            TopicPartition("t", i): consumer_offset
            for i, consumer_offset in enumerate([(2, 0, ""), (2, 0, "")])
        }
        with pytest.raises(TopicNotFoundError):
            client.admin.describe_topic("nope")
    with pytest.raises(ClosedError):
        client.send("t", b"")
    assert not [t for t in threading.enumerate() if t.name.startswith("pegel")]


def test_a_hook_may_call_the_client() -> None:
    with served() as cluster, Client(cluster.bootstrap) as client:
        client.create_topic("t")
        client.send_many("t", [b"a", b"b"])
        consumers: list[Consumer] = []

        def save(partitions: list[TopicPartition]) -> None:
            consumers[0].commit(dict.fromkeys(partitions, 1))

        consumers.append(client.consumer("t", group="g", commit="manual", on_revoked=save))
        with consumers[0] as consumer:
            consumer.wait_for_assignment(5)
        assert client.admin.group_offsets("g")[TopicPartition("t", 0)].offset == 1


def test_the_portal_does_not_wait_for_itself() -> None:
    portal = Portal()

    async def work() -> None:
        portal.run(int)

    with pytest.raises(RuntimeError, match="own thread"):
        portal.call(work())
    portal.stop()
    portal.stop()
    with pytest.raises(ClosedError):
        portal.run(int)
