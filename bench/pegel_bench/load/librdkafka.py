"""Producing with librdkafka (the package confluent-kafka), where it is installed."""

from __future__ import annotations

import random
import time

from pegel.errors import PegelError
from pegel_bench.load.asking import Asker
from pegel_bench.load.control import Control
from pegel_bench.load.spec import LoadResult, LoadSpec
from pegel_bench.load.wire import values_of

_CHUNK = 2_000
_CLOSE_WAIT = 30.0


def run(spec: LoadSpec, control: Control) -> LoadResult:
    """Records as fast as its queue takes them; only failures are reported back, as is quickest.

    Raises:
        PegelError: confluent-kafka is not installed, or the brokers are gone.
    """
    try:
        from confluent_kafka import Producer
    except ImportError:
        raise PegelError("librdkafka needs the package confluent-kafka: pip install it") from None
    result = LoadResult()
    failed = 0

    def on_failed(error: object, _: object) -> None:
        nonlocal failed
        failed += 1
        name = str(error)
        result.errors[name] = result.errors.get(name, 0) + 1

    producer = Producer(
        {
            "bootstrap.servers": spec.bootstrap,
            "acks": spec.acks,
            "compression.type": spec.compression,
            "linger.ms": 5,
            "batch.size": spec.batch_bytes,
            "queue.buffering.max.messages": 1_000_000,
            "delivery.report.only.error": True,
            "message.timeout.ms": int(spec.drain * 1000),
        }
        | spec.client_settings
    )
    values = values_of(random.Random(spec.seed), _CHUNK, spec.record_bytes)
    own = spec.own_partitions
    control.wait_for_go()
    cpu = time.process_time()
    now = time.perf_counter()
    warm_end, end = now + spec.warm_up, float("inf")
    started = 0.0
    number = warm = queued = 0
    while now < end and not control.stopped:
        if not started and now >= warm_end and queued * spec.record_bytes >= spec.warm_up_bytes:
            producer.flush(_CLOSE_WAIT)
            started = time.perf_counter()
            end, warm = started + spec.seconds, queued
        messages = [{"value": v} for v in values]
        taken = producer.produce_batch(
            spec.topic, messages, partition=own[number % len(own)], on_delivery=on_failed
        )
        number += 1
        queued += taken
        producer.poll(0.005 if taken < _CHUNK else 0)
        now = time.perf_counter()
        if control.due(now):
            measured = queued - warm if started else 0
            control.progress(
                "measure" if started else "warm-up", sent=measured, acknowledged=measured,
                bytes=measured * spec.record_bytes, failed=failed,
            )  # fmt: skip
        if spec.max_bytes and started and (queued - warm) * spec.record_bytes >= spec.max_bytes:
            break
    left = producer.flush(_CLOSE_WAIT)
    if left:
        result.notes.append(f"{left} records were still not delivered after {_CLOSE_WAIT:g} s")
    asker = Asker(spec.bootstrap)
    found = _in_log(asker, spec, queued - failed - left)
    asker.close()
    result.seconds = max(time.perf_counter() - started, 1e-9) if started else 0.0
    result.cpu_seconds = time.process_time() - cpu
    result.interrupted = control.stopped
    result.sent = queued - warm if started else 0
    result.failed = failed + left
    result.bytes = result.sent * spec.record_bytes
    result.acknowledged = result.sent - result.failed if spec.acks else 0
    result.lost = max(0, queued - result.failed - found)
    result.verified = not result.interrupted
    return result


def _in_log(asker: Asker, spec: LoadSpec, expected: int) -> int:
    """Records in the log, once there are as many as expected or no more come."""
    deadline = time.perf_counter() + (10.0 if spec.acks else spec.drain)
    while True:
        found = sum(asker.end_offset(spec.topic, p) for p in spec.own_partitions)
        if found >= expected or time.perf_counter() > deadline:
            return found
        time.sleep(0.002)
