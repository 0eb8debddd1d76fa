"""Where a request spends its time, and a line in the log for each that took too long.

The phases of a request follow each other without a gap:

- *queue*: from its last byte to the start of its handler, behind the requests before it;
- *local*: in the handler;
- *remote*: until the response is there: replicas, the disk, data that is to come;
- *throttle*: held back by a quota;
- *send*: until it may be written: behind earlier responses, or a client that does not read.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING
from uuid import UUID

from pegel.logs import Event
from pegel.protocol.api_keys import APIS, ApiKey
from pegel.protocol.messages.fetch import FetchRequest, FetchResponse
from pegel.protocol.messages.produce import ProduceResponse
from pegel.protocol.schema import Message
from pegel_broker.handlers.registry import advertised
from pegel_broker.metrics.stats import ApiStats
from pegel_broker.network.error_codes import counter
from pegel_broker.replication.partition import Leader

if TYPE_CHECKING:
    from pegel_broker.handlers.context import Broker

_log = logging.getLogger("pegel.request")

FOLLOWER_FETCH = "FetchFollower"
# Lines of slow requests in one second; what is beyond is counted in the next line.
MAX_SLOW_LINES = 10
# These wait for other members of a group: how long they take says nothing.
_WAITS_FOR_OTHERS = {ApiKey.JOIN_GROUP, ApiKey.SYNC_GROUP, ApiKey.CONSUMER_GROUP_HEARTBEAT}
_EVER = float("inf")
_FETCH = int(ApiKey.FETCH)


class Slot:
    """The place of one response in the order of responses, and the times of its request.

    Times are monotonic seconds. ``patience`` is how long the client said that it would wait.
    """

    __slots__ = (
        "arrived", "correlation_id", "message", "patience", "ready", "returned", "started", "stats",
        "version",
    )  # fmt: skip

    def __init__(
        self, correlation_id: int, version: int, stats: ApiStats, arrived: float, started: float
    ) -> None:
        self.correlation_id = correlation_id
        self.version = version
        self.message: Message | None = None
        self.stats = stats
        self.patience = 0.0
        self.arrived = arrived
        self.started = self.returned = self.ready = started


class Accounting:
    """The requests of one broker, by API. ``slow_after`` in seconds; 0 logs none."""

    def __init__(self, broker: Broker, slow_after: float) -> None:
        self._broker = broker
        self._slow_after = slow_after or _EVER
        self.by_api = {
            key: ApiStats(APIS[key].name, _EVER if key in _WAITS_FOR_OTHERS else 0.0)
            for key in sorted(advertised())
        }
        self.follower_fetch = ApiStats(FOLLOWER_FETCH)
        self.in_flight = 0
        self._second = 0
        self._lines = 0
        self._unlogged = 0

    def all(self) -> Iterable[ApiStats]:
        return (*self.by_api.values(), self.follower_fetch)

    def of(self, api_key: int, message: Message) -> tuple[ApiStats, float]:
        """What to count a request in, and the client's patience in seconds."""
        stats = self.by_api[api_key]
        if api_key == _FETCH:
            assert isinstance(message, FetchRequest)
            if message.replica_id >= 0 or message.replica_state.replica_id >= 0:
                return self.follower_fetch, message.max_wait_ms / 1000
            return stats, message.max_wait_ms / 1000
        return stats, stats.patience

    def finished(self, slot: Slot, sent: float) -> None:
        """The response is written, or there is none to write."""
        stats = slot.stats
        arrived, ready = slot.arrived, slot.ready
        remote = ready - slot.returned
        taken = sent - arrived
        stats.count += 1
        stats.queue += slot.started - arrived
        stats.local += slot.returned - slot.started
        stats.remote += remote
        stats.send += sent - ready
        stats.duration.observe(taken)
        message = slot.message
        if message is not None:
            if stats.count_errors is None:
                stats.count_errors = counter(type(message))
            stats.count_errors(message, stats.errors)
        if taken > self._slow_after and taken - min(remote, slot.patience) > self._slow_after:
            stats.slow += 1
            self._log_slow(slot, sent)

    # -- slow requests

    def _log_slow(self, slot: Slot, sent: float) -> None:
        if int(sent) != self._second:
            self._second, self._lines = int(sent), 0
        if self._lines >= MAX_SLOW_LINES:
            self._unlogged += 1
            return
        self._lines += 1
        unlogged, self._unlogged = self._unlogged, 0
        phases = {
            "queue": slot.started - slot.arrived,
            "local": slot.returned - slot.started,
            "remote": max(0.0, slot.ready - slot.returned - slot.patience),
            "send": sent - slot.ready,
        }
        longest = max(phases, key=lambda name: phases[name])
        topic, partition = self._first_partition(slot.message)
        where = {"partition": f"{topic}-{partition}"} if topic else {}
        more = {"not_logged": unlogged} if unlogged else {}
        milliseconds = {f"{name}_ms": round(seconds * 1000) for name, seconds in phases.items()}
        milliseconds["remote_ms"] = round((slot.ready - slot.returned) * 1000)
        _log.warning(Event(
            "slow_request", api=slot.stats.name, took_ms=round((sent - slot.arrived) * 1000),
            **milliseconds, **where, **more, phase=longest,
            reason=self._why(slot, longest, topic, partition),
        ))  # fmt: skip

    def _why(self, slot: Slot, longest: str, topic: str, partition: int) -> str:
        if longest == "queue":
            return "it waited behind other requests of its connection, or for the event loop"
        if longest == "local":
            return "the event loop was busy in its handler"
        if longest == "send":
            return "its client does not read, or an earlier response was late"
        if not isinstance(slot.message, ProduceResponse):
            return "it waited for the disk, for data or for the controller"
        hosted = self._broker.replicas.hosted(topic, partition)
        if hosted is None or not isinstance(hosted.core.state, Leader):
            return "the leader changed while it waited"
        state = hosted.core.state
        last = max(
            (i for i in state.isr if i in state.followers),
            key=lambda i: state.followers[i].fetched_at,
            default=-1,
        )
        if last < 0:
            return f"it waited for this broker's disk; the ISR is {list(state.isr)}"
        return f"it waited for replicas, broker {last} was last; the ISR is {list(state.isr)}"

    def _first_partition(self, message: Message | None) -> tuple[str, int]:
        """What the line names of a request for many; ('', -1) where the API is about none."""
        if isinstance(message, ProduceResponse):
            for topic in message.responses:
                for answer in topic.partition_responses:
                    return topic.name or self._name(topic.topic_id), answer.index
        elif isinstance(message, FetchResponse):
            for fetched in message.responses:
                for data in fetched.partitions:
                    return fetched.topic or self._name(fetched.topic_id), data.partition_index
        return "", -1

    def _name(self, topic_id: UUID) -> str:
        """Newer versions name topics by their ids."""
        topic = self._broker.image.topics_by_id.get(topic_id)
        return str(topic_id) if topic is None else topic.name
