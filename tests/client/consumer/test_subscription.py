"""Positions: what was fetched for a partition is never taken for another life of it."""

from __future__ import annotations

from pegel.consumer.subscription import Subscription
from pegel.types import TopicPartition

T0 = TopicPartition("t", 0)


def test_a_partition_that_comes_again_is_not_taken_for_what_it_was() -> None:
    """A fetch still under way when it was given back may end after it came again."""
    subscription = Subscription(1024)
    subscription.add([T0], None)
    first = subscription.states[T0]
    first.seek(360)
    asked_in = first.generation
    subscription.remove(T0)
    subscription.add([T0], None)
    second = subscription.states[T0]
    second.seek(140)
    assert second.generation != asked_in
    assert first.generation != asked_in
