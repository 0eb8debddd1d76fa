"""Apache Kafka's own log dump tool reads what was written."""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from pegel.seams import World
from pegel.seams.clock import RealClock
from pegel.seams.disk import RealDisk, ThreadDiskQueue
from pegel_broker.log import LogManager
from tests.broker.log.harness import NOW, TOPIC_ID, batch, config
from tests.support.kafka_jars import CLASSPATH, MISSING

pytestmark = [
    pytest.mark.java,
    pytest.mark.skipif(
        not CLASSPATH or shutil.which("java") is None,
        reason=f"there is no java here, or {MISSING}",
    ),
]


async def _write(path: Path) -> None:
    world = World(RealClock(), None, RealDisk(), ThreadDiskQueue, random.Random(1))  # type: ignore[arg-type]
    manager = LogManager(world, [str(path)])
    await manager.start("cluster-1", 1)
    log = manager.create(
        "t", 0, TOPIC_ID, config(segment_bytes=6000, index_interval_bytes=400, retention_ms=-1)
    )
    for number in range(120):
        log.append_as_leader(
            batch(3, size=50, timestamp=NOW + number // 2, producer=(9, 0, 3 * number)), 4, NOW
        )
        if number % 10 == 0:
            await log.flush()
    await manager.close()


def _dump(files: list[Path], *options: str) -> str:
    done = subprocess.run(
        ["java", "-cp", CLASSPATH, "org.apache.kafka.tools.DumpLogSegments", *options, "--files",
         ",".join(map(str, files))],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_dump_tool_finds_no_fault_in_any_file(tmp_path: Path) -> None:
    asyncio.run(_write(tmp_path))
    folder = tmp_path / "t-0"
    logs = sorted(folder.glob("*.log"))
    assert len(logs) > 2
    text = _dump(logs, "--deep-iteration")
    assert text.count("isvalid: true") == 120
    assert "isvalid: false" not in text
    assert "producerId: 9 " in text
    for suffix in ("index", "timeindex"):
        files = sorted(folder.glob(f"*.{suffix}"))
        assert len(files) == len(logs)
        for options in ([], ["--index-sanity-check"]):
            text = _dump(files, *options)
            for complaint in ("Mismatches", "passed sanity check"):
                assert (complaint in text) == (complaint != "Mismatches" and bool(options)), text
            assert "out of order" not in text
            assert "not found" not in text
    snapshots = sorted(folder.glob("*.snapshot"))
    text = _dump(snapshots[-1:])
    assert "producerId: 9 producerEpoch: 0" in text
    assert "lastSequence: 359" in text
