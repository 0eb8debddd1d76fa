"""All crash points of all files; and an injected fault of recovery that they must find."""

from __future__ import annotations

import pytest

from pegel_controller.raft import wal as raft_wal
from pegel_controller.raft import wal_format
from tests.crash_points import wal
from tests.crash_points.__main__ import CAMPAIGNS
from tests.crash_points.tally import CrashPointError


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
