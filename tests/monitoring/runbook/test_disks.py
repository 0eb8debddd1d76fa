"""Disks that fail, fill up, or take long."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pegel
from pegel.testing import LocalCluster
from tests.monitoring.load import TOPIC
from tests.monitoring.runbook.trial import SERVE, Trial, tries
from tests.monitoring.stack import Stack
from tests.monitoring.theatre import MARKS, SETTINGS, Scene, disk_of, scene, small_disk

pytestmark = MARKS
# As on a disk a thousand times as large, where five minutes are enough as well.
SMALL = SETTINGS | {
    "log.retention.check.interval.ms": "1000", "log.segment.delete.delay.ms": "1000",
    "log.segment.bytes": str(2 << 20),
}  # fmt: skip
RETENTION = "pegel topics alter TOPIC --set retention.bytes=BYTE"


@tries(
    "PegelLogDirectoryOffline",
    look={
        "grep log_directory_offline node.log": r"dir=\S+/log reason=.*No space left on device",
        "df -h DATA_DIR/node-N/log": r"100% .*/log$",
    },
    do={SERVE: "ready"},
)
def test_a_log_directory_fails(trial: Trial, stage: Scene) -> None:
    """The disk is full; then it is lost, and another one is in its place."""
    trial.on(stage)
    victim = stage.another()
    trial.names(victim)
    began = time.time()
    with disk_of(stage.cluster, victim) as disk:
        # It waits for its last scrape only where there was one before.
        address = stage.cluster.nodes[victim].http
        young = f'pegel_start_time_seconds{{instance="{address}"}} > {began}'
        Stack.until(lambda: bool(stage.stack.query(young)), "it is scraped again")
        disk.fill()
        trial.fires()
        trial.look()
        disk.free()
        trial.gone()
        trial.do("pegel server")
        trial.clears()
        stage.cluster.kill(victim)
        trial.run("rm -r log/* log/.lock")
        trial.do("pegel server")
        trial.sees("pegel cluster describe", r"^ +{N} .* live +\d+ +(\d+) +\1$", seconds=60)


@tries(
    "PegelDiskNearlyFull",
    look={
        "topk(5, sum by (topic) (pegel_partition_size_bytes))": r'^{topic="big"} [1-9]\d{7}',
        "du -sh DATA_DIR/node-N/*": r"^\d+M\s.*/node-{N}/log$",
    },
    do={RETENTION: "^altered topic"},
)
def test_a_topic_fills_the_disk(trial: Trial, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 256) as disk:
        cluster = LocalCluster(brokers=3, settings=SMALL, data_dir=disk.directory / "data")
        with scene(tmp_path / "prometheus", cluster=cluster, alertmanager=False) as staged:
            trial.on(staged)
            trial.names(1, TOPIC="big", BYTE=1 << 20)
            trial.run("pegel topics create big --partitions 3 --replication 3")
            staged.ask(lambda client: _write(client, "big", 8 << 20))
            # Others have most of the rest.
            disk.fill(8 << 20)
            trial.fires()
            trial.look()
            trial.do("pegel topics alter")
            trial.clears()


@tries(
    "PegelDiskFillsIn4Hours",
    look={
        "topk(5, sum by (topic) (deriv(pegel_partition_size_bytes[1h])))":
            r'^{topic="growing"} [1-9]\d{3}',
    },
    do={RETENTION: "^altered topic"},
)  # fmt: skip
def test_a_topic_grows_quickly(trial: Trial, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 256) as disk:
        cluster = LocalCluster(brokers=3, settings=SMALL, data_dir=disk.directory / "data")
        with scene(tmp_path / "prometheus", cluster=cluster, alertmanager=False) as staged:
            disk.fill(110 << 20)
            trial.on(staged, already=True)
            trial.names(1, TOPIC="growing", BYTE=1 << 20)
            trial.run("pegel topics create growing --partitions 3 --replication 3")
            stop = threading.Event()

            async def grow(client: pegel.AsyncClient) -> None:
                for _ in range(60):
                    if not stop.is_set():
                        await _write(client, "growing", 200_000)
                        stop.wait(0.5)

            writer = threading.Thread(target=staged.ask, args=(grow,))
            writer.start()
            try:
                trial.fires()
                trial.look()
            finally:
                stop.set()
                writer.join()
            trial.do("pegel topics alter")
            trial.clears(240)


async def _write(client: pegel.AsyncClient, topic: str, count_bytes: int) -> None:
    async with client.producer(acks="all") as producer:
        for partition in range(3):
            record = os.urandom(10_000)
            count = count_bytes // 3 // len(record)
            await producer.send_many(topic, [record] * count, partition=partition)


@tries(
    "PegelSlowFsync",
    look={
        "cat /proc/pressure/io": r"^some avg10=\d",
        "iostat -x 1 2": r"Device +r/s",
        "pegel topics configs TOPIC": r"flush.messages +50",
    },
    do={"pegel topics alter TOPIC --unset flush.messages": "^altered topic"},
)
def test_syncs_take_long(trial: Trial, stage: Scene, slow_sync: Callable[[float], None]) -> None:
    """The pages of the host show nothing: it is the node's call that takes long, not a device."""
    trial.on(stage)
    trial.names(1, TOPIC=TOPIC)
    try:
        slow_sync(0.7)
        trial.fires()
        trial.look()
        trial.do("pegel topics alter")
        trial.clears()
    finally:
        slow_sync(0)
        trial.run(f"pegel topics alter {TOPIC} --set flush.messages=50")
