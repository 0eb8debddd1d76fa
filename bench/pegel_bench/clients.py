"""Pegel's client beside confluent-kafka on one cluster: ``python -m pegel_bench.clients``.

Each measurement runs in a process of its own, the two clients in turn, and the median of the
rounds counts. Records have 100 bytes, acks=all, idempotent, one topic of three partitions with one
replica: the client is what is measured, not replication.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any

import uvloop

import pegel

RECORD = b"x" * 100
PARTITIONS = 3
_CALL = 10_000
_WARM_UP = 200
_TARGETS = {"produce": 1.0, "consume": 5.0, "latency": 1 / 1.3}


def produce_pegel(bootstrap: str, topic: str, count: int) -> float:
    """Records a second, until the last one is acknowledged."""

    async def main() -> float:
        async with pegel.AsyncClient(bootstrap) as client, client.producer() as producer:
            values = [RECORD] * _CALL
            await producer.send_many(topic, values)
            started = time.perf_counter()
            pending = [await producer.send_many_soon(topic, values) for _ in range(count // _CALL)]
            for delivery in pending:
                await delivery
            return count / (time.perf_counter() - started)

    return uvloop.run(main())


def produce_confluent(bootstrap: str, topic: str, count: int) -> float:
    from confluent_kafka import Producer

    producer = Producer({
        "bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 5,
        "queue.buffering.max.messages": 2_000_000, "queue.buffering.max.kbytes": 1_000_000,
    })  # fmt: skip
    for _ in range(_CALL):
        producer.produce(topic, RECORD)
    producer.flush()
    started = time.perf_counter()
    for i in range(count):
        producer.produce(topic, RECORD)
        if i % 1000 == 0:
            producer.poll(0)
    producer.flush()
    return count / (time.perf_counter() - started)


def consume_pegel(bootstrap: str, topic: str, count: int) -> float:
    """Records a second from the first one on, their values looked at as a column."""

    async def main() -> float:
        async with (
            pegel.AsyncClient(bootstrap) as client,
            client.consumer(topic, offset_reset="earliest") as consumer,
        ):
            seen, started, skipped = 0, 0.0, 0
            async for batch in consumer.batches():
                seen += len(batch.values)
                if not started:
                    started, skipped = time.perf_counter(), seen
                if seen >= count:
                    break
            return (seen - skipped) / (time.perf_counter() - started)

    return uvloop.run(main())


def consume_confluent(bootstrap: str, topic: str, count: int) -> float:
    from confluent_kafka import Consumer

    consumer = Consumer({
        "bootstrap.servers": bootstrap, "group.id": uuid.uuid4().hex,
        "auto.offset.reset": "earliest", "enable.auto.commit": False,
    })  # fmt: skip
    consumer.subscribe([topic])
    seen, started, skipped = 0, 0.0, 0
    while seen < count:
        messages = consumer.consume(_CALL, timeout=1.0)
        seen += len([m.value() for m in messages])
        if messages and not started:
            started, skipped = time.perf_counter(), seen
    seconds = time.perf_counter() - started
    consumer.close()
    return (seen - skipped) / seconds


def latency_pegel(bootstrap: str, topic: str, count: int) -> float:
    """Median of a send that is awaited before the next, in milliseconds."""

    async def main() -> float:
        async with pegel.AsyncClient(bootstrap) as client:
            times: list[float] = []
            for _ in range(count + _WARM_UP):
                started = time.perf_counter()
                await client.send(topic, RECORD, partition=0)
                times.append(time.perf_counter() - started)
            return statistics.median(times[_WARM_UP:]) * 1000

    return uvloop.run(main())


def latency_confluent(bootstrap: str, topic: str, count: int) -> float:
    from confluent_kafka import Producer

    producer = Producer(
        {"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 0}
    )
    times: list[float] = []
    for _ in range(count + _WARM_UP):
        started = time.perf_counter()
        producer.produce(topic, RECORD, partition=0)
        producer.flush()
        times.append(time.perf_counter() - started)
    return statistics.median(times[_WARM_UP:]) * 1000


WORK: dict[str, Callable[[str, str, int], float]] = {
    f"{what}-{who}": work
    for what, who, work in (
        ("produce", "pegel", produce_pegel),
        ("produce", "confluent", produce_confluent),
        ("consume", "pegel", consume_pegel),
        ("consume", "confluent", consume_confluent),
        ("latency", "pegel", latency_pegel),
        ("latency", "confluent", latency_confluent),
    )
}


def _measure(name: str, bootstrap: str, topic: str, count: int) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "pegel_bench.clients", "-b", bootstrap, "--work", name,
         "--topic", topic, "--records", str(count)],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    return float(done.stdout)


async def _new_topic(bootstrap: str) -> str:
    name = f"clients-{uuid.uuid4().hex[:8]}"
    async with pegel.AsyncClient(bootstrap) as client:
        await client.create_topic(name, partitions=PARTITIONS, replication=1)
    return name


def compare(bootstrap: str, records: int, sends: int, rounds: int) -> list[dict[str, Any]]:
    """One row for each measurement: both medians, and how ours compares (more is better)."""
    counts = {"produce": records, "consume": records, "latency": sends}
    found: dict[str, list[float]] = {name: [] for name in WORK}
    for _ in range(rounds):
        for what, count in counts.items():
            for who in ("confluent", "pegel"):
                topic = asyncio.run(_new_topic(bootstrap))
                if what == "consume":
                    _measure("produce-pegel", bootstrap, topic, records)
                found[f"{what}-{who}"].append(_measure(f"{what}-{who}", bootstrap, topic, count))
    rows: list[dict[str, Any]] = []
    for what in counts:
        ours, theirs = (statistics.median(found[f"{what}-{who}"]) for who in ("pegel", "confluent"))
        ratio = theirs / ours if what == "latency" else ours / theirs
        rows.append({
            "what": what, "unit": "ms" if what == "latency" else "records/s",
            "pegel": ours, "confluent": theirs, "ratio": ratio, "target": _TARGETS[what],
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("-b", "--bootstrap", default="localhost:9092", metavar="HOST:PORT")
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--sends", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", dest="as_json")
    parser.add_argument("--work", choices=sorted(WORK), help=argparse.SUPPRESS)
    parser.add_argument("--topic", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        print(WORK[options.work](options.bootstrap, options.topic, options.records))
        return
    rows = compare(options.bootstrap, options.records, options.sends, options.rounds)
    if options.as_json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(
            f"{row['what']:8} pegel {row['pegel']:12,.2f}  confluent {row['confluent']:12,.2f} "
            f"{row['unit']:9}  {row['ratio']:.2f} times (to reach: {row['target']:.2f})"
        )


if __name__ == "__main__":
    main()
