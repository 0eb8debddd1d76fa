import random

import msgpack
import pytest

from pegel_controller.raft.errors import RaftError
from pegel_controller.raft.log_view import Entry, EntryKind
from pegel_controller.raft.messages import (
    AppendRequest,
    AppendResponse,
    Message,
    SnapshotChunk,
    SnapshotResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
    decode,
    encode,
)

MESSAGES: list[Message] = [
    VoteRequest(3, 9, 2, True, False),
    VoteResponse(3, False, True),
    AppendRequest(3, 4, 2, 4, 7, (Entry(5, 3, EntryKind.NO_OP, b""),)),
    AppendResponse(3, False, 2, 1, 7),
    SnapshotChunk(3, 9, 2, 100, b"\x00\xff", True),
    SnapshotResponse(3, 9, 102, True),
    TimeoutNow(3),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_round_trip_and_trailing_fields_of_a_newer_peer(message: Message) -> None:
    assert decode(encode(message)) == message
    assert decode(msgpack.packb([*msgpack.unpackb(encode(message)), "newer"])) == message


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_every_cut_and_random_damage_is_one_error_or_a_message(message: Message) -> None:
    payload = encode(message)
    for size in range(len(payload)):
        with pytest.raises(RaftError):
            decode(payload[:size])
    source = random.Random(7)
    for _ in range(500):
        damaged = bytearray(payload)
        damaged[source.randrange(len(damaged))] = source.randrange(256)
        try:
            decode(bytes(damaged))
        except RaftError:
            continue


@pytest.mark.parametrize(
    "raw",
    [
        *([], [99], [-1, 1], [True, 1], [0, 1], [6, -1], [6, True], [6, "x"], {"a": 1}, 5),
        [2, 3, 4, 2, 4, 7, [[6, 3, 0, b""]]],
        [2, 3, 4, 2, 4, 7, [[5, 9, 0, b""]]],
        [2, 3, 4, 2, 4, 7, [[5, 3, 8, b""]]],
    ],
)
def test_malformed_messages_are_refused(raw: object) -> None:
    with pytest.raises(RaftError):
        decode(msgpack.packb(raw))
