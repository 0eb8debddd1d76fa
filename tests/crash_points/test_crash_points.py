"""All crash points of all files; and an injected fault of recovery that they must find."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator

import pytest

from pegel_broker.node import Node
from pegel_controller.raft import wal as raft_wal
from pegel_controller.raft import wal_format
from tests.crash_points import __main__ as command
from tests.crash_points import node_files, partition_log, wal
from tests.crash_points.__main__ import CAMPAIGNS
from tests.crash_points.tally import POINTS, CrashPointError
from tests.simulation.cluster.safeguards import SAFEGUARDS, without


@pytest.mark.parametrize("name", CAMPAIGNS)
def test_recovery_keeps_its_promise_at_every_crash_point(name: str) -> None:
    for tally in CAMPAIGNS[name]():
        assert tally.points > 1, tally
        print(tally)


def test_a_log_without_checksums_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wal_format, "crc32c", lambda *_arguments: 0)
    with pytest.raises(CrashPointError, match=r"in silence|names the offset"):
        wal.flipped_at_every_bit()


def test_a_log_that_does_not_sync_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def append(self: raft_wal.WriteAheadLog, *arguments: object, **more: object) -> None:
        honest(self, *arguments, **(more | {"sync": False}))  # type: ignore[arg-type]

    honest = raft_wal.WriteAheadLog.append
    monkeypatch.setattr(raft_wal.WriteAheadLog, "append", append)
    with pytest.raises(CrashPointError, match="after power"):
        wal.crash_at_every_call()


def test_a_torn_tail_that_is_kept_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def scan(data: bytes, name: str, *, last_segment: bool) -> tuple[list[bytes], int]:
        return honest(data, name, last_segment=last_segment)[0], len(data)

    honest = raft_wal.scan
    monkeypatch.setattr(raft_wal, "scan", scan)
    with pytest.raises(Exception, match=r"a second|damaged"):
        wal.torn_at_every_byte()


@pytest.mark.parametrize(
    "name",
    ["a torn end is cut by its checksum", "a last batch that is all there and not valid is damage"],
)
def test_a_recovery_of_partitions_without_its_safeguard_is_found_out(name: str) -> None:
    with without(SAFEGUARDS[name]), pytest.raises(CrashPointError, match="a turned bit gives"):
        partition_log.damage_every_file(clean=False)


def test_a_partition_that_does_not_sync_is_found_out() -> None:
    name = "flush.messages=1 syncs before it acknowledges"
    with without(SAFEGUARDS[name]), pytest.raises(CrashPointError, match="ends at"):
        partition_log.crash_at_every_call()


def test_a_boot_that_is_not_looked_at_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Node, "_boot_id", lambda _node: (node_files._BOOT.decode(), False))
    with pytest.raises(CrashPointError, match="boot-id at 0"):
        node_files.boot_id_damaged()


def test_a_violation_is_repeated_by_one_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Node, "_boot_id", lambda _node: (node_files._BOOT.decode(), True))
    monkeypatch.setattr(sys, "argv", ["crash_points", "--only", "files of a node"])
    assert command.main() == 1
    told = capsys.readouterr().out
    assert "VIOLATION: boot-id at 0: " in told
    (line,) = [line for line in told.splitlines() if "repeat: " in line]
    arguments = shlex.split(line.partition("repeat: python -m ")[2])
    monkeypatch.setattr(sys, "argv", arguments)
    assert command.main() == 1
    again = capsys.readouterr().out.splitlines()
    assert again[:2] == told.splitlines()[:2]
    assert again[2].startswith("1 crash points, 1 violations")


@pytest.fixture(autouse=True)
def _all_points() -> Iterator[None]:
    yield
    POINTS.only = None
