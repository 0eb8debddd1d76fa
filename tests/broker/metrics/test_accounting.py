"""Phases, error codes and slow requests, counted by the connection's accounting."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.fetch import FetchRequest, ReplicaState
from pegel.protocol.messages.metadata import MetadataRequest
from pegel.protocol.messages.produce import (
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceResponse,
)
from pegel.protocol.schema import Message, Struct
from pegel_broker.handlers.context import Broker
from pegel_broker.handlers.registry import advertised
from pegel_broker.metrics.stats import ApiStats
from pegel_broker.network import accounting as module
from pegel_broker.network.accounting import Accounting, Slot
from pegel_broker.network.error_codes import count_errors
from pegel_broker.replication.isr import ReplicaProgress
from pegel_broker.replication.partition import Leader


def _accounting(slow_after: float = 1.0, hosted: object = None) -> Accounting:
    replicas = SimpleNamespace(hosted=lambda _topic, _partition: hosted)
    return Accounting(cast(Broker, SimpleNamespace(replicas=replicas)), slow_after)


def _slot(stats: ApiStats, *times: float, patience: float = 0.0) -> Slot:
    arrived, started, returned, ready = times
    slot = Slot(1, 9, stats, arrived, started)
    slot.returned, slot.ready, slot.patience = returned, ready, patience
    return slot


def _produced(*errors: int) -> ProduceResponse:
    answers = [PartitionProduceResponse(index=i, error_code=e) for i, e in enumerate(errors)]
    return ProduceResponse(
        responses=[TopicProduceResponse(name="orders", partition_responses=answers)]
    )


def test_the_phases_follow_each_other_without_a_gap() -> None:
    counted = _accounting()
    stats = counted.by_api[ApiKey.PRODUCE]
    counted.finished(_slot(stats, 10.0, 10.125, 10.375, 10.875), 11.0)
    assert (stats.queue, stats.local, stats.remote, stats.send) == (0.125, 0.25, 0.5, 0.125)
    assert stats.queue + stats.local + stats.remote + stats.send == stats.duration.total == 1.0
    assert stats.count == stats.duration.count == 1


def test_a_followers_fetch_is_counted_apart() -> None:
    counted = _accounting()
    for message, expected in (
        (FetchRequest(max_wait_ms=500), "Fetch"),
        (FetchRequest(max_wait_ms=500, replica_id=2), "FetchFollower"),
        (FetchRequest(max_wait_ms=500, replica_state=ReplicaState(replica_id=2)), "FetchFollower"),
    ):
        stats, patience = counted.of(ApiKey.FETCH, message)
        assert (stats.name, patience) == (expected, 0.5)
    assert counted.of(ApiKey.PRODUCE, ProduceRequest())[0].name == "Produce"
    assert counted.of(ApiKey.METADATA, MetadataRequest())[1] == 0.0


def test_a_fetch_that_waits_as_long_as_it_may_is_not_slow(
    caplog: pytest.LogCaptureFixture,
) -> None:
    counted = _accounting(slow_after=1.0)
    stats = counted.by_api[ApiKey.FETCH]
    counted.finished(_slot(stats, 0.0, 0.0, 0.0, 30.0, patience=30.0), 30.5)
    assert stats.slow == 0
    counted.finished(_slot(stats, 0.0, 0.0, 0.0, 32.0, patience=30.0), 32.0)
    assert stats.slow == 1
    assert "phase=remote" in caplog.text


@pytest.mark.parametrize(
    ("times", "sent", "reason"),
    [
        ((0.0, 2.0, 2.0, 2.0), 2.0, "phase=queue"),
        ((0.0, 0.0, 2.0, 2.0), 2.0, "phase=local"),
        ((0.0, 0.0, 0.0, 2.0), 2.0, "broker 3 was last; the ISR is [1, 2, 3]"),
        ((0.0, 0.0, 0.0, 0.0), 2.0, "phase=send"),
    ],
)
def test_a_slow_request_says_why(
    caplog: pytest.LogCaptureFixture, times: tuple[float, ...], sent: float, reason: str
) -> None:
    leader = Leader(4, 0, 0, (1, 2, 3), (1, 2, 3))
    leader.followers = {
        2: ReplicaProgress(0.0, fetched_at=1.0), 3: ReplicaProgress(0.0, fetched_at=2.0),
    }  # fmt: skip
    counted = _accounting(1.0, SimpleNamespace(core=SimpleNamespace(state=leader)))
    slot = _slot(counted.by_api[ApiKey.PRODUCE], *times)
    slot.message = _produced(0)
    counted.finished(slot, sent)
    (line,) = [r.getMessage() for r in caplog.records if r.name == "pegel.request"]
    assert line.startswith("slow_request api=Produce took_ms=2000")
    assert reason in line
    assert "partition=orders-0" in line


def test_slow_lines_are_bounded_and_say_how_many_are_missing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    counted = _accounting(1.0)
    stats = counted.by_api[ApiKey.PRODUCE]
    with caplog.at_level(logging.WARNING, "pegel.request"):
        for _ in range(module.MAX_SLOW_LINES + 25):
            counted.finished(_slot(stats, 0.0, 0.0, 2.0, 2.0), 2.0)
        assert len(caplog.records) == module.MAX_SLOW_LINES
        counted.finished(_slot(stats, 1.0, 1.0, 3.5, 3.5), 3.5)
    assert "not_logged=25" in caplog.records[-1].getMessage()
    assert stats.slow == module.MAX_SLOW_LINES + 26


def test_no_line_where_the_threshold_is_zero() -> None:
    counted = _accounting(slow_after=0.0)
    stats = counted.by_api[ApiKey.PRODUCE]
    counted.finished(_slot(stats, 0.0, 0.0, 900.0, 900.0), 900.0)
    assert stats.slow == 0


def test_error_codes_are_counted_once_for_each_partition() -> None:
    into: dict[int, int] = {}
    count_errors(_produced(0, 6, 6, 19), into)
    assert into == {
        int(ErrorCode.NOT_LEADER_OR_FOLLOWER): 2, int(ErrorCode.NOT_ENOUGH_REPLICAS): 1,
    }  # fmt: skip


def _fill(message: Any, code: int) -> int:
    """Give every struct array one element and every error_code ``code``; how many there are."""
    found = 0
    for field in type(message).fields:
        if field.name == "error_code" and not field.is_array:
            setattr(message, field.name, code)
            found += 1
        elif field.kind == "struct" and field.is_array:
            inner = field.element()
            found += _fill(inner, code)
            setattr(message, field.name, [inner])
    return found


def _responses(cls: type) -> list[type]:
    found = []
    for sub in cls.__subclasses__():
        found += [sub, *_responses(sub)]
    return [c for c in found if hasattr(c, "api_key") and not c.is_request]


def test_every_error_code_of_every_response_is_found() -> None:
    for info in advertised().values():
        __import__(f"pegel.protocol.messages.{info.module}")
    checked = 0
    for cls in _responses(Message):
        message = cls()
        expected = _fill(message, 42)
        into: dict[int, int] = {}
        count_errors(message, into)
        assert into.get(42, 0) == expected, cls.__name__
        checked += expected > 0
    assert checked >= 12


def test_declared_structs_are_what_the_compiler_of_counters_expects() -> None:
    """A response that nests a single struct with an error code would not be counted."""
    for cls in _responses(Message):
        for field in cls.fields:
            if field.kind == "struct" and not field.is_array:
                assert isinstance(field.element, type(Struct))
                assert all(f.name != "error_code" for f in field.element.fields), cls.__name__
