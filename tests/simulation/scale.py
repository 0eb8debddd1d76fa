"""How large a cluster the pure controller carries: ``python -m tests.simulation.scale``.

1,000 brokers and 100,000 partitions of three replicas, without a socket: one broker fails, and
the CPU time until all its elections are decided is measured, as are the memory of the image, what
a change of it shares with the one before, and the sizes on the wire and on disk.
"""

from __future__ import annotations

import argparse
import gc
import os
import time
from collections.abc import Callable
from random import Random
from typing import TypeVar
from uuid import UUID

from pegel.balance.model import BrokerLoad, PartitionLoad
from pegel.balance.planner import plan
from pegel.types import TopicPartition
from pegel_controller.control.controller import Controller
from pegel_controller.metadata.delta import MetadataDelta
from pegel_controller.metadata.image import MetadataImage
from pegel_controller.metadata.records import encode_records
from pegel_controller.metadata.snapshot import decode_snapshot, encode_snapshot
from pegel_controller.rpc import messages as m

T = TypeVar("T")


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """CPU seconds, and what came out."""
    gc.collect()
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


class Scale:
    """One controller whose every proposal commits at once."""

    def __init__(self, brokers: int, partitions: int, per_topic: int, racks: int) -> None:
        self.controller = Controller(Random(1))
        self.controller.on_leadership(0.0, MetadataImage())
        self.index = 0
        self._commit(self.controller.bootstrap("scale"))
        self.epochs: dict[int, int] = {}
        for broker in range(1, brokers + 1):
            request = m.RegisterBrokerRequest(
                broker, UUID(int=broker), f"host-{broker}", 9092, f"rack-{broker % racks}", "boot"
            )
            response = self._commit(self.controller.register_broker(0.0, request))
            assert isinstance(response, m.RegisterBrokerResponse)
            self.epochs[broker] = response.broker_epoch
            self.heartbeat(broker)
        for number in range(partitions // per_topic):
            topic = m.CreatableTopic(f"topic-{number}", per_topic, 3)
            self._commit(self.controller.create_topics(0.0, m.CreateTopicsRequest((topic,))))

    @property
    def image(self) -> MetadataImage:
        return self.controller.committed

    def heartbeat(self, broker: int) -> None:
        request = m.HeartbeatRequest(broker, self.epochs[broker], self.index)
        self._commit(self.controller.heartbeat(0.0, request))

    def _commit(self, result):  # type: ignore[no-untyped-def]
        if result.records:
            self.index += 1
            self.controller.replay(result.records, self.index)
        return result.response

    def fail(self, broker: int):  # type: ignore[no-untyped-def]
        """A broker's process is gone: the decision, which is not committed yet."""
        assert self.controller.on_broker_connection_lost(0.0, broker)
        return self.controller.on_probe_result(0.0, broker, refused=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--brokers", type=int, default=1_000)
    parser.add_argument("--partitions", type=int, default=100_000)
    parser.add_argument("--per-topic", type=int, default=100)
    parser.add_argument("--racks", type=int, default=10)
    options = parser.parse_args()
    gc.collect()
    before = resident_bytes()
    seconds, scale = timed(
        lambda: Scale(options.brokers, options.partitions, options.per_topic, options.racks)
    )
    gc.collect()
    both = resident_bytes() - before
    print(f"{options.brokers:,} brokers, {options.partitions:,} partitions × 3 replicas")
    print(f"made in                     {seconds:8.2f} s of CPU")
    print(f"committed image and tip     {both / 1e6:8.1f} MB, {both / options.partitions:.0f} B "
          "a partition, with the history and the indexes")  # fmt: skip
    image, victim = scale.image, options.brokers // 2
    led = sum(p.leader == victim for t in image.topics_by_id.values() for p in t.partitions)
    seconds, result = timed(lambda: scale.fail(victim))
    assert seconds < 1.0 or options.brokers > 1_000, "all elections are to be decided in a second"
    elected = sum(1 for r in result.records if getattr(r, "leader", -1) >= 0)
    print(f"broker {victim} fails            {seconds:8.3f} s of CPU: {led} leaders elected, "
          f"{elected} partitions changed")  # fmt: skip
    entry = encode_records(result.records)
    gc.collect()
    held = resident_bytes()
    seconds, _ = timed(lambda: scale._commit(result))
    size = len(entry) / 1e3
    print(f"  replayed in               {seconds:8.3f} s of CPU; one entry of {size:.1f} kB")
    seconds, delta = timed(lambda: MetadataDelta.between(image, scale.image))
    changed = sum(len(topic.partitions) for topic in delta.topics_changed.values())
    more = max(0, resident_bytes() - held) / 1e6
    print(f"  delta for a broker        {seconds:8.3f} s of CPU: {changed} partitions; the new "
          f"image adds {more:.1f} MB to the old")  # fmt: skip
    seconds, snapshot = timed(lambda: encode_snapshot(scale.image))
    print(f"snapshot                    {seconds:8.2f} s of CPU, {len(snapshot) / 1e6:.1f} MB")
    seconds, _ = timed(lambda: decode_snapshot(snapshot))
    print(f"  read back in              {seconds:8.2f} s of CPU")
    seconds, moves = timed(lambda: _balance(scale.image))
    print(f"balance plan                {seconds:8.2f} s of CPU: {moves} partitions change")


def _balance(image: MetadataImage) -> int:
    brokers = [BrokerLoad(b.node_id, b.rack, b.eligible) for b in image.brokers.values()]
    partitions = [
        PartitionLoad(TopicPartition(topic.name, number), p.replicas, 1_000_000)
        for topic in image.topics_by_id.values()
        for number, p in enumerate(topic.partitions)
    ]
    return len(plan(brokers, partitions).moves)


if __name__ == "__main__":
    main()
