"""Who holds which replica while a plan is made: the planner's mutable working state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush

from pegel.balance.model import BrokerLoad, PartitionLoad


class Placing:
    """Partitions are known by their number in ``partitions``.

    Invariants: no broker holds two replicas of a partition; the number of replicas of a partition
    never changes; ``count``, ``size`` and ``holds`` agree with ``replicas``.
    """

    def __init__(
        self, brokers: Sequence[BrokerLoad], partitions: Sequence[PartitionLoad], leaving: set[int]
    ) -> None:
        self.partitions = partitions
        self.rack = {b.node_id: b.rack for b in brokers}
        self.staying = sorted(b.node_id for b in brokers if b.live and b.node_id not in leaving)
        self.racks = {self.rack[b] for b in self.staying if self.rack[b] is not None}
        self.replicas = [list(p.replicas) for p in partitions]
        self.count = dict.fromkeys(self.staying, 0)
        self.size = dict.fromkeys(self.staying, 0)
        self.holds: dict[int, dict[int, None]] = {b: {} for b in self.staying}
        self.reasons: dict[int, list[str]] = {}
        self.moved = 0  # replicas, so far
        for number, p in enumerate(partitions):
            for broker in p.replicas:
                if broker in self.count:
                    self._take(number, broker, p.size_bytes)
        self._heap = [(self.count[b], self.size[b], b) for b in self.staying]
        heapify(self._heap)

    def _take(self, number: int, broker: int, size: int) -> None:
        self.count[broker] += 1
        self.size[broker] += size
        self.holds[broker][number] = None

    def move(self, number: int, giver: int, receiver: int, reason: str) -> None:
        """The receiver takes the giver's place in the order of preference."""
        self.moved += 1
        replicas = self.replicas[number]
        assert receiver not in replicas
        replicas[replicas.index(giver)] = receiver
        size = self.partitions[number].size_bytes
        if giver in self.count:  # a broker that leaves is not counted
            self.count[giver] -= 1
            self.size[giver] -= size
            del self.holds[giver][number]
            heappush(self._heap, (self.count[giver], self.size[giver], giver))
        self._take(number, receiver, size)
        heappush(self._heap, (self.count[receiver], self.size[receiver], receiver))
        self.reasons.setdefault(number, []).append(reason)

    @property
    def total_count(self) -> int:
        return sum(self.count.values())

    @property
    def total_size(self) -> int:
        return sum(self.size.values())

    def fewest(self) -> int:
        """Replicas of the broker that has fewest."""
        return self.count[next(self.least_loaded())]

    def whole(self, number: int) -> bool:
        """All its replicas are on brokers that live and stay: one that is not is left alone."""
        return all(b in self.count for b in self.replicas[number])

    # -- racks

    def rack_count(self, number: int, giver: int = -1, receiver: int = -1) -> int:
        """Racks of a partition, as they are or if ``giver`` passed its replica on."""
        brokers = [receiver if b == giver else b for b in self.replicas[number]]
        # Brokers without a rack are apart from each other.
        return len({self.rack.get(b) or b for b in brokers})

    def keeps_racks(self, number: int, giver: int, receiver: int) -> bool:
        """Whether the replicas would be in no fewer racks than now."""
        ours, theirs = self.rack.get(giver), self.rack.get(receiver)
        if ours == theirs:
            return True
        return self.rack_count(number, giver, receiver) >= self.rack_count(number)

    # -- the least loaded

    def least_loaded(self) -> Iterator[int]:
        """Staying brokers, fewest replicas first, then fewest bytes; stop when one fits."""
        looked_at = []
        try:
            while self._heap:
                entry = heappop(self._heap)
                count, size, broker = entry
                if (count, size) != (self.count[broker], self.size[broker]):
                    continue  # it has changed since: a newer entry tells
                looked_at.append(entry)
                yield broker
        finally:
            for entry in dict.fromkeys(looked_at):
                heappush(self._heap, entry)
