"""``python -m tests.fuzz.worst``: the slowest legal request of each API, and what it costs.

For each array of a request, as many of its smallest elements as one request may have; all of them
speak of the topic, the group and the broker that are there, or each of something else. Prints, for
each API, the most that one call of the event loop took, in milliseconds of the processor.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import random
import time
from collections.abc import Iterator
from uuid import UUID

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.codec import (
    decode_request,
    encode_request,
    max_request_elements,
    read_request_header,
)
from pegel.protocol.errors import ProtocolError
from pegel.protocol.messages import REQUESTS
from pegel.protocol.schema import Field, Message, StructType
from pegel_broker.handlers.registry import advertised
from pegel_broker.run import GC_THRESHOLDS
from tests.fuzz.frames import GROUP, TOPIC, framed
from tests.fuzz.targets import BrokerTarget
from tests.support.node import NodeUnderTest

Path = tuple[str, ...]
PARTITIONS = 50
# Without these a request asks for more.
_LEFT_OUT = {"assignments", "configs", "configuration_keys", "partition_indexes"}


def array_paths(cls: StructType, version: int, at: Path = ()) -> Iterator[Path]:
    """The names of the fields that lead to each array, outermost first."""
    for field in cls.fields:
        if not field.in_version(version):
            continue
        if field.is_array:
            yield (*at, field.name)
        if field.kind == "struct" and field.element is not None:
            yield from array_paths(field.element, version, (*at, field.name))


class Builder:
    """Requests that speak of what is there (``same``), or each element of something else."""

    def __init__(self, topic_id: UUID, *, same: bool) -> None:
        self.topic_id, self.same = topic_id, same
        self.number = 0

    def request(self, cls: StructType, version: int, path: Path, count: int) -> Message:
        message = self._struct(cls, version, path, count)
        assert isinstance(message, Message)
        return message

    def _struct(self, cls: StructType, version: int, path: Path, count: int) -> object:
        self.number += 1
        value = cls()
        for field in cls.fields:
            if not field.in_version(version):
                continue
            on_path = bool(path) and field.name == path[0]
            if not field.is_array:
                if field.kind == "struct" and field.element is not None:
                    inner = self._struct(field.element, version, path[1:] if on_path else (), count)
                    setattr(value, field.name, inner)
                else:
                    self._fill(value, field)
                continue
            # Arrays on the way have one element, those beside it one, those behind it one.
            if not on_path and field.name in _LEFT_OUT:
                setattr(value, field.name, None if field.nullable_in(version) else [])
                continue
            times = count if on_path and len(path) == 1 else 1
            if field.element is not None:
                rest = path[1:] if on_path else ()
                made: list[object] = [
                    self._struct(field.element, version, rest, count) for _ in range(times)
                ]
            else:
                made = [self._one(field) for _ in range(times)]
            setattr(value, field.name, made)
        return value

    def _fill(self, value: object, field: Field) -> None:
        if field.kind in {"string", "uuid"} or (
            field.kind == "int32" and "partition" in field.name
        ):
            setattr(value, field.name, self._one(field))
        elif field.kind in {"bytes", "records"}:
            setattr(value, field.name, b"")
        elif field.name in {"timestamp", "num_partitions", "replication_factor"}:
            setattr(value, field.name, 1)
        elif field.name == "count":
            setattr(value, field.name, PARTITIONS + 1)
        elif field.name == "resource_type":
            setattr(value, field.name, 2)
        elif field.name.endswith(("wait_ms", "timeout_ms")):
            setattr(value, field.name, 30)

    def _one(self, field: Field) -> object:
        match field.kind:
            case "string":
                name = GROUP if "group" in field.name else TOPIC
                return name if self.same else f"{name}{self.number}"
            case "uuid":
                return self.topic_id if self.same else UUID(int=self.number)
            case "int32":
                return 0 if self.same else self.number
            case "bytes":
                return b""
            case _:
                return 0


class Meter:
    """The longest call of the loop, in seconds of this thread's processor time."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._run = asyncio.Handle._run  # type: ignore[attr-defined]

    def __enter__(self) -> Meter:
        honest = self._run

        def timed(handle: asyncio.Handle) -> None:
            began = time.thread_time()
            honest(handle)
            self.longest = max(self.longest, time.thread_time() - began)

        asyncio.Handle._run = timed  # type: ignore[attr-defined]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.Handle._run = self._run  # type: ignore[attr-defined]


async def measure(
    target: BrokerTarget, frame: bytes, until_answered: float = 3.0
) -> tuple[float, int]:
    """Seconds of the longest call, and bytes of the answer."""
    await target.connect()
    transport = target.transport
    assert transport is not None
    before = transport.written
    with Meter() as meter:
        asyncio.get_running_loop().call_soon(target.feed, frame)
        end = time.monotonic() + until_answered
        await asyncio.sleep(0)
        while transport.written == before and not transport.closing and time.monotonic() < end:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
    return meter.longest, transport.written - before


async def survey(key: ApiKey, version: int, count: int) -> None:
    target = BrokerTarget()
    await target.start(random.Random(0), partitions=PARTITIONS)
    topic_id = NodeUnderTest(target.node, target.disk).topic_id(TOPIC)
    cls = REQUESTS[key]
    for path in array_paths(cls, version):
        for same in (True, False):
            frame = largest(Builder(topic_id, same=same), cls, version, path, count)
            took, answer = await measure(target, frame)
            print(
                f"{took * 1000:8.0f} ms  {key.name} v{version} {'.'.join(path)} "
                f"{'same' if same else 'different'}: {len(frame):,} B in, "
                f"{f'{answer:,} B out' if answer else 'no answer'}",
                flush=True,
            )


def largest(builder: Builder, cls: StructType, version: int, path: Path, count: int) -> bytes:
    """A request with so many elements that are counted, those within others included."""
    while True:
        message = builder.request(cls, version, path, count)
        body = b"".join(encode_request(message, version, 1, "w"))[4:]
        try:
            decode_request(read_request_header(memoryview(body)), memoryview(body))
        except ProtocolError:
            count = count * 3 // 4
        else:
            return framed(body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("apis", nargs="*")
    parser.add_argument("--count", type=int, help="elements (default: as many as may be)")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)  # as a node does
    names = {name.upper() for name in options.apis}
    for number, info in sorted(advertised().items()):
        key = ApiKey(number)
        if not names or key.name in names:
            for version in sorted({info.min_version, info.max_version}):
                count = options.count or max_request_elements(key) - 10
                asyncio.run(survey(key, version, count))


if __name__ == "__main__":
    main()
