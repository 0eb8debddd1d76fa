"""``--costs``: what perf and strace say, and what is made of it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pegel.errors import PegelError
from pegel_bench import costs
from pegel_bench.load.spec import LoadResult
from pegel_bench.report.costs import tables
from pegel_bench.result import Row
from tests.bench.test_reports import report as report_of

PERF = """\
# Samples: 200 of event 'cpu-clock:pppH'
    40.00%;libpython3.11.so.1.0          ;[.] _PyEval_EvalFrameDefault
    10.00%;  ;[kernel.kallsyms]  ;[k] _copy_from_iter
     5.00%;[kernel.kallsyms];[k] clear_page_erms
    15.00%;[kernel.kallsyms];[k] finish_task_switch.isra.0
     5.00%;[kernel.kallsyms];[k] tcp_sendmsg_locked
     5.00%;[kernel.kallsyms];[k] shmem_write_end
     4.00%;[kernel.kallsyms];[k] do_syscall_64
     6.00%;_crc32c.abi3.so;[.] crc32c_hw
     8.00%;loop.cpython-311-x86_64-linux-gnu.so;[.] uv__io_poll
     2.00%;perf-4711.map;[.] Interpreter
"""
STRACE = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.002000           2      1000       100 futex
 30.00    0.001000           1       400           read
 10.00    0.000100           1         4           close
------ ----------- ----------- --------- --------- ----------------
100.00    0.003100           1      1404       100 total
"""


def test_samples_are_sorted_into_kinds_that_sum_up_to_one() -> None:
    found = costs.shares(PERF)
    assert sum(found.values()) == pytest.approx(1.0)
    assert {kind: round(share, 2) for kind, share in found.items()} == {
        "runtime": 0.42, "libraries": 0.08, "checksums": 0.06, "copies": 0.10, "zeroing": 0.05,
        "scheduling": 0.15, "sockets": 0.05, "files": 0.05, "other kernel": 0.04,
    }  # fmt: skip
    assert costs.shares("") == {}


def test_the_table_of_strace_is_read_without_its_sum() -> None:
    assert costs.system_calls(STRACE) == {"futex": 1000, "read": 400, "close": 4}


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all there is to be found, with the shell's own programs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


# Runs until it is interrupted, as both do, and writes its file at the end.
def _wait(at_end: str = "", signals: str = "INT TERM") -> str:
    return f'trap "{at_end}exit 0" {signals}; while :; do /bin/sleep 0.02; done'


def test_each_case_is_loaded_once_under_each_program(programs: Path) -> None:
    (programs / "perf.txt").write_text(PERF)
    (programs / "strace.txt").write_text(STRACE)
    at_end = f"/bin/cp {programs}/strace.txt $4; "
    program(programs, "perf", f'if [ "$1" = report ]; then /bin/cat {programs}/perf.txt; exit; fi\n'
            f'echo "$@" > {programs}/asked\n' + _wait())  # fmt: skip
    program(programs, "strace", _wait(at_end))
    loads: list[int] = []

    def load() -> LoadResult:
        loads.append(1)
        return LoadResult(requests=100)

    found = costs.observe(load, [11, 12])
    assert len(loads) == 2
    assert (programs / "asked").read_text().split()[-2:] == ["-p", "11,12"]
    assert found.shares["runtime"] == pytest.approx(0.42)
    assert found.calls == {"futex": 10.0, "read": 4.0}  # close is too rare to tell


def test_a_program_to_which_an_interrupt_means_nothing_is_asked_more_firmly(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(costs, "_END_SECONDS", 0.5)
    (programs / "strace.txt").write_text(STRACE)
    at_end = f"/bin/cp {programs}/strace.txt $4; "
    program(programs, "strace", "trap '' INT\n" + _wait(at_end, "TERM"))
    found = costs.observe(lambda: LoadResult(requests=100), [11])
    assert found.calls == {"futex": 10.0, "read": 4.0}


def test_a_program_that_may_not_attach_says_why(programs: Path) -> None:
    program(programs, "strace", 'echo "attach: ptrace: Operation not permitted" >&2; exit 1')
    loads: list[int] = []

    def load() -> LoadResult:
        loads.append(1)
        return LoadResult(requests=1)

    with pytest.raises(PegelError, match=r"strace ended at once: .*Operation not permitted"):
        costs.observe(load, [os.getpid()])
    assert not loads


def test_without_either_program_it_is_said_before_anything_is_loaded(programs: Path) -> None:
    assert not list(programs.iterdir())
    with pytest.raises(PegelError, match="needs perf or strace"):
        costs.check()


def test_the_tables_show_the_most_frequent_calls_and_add_up_the_others() -> None:
    calls = {f"call{n}": float(20 - n) for n in range(10)}
    made = report_of(
        Row(target="pegel", workload="latency", case={"acks": "all"},
            costs=costs.Costs({"runtime": 0.7, "copies": 0.3}, calls)),
        Row(target="kafka", workload="latency", case={"acks": "all"}),
    )  # fmt: skip
    shares, counted = tables(made)
    assert shares[1] == ["case", "target", "runtime", "copies"]
    assert shares[2] == [["latency: acks all", "pegel", "70", "30"]]
    assert counted[1] == ["case", "target", *(f"call{n}" for n in range(8)), "others"]
    assert counted[2] == [
        ["latency: acks all", "pegel", *(f"{20 - n}.0" for n in range(8)), f"{12 + 11}.0"]
    ]
    assert tables(report_of()) == []
