"""Sequences follow each other, wrap, and begin anew with an epoch (KIP-360)."""

from __future__ import annotations

from pegel.producer.idempotence import MAX_EPOCH, SEQUENCES, ProducerIdentity, SequenceState


def test_a_new_epoch_begins_at_sequence_0_and_is_not_proven() -> None:
    state = SequenceState(ProducerIdentity(7, 0))
    assert [state.take(3), state.take(2), state.take(1)] == [0, 3, 5]
    state.proven = True
    assert state.bump()
    assert state.identity == (7, 1)
    assert not state.proven
    assert [state.take(4), state.take(1)] == [0, 4]


def test_sequences_wrap_and_epochs_end() -> None:
    state = SequenceState(ProducerIdentity(7, MAX_EPOCH - 1))
    state.next_sequence = SEQUENCES - 2
    assert [state.take(3), state.take(1)] == [SEQUENCES - 2, 1]
    assert not state.bump()
    assert state.identity == (7, MAX_EPOCH - 1)
