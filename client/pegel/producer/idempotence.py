"""Identity and sequence numbers by which a broker tells a retry from a new batch (KIP-98, 360).

Sequences count records per partition. A broker takes a batch only if its first sequence follows
the last one, answers a repeated batch with its first result, and starts anew at 0 for a higher
epoch. Brokers check epochs per partition, and without transactions nothing ties the partitions of
a producer together; so here each partition has an epoch of its own, and trouble in one leaves the
others alone.
"""

from __future__ import annotations

from typing import NamedTuple

MAX_EPOCH = 0x7FFF
SEQUENCES = 0x80000000

NO_SEQUENCE = -1


class ProducerIdentity(NamedTuple):
    """What a batch is stamped with."""

    producer_id: int
    epoch: int


NO_IDENTITY = ProducerIdentity(-1, -1)


class SequenceState:
    """Identity and next sequence of one partition.

    ``proven``: a batch of this identity was acknowledged. Until then only one may be in flight: a
    broker that does not know a producer takes any first sequence, so the second of two batches
    could be written although the first was refused.
    """

    __slots__ = ("identity", "next_sequence", "proven")

    def __init__(self, identity: ProducerIdentity) -> None:
        self.identity = identity
        self.next_sequence = 0
        self.proven = False

    def take(self, count: int) -> int:
        """The first sequence of the next ``count`` records; they wrap from 2^31 - 1 to 0."""
        assert count > 0
        first = self.next_sequence
        self.next_sequence = (first + count) % SEQUENCES
        return first

    def bump(self) -> bool:
        """Begin a new epoch at sequence 0.

        Only legal while nothing of this partition is in flight: a batch of the old epoch that
        arrives later would be refused, and one of the new that arrived earlier would refuse it.

        Returns False when the epochs of this producer id are used up: ``renew`` must follow.
        """
        if self.identity.epoch >= MAX_EPOCH - 1:
            return False
        self.renew(ProducerIdentity(self.identity.producer_id, self.identity.epoch + 1))
        return True

    def renew(self, identity: ProducerIdentity) -> None:
        """Go on as another producer."""
        self.identity = identity
        self.next_sequence = 0
        self.proven = False


def follows(first_sequence: int, count: int, next_first: int) -> bool:
    """Whether a batch that begins with ``next_first`` comes directly behind one of ``count``."""
    return (first_sequence + count) % SEQUENCES == next_first
