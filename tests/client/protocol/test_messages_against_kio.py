"""Every message in every version, byte for byte as ``kio`` writes and reads it."""

from __future__ import annotations

import datetime
import importlib
import io
import random
import uuid
from typing import Any

import pytest
from kio.serial import entity_reader, entity_writer

from pegel.protocol.api_keys import APIS, FIRST_OWN_KEY, NEWEST, ApiKey
from pegel.protocol.codec import (
    decode_request,
    decode_response,
    encode_request,
    encode_response,
    read_request_header,
)
from pegel.protocol.schema import Message, Struct
from tests.client.protocol.generate import all_messages, make, versions_of

SEEDS = 3


def kio_class(cls: type[Message], version: int) -> Any:
    kind = "request" if cls.is_request else "response"
    module = APIS[cls.api_key].module
    return getattr(importlib.import_module(f"kio.schema.{module}.v{version}.{kind}"), cls.__name__)


def encode_body(message: Message, version: int) -> bytes:
    """What we send, without size prefix and header."""
    if message.is_request:
        frame = b"".join(encode_request(message, version, 7, None))[4:]
        return frame[read_request_header(memoryview(frame)).body_offset :]
    frame = b"".join(encode_response(message, version, 7))[4:]
    flexible = version >= message.flexible_from and message.api_key != ApiKey.API_VERSIONS
    return frame[5 if flexible else 4 :]


def decode_body(cls: type[Message], version: int, body: bytes) -> Message:
    flexible = version >= cls.flexible_from
    if cls.is_request:
        head = b"".join(encode_request(cls(), version, 7, "name"))[4:]
        head = head[: read_request_header(memoryview(head)).body_offset]
        frame = memoryview(head + body)
        return decode_request(read_request_header(frame), frame)
    flexible = flexible and cls.api_key != ApiKey.API_VERSIONS
    frame = memoryview(b"\0\0\0\7" + (b"\0" if flexible else b"") + body)
    return decode_response(cls, version, frame)


def assert_same(ours: Any, theirs: Any, path: str, version: int) -> None:
    """The oracle saw under each name what we sent under it."""
    if isinstance(ours, Struct):
        for field in type(ours).fields:
            if field.in_version(version):
                name = field.name
                if not hasattr(theirs, name):
                    name = name.removesuffix("_ms")
                value = getattr(ours, field.name)
                assert_same(value, getattr(theirs, name), f"{path}.{field.name}", version)
    elif isinstance(ours, list):
        assert len(ours) == len(theirs), path
        for i, (left, right) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(left, right, f"{path}[{i}]", version)
    elif isinstance(theirs, datetime.timedelta):
        assert ours == round(theirs.total_seconds() * 1000), path
    elif isinstance(theirs, datetime.datetime):
        assert ours == round(theirs.timestamp() * 1000), path
    elif isinstance(ours, uuid.UUID):
        assert ours == (theirs or uuid.UUID(int=0)), path
    elif isinstance(ours, memoryview):
        assert bytes(ours) == bytes(theirs), path
    else:
        assert ours == theirs, path


def samples(cls: type[Message], version: int) -> list[Any]:
    rng = random.Random(f"{cls.__name__} {version}")
    return [cls(), *(make(cls, version, rng) for _ in range(SEEDS))]


KAFKAS = [cls for cls in all_messages() if cls.api_key < FIRST_OWN_KEY]


@pytest.mark.parametrize("cls", KAFKAS, ids=lambda cls: cls.__name__)
def test_bytes_are_those_of_the_oracle_in_both_directions(cls: type[Message]) -> None:
    for version in versions_of(cls):
        theirs = kio_class(cls, version)
        assert theirs.__flexible__ == (version >= cls.flexible_from)
        read, write = entity_reader(theirs), entity_writer(theirs)
        for message in samples(cls, version):
            body = encode_body(message, version)
            seen, size = read(body, 0)
            assert size == len(body), (version, message)
            assert_same(message, seen, f"{cls.__name__} v{version}", version)
            written = io.BytesIO()
            write(written, seen)
            assert written.getvalue() == body, (version, message)
            assert decode_body(cls, version, written.getvalue()) == message


@pytest.mark.parametrize("cls", [cls for cls in all_messages() if cls not in KAFKAS])
def test_our_own_messages_round_trip(cls: type[Message]) -> None:
    for version in versions_of(cls):
        for message in samples(cls, version):
            assert decode_body(cls, version, encode_body(message, version)) == message


def test_every_served_api_is_declared_with_a_request_and_a_response() -> None:
    for key, info in APIS.items():
        assert info.key == key
        assert info.min_version <= info.max_version
        assert info.flexible_from == NEWEST or info.flexible_from <= info.max_version + 1
    assert len(all_messages()) == 2 * len(APIS)
