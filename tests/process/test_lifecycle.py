"""``pegel up`` and ``pegel server`` as processes: starts, ends, and what stops a start."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import pytest

from pegel.testing import LocalCluster
from tests.process.harness import (
    WAIT,
    Writer,
    assert_nothing_lost,
    create,
    until,
    until_in_sync,
    verdict,
)
from tests.support.node import free_port

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]


def _pegel(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "pegel", *arguments],
        capture_output=True, text=True, timeout=WAIT, check=False,
    )  # fmt: skip


def _refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a command which cannot do it ends with."""
    assert done.returncode in {1, 2}, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def _up(directory: Path, *arguments: str) -> tuple[subprocess.Popen[str], dict[str, object]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "pegel", "up", "--json", "--data-dir", str(directory), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.stderr.read() if process.stderr else ""
    return process, json.loads(line)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_ready_line_and_a_clean_end(tmp_path: Path, number: signal.Signals) -> None:
    process, ready = _up(tmp_path / "data", "--brokers", "3", "--base-port", "0")
    try:
        assert set(ready) == {"bootstrap", "nodes", "data_dir", "ready_seconds"}
        nodes = ready["nodes"]
        assert isinstance(nodes, list)
        assert ready["bootstrap"] == ",".join(node["client"] for node in nodes)
        assert [node["id"] for node in nodes] == [1, 2, 3]
        assert all(set(n) == {"id", "pid", "client", "controller", "http"} for n in nodes)
        assert ready["data_dir"] == str(tmp_path / "data")
        assert isinstance(ready["ready_seconds"], float)
        assert not any(_is_gone(node["pid"]) for node in nodes)
        process.send_signal(number)
        out, err = process.communicate(timeout=WAIT)
        assert process.returncode == 0
        assert (out, err) == ("", "")
        assert all(_is_gone(node["pid"]) for node in nodes)
        for node_id in (1, 2, 3):
            log = (tmp_path / "data" / f"node-{node_id}" / "node.log").read_text()
            assert "ERROR" not in log
            assert "CRITICAL" not in log
    finally:
        process.kill()
        process.communicate()


def test_nodes_do_not_outlive_their_parent(tmp_path: Path) -> None:
    process, ready = _up(tmp_path / "data", "--brokers", "1", "--base-port", "0")
    nodes = ready["nodes"]
    assert isinstance(nodes, list)
    process.kill()
    process.communicate()
    until(lambda: _is_gone(nodes[0]["pid"]), "the node ends")


def test_a_cluster_of_a_test_that_dies_ends_as_well(tmp_path: Path) -> None:
    program = (
        "import os, signal\n"
        "from pegel.testing import LocalCluster\n"
        f"cluster = LocalCluster(brokers=2, data_dir={str(tmp_path)!r})\n"
        "cluster.start()\n"
        "cluster.kill(2)\n"
        "print(cluster.nodes[1].pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=WAIT, check=False
    )
    pid = int(done.stdout)
    until(lambda: _is_gone(pid), "the node ends")


def test_started_again_it_is_the_same_cluster(tmp_path: Path) -> None:
    with LocalCluster(brokers=3, data_dir=tmp_path) as cluster:
        create(cluster, "kept")
        addresses = {n.node_id: n.client for n in cluster.nodes.values()}
        cluster_id = cluster.view(1)["broker"]["cluster_id"]
        with Writer(cluster, "kept") as writer:
            writer.more(100)
    with LocalCluster(brokers=3, data_dir=tmp_path) as cluster:
        assert {n.node_id: n.client for n in cluster.nodes.values()} == addresses
        assert cluster.view(1)["broker"]["cluster_id"] == cluster_id
        with Writer(cluster, "kept", writer.history) as writer:
            writer.more(50)
        until_in_sync(cluster, "kept")
        assert_nothing_lost(cluster, writer)


def test_the_whole_cluster_killed_at_once_loses_nothing(tmp_path: Path) -> None:
    with LocalCluster(brokers=3, data_dir=tmp_path) as cluster:
        create(cluster, "kept")
        with Writer(cluster, "kept") as writer:
            writer.more(100)
            cluster.kill_all()
            cluster.restart(*cluster.nodes)
            writer.more(100)
        until_in_sync(cluster, "kept")
        assert_nothing_lost(cluster, writer)


# -- what stops a start


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = _refusal(_pegel("up", "--data-dir", str(tmp_path / "a"), "--base-port", str(port)))
        assert f"port {port} is in use" in said
        assert "--base-port" in said
        said = _refusal(
            _pegel("server", "--node-id", "1", "--data-dir", str(tmp_path / "b"),
                   "--controllers", f"1@127.0.0.1:{free_port()}", "--listen", f"127.0.0.1:{port}")
        )  # fmt: skip
        assert f"cannot listen on 127.0.0.1:{port}" in said
        assert "choose another port" in said


def test_a_second_process_on_a_directory_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with LocalCluster(brokers=1, data_dir=tmp_path) as cluster:
        create(cluster, "kept")
        config = tmp_path / "node-1" / "server.properties"
        said = _refusal(
            _pegel("server", "--config", str(config), "--listen", "127.0.0.1:0", "--controllers",
                   f"1@127.0.0.1:{free_port()}", "--http", "127.0.0.1:0")
        )  # fmt: skip
        pid = cluster.nodes[1].pid
        assert f"is used by another process, pid {pid}: stop that first (kill {pid})" in said
        files = {p: p.read_bytes() for p in (config, tmp_path / "cluster.json")}
        said = _refusal(_pegel("up", "--data-dir", str(tmp_path), "--base-port", "0"))
        assert "another `pegel up` (pid " in said
        assert "stop that first" in said
        assert {p: p.read_bytes() for p in files} == files, "the running cluster's configuration"
        with Writer(cluster, "kept") as writer:
            writer.more(20)
        assert_nothing_lost(cluster, writer)


def test_a_directory_of_another_cluster_or_node_is_refused(tmp_path: Path) -> None:
    with LocalCluster(brokers=1, data_dir=tmp_path / "one"):
        pass
    with LocalCluster(brokers=1, data_dir=tmp_path / "other") as other:
        foreign = (tmp_path / "other" / "node-1" / "server.properties").read_text()
        del other
    config = tmp_path / "mixed.properties"
    mine = str(tmp_path / "one" / "node-1")
    config.write_text(foreign.replace(str(tmp_path / "other" / "node-1"), mine))
    before = _files(Path(mine))
    said = _refusal(_pegel("server", "--config", str(config)))
    assert "belongs to cluster" in said
    assert "use another data directory" in said
    own = (tmp_path / "one" / "node-1" / "server.properties").read_text()
    config.write_text(own.replace("node.id=1", "node.id=2").replace("1@", "2@"))
    assert "belongs to node 1" in _refusal(_pegel("server", "--config", str(config)))
    assert _files(Path(mine)) == before, "a refused start changed the data"


def _files(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != "node.lock"
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["up", "--brokers", "2", "--data-dir", "{}", "--set", "no.such.key=1"], "no.such.key"),
        (["up", "--data-dir", "{}", "--set", "num.partitions=many"], "num.partitions"),
        (["up", "--data-dir", "{}", "--set", "nonsense"], "key=value"),
        (["up", "--data-dir", "{}", "--brokers", "0"], "--brokers"),
        (["up", "--data-dir", "{}", "--base-port", "65535"], "--base-port"),
        (["server", "--node-id", "1", "--data-dir", "{}"], "--controllers"),
        (["server", "--node-id", "one", "--data-dir", "{}", "--controllers", "1@h:1"], "--node-id"),
        (["server", "--node-id", "1", "--data-dir", "{}", "--controllers", "h:1"], "id@host:port"),
        (["server", "--node-id", "1", "--data-dir", "{}", "--controllers", "1@h:0"], "a port"),
        (["server", "--node-id", "2", "--data-dir", "{}", "--controllers", "1@h:1"], "node 2"),
        (["server", "--node-id", "1", "--data-dir", "{}", "--controllers", "1@h:1",
          "--roles", "king"], "roles are"),
        (["server", "--config", "/no/such/file"], "--config"),
    ],
)  # fmt: skip
def test_wrong_usage_is_told_in_one_line(
    tmp_path: Path, arguments: Sequence[str], said: str
) -> None:
    done = _pegel(*(a.format(tmp_path / "data") for a in arguments))
    assert said in _refusal(done)
    assert done.returncode == 2
    assert not (tmp_path / "data").exists(), "left behind"


def test_a_number_of_brokers_that_the_directory_does_not_hold(tmp_path: Path) -> None:
    with LocalCluster(brokers=1, data_dir=tmp_path):
        pass
    said = _refusal(_pegel("up", "--brokers", "3", "--data-dir", str(tmp_path)))
    assert "holds a cluster of 1 nodes" in said
    assert "--brokers 1" in said


def test_the_last_words_of_a_node_are_of_this_life(tmp_path: Path) -> None:
    """A line of an earlier start was given as the reason why this one was killed."""
    log = tmp_path / "node-1" / "node.log"
    log.parent.mkdir()
    log.write_text("2026-01-01 CRITICAL pegel.node: of another life\n")
    with subprocess.Popen(
        [sys.executable, "-m", "pegel", "up", "--brokers", "1", "--base-port", "0", "--json",
         "--data-dir", str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as up:  # fmt: skip
        assert up.stdout is not None
        (node,) = json.loads(up.stdout.readline())["nodes"]
        os.kill(node["pid"], signal.SIGKILL)
        _, said = up.communicate(timeout=WAIT)
    assert said == f"pegel up: node 1 (pid {node['pid']}) was killed by SIGKILL\n"


def test_what_refuses_a_start_says_what_to_do(tmp_path: Path) -> None:
    with LocalCluster(brokers=1, data_dir=tmp_path):
        pass
    up = ("up", "--data-dir", str(tmp_path))
    meta = tmp_path / "node-1" / "log" / "meta.properties"
    whole = meta.read_bytes()
    meta.write_text("hi")
    said = _refusal(_pegel(*up))
    assert "line 'hi' has no '='; restore it from a copy, or write it anew" in said
    lines = said.partition("a line each: ")[2].split()
    assert sorted(lines)[0].encode() in whole, "its cluster.id is the right one"
    meta.write_text("\n".join(lines) + "\n")
    with LocalCluster(brokers=1, data_dir=tmp_path):
        pass
    wal = next((tmp_path / "node-1" / "raft").glob("*.wal"))
    content = bytearray(wal.read_bytes())
    content[60] ^= 0xFF
    wal.write_bytes(content)
    said = _refusal(_pegel(*up))
    assert f"{wal.name} is damaged at offset " in said
    assert "Restore this node's `raft` directory from a copy" in said
    nowhere = ("--node-id", "1", "--data-dir", "/proc/nope", "--controllers", "1@127.0.0.1:1")
    said = _refusal(_pegel("server", *nowhere))
    assert "/proc/nope: No such file or directory; nothing can be made there: use another" in said


# -- damage


def _segment(cluster: LocalCluster, node_id: int, topic: str) -> Path:
    (found,) = cluster.nodes[node_id].data_dir.rglob(f"{topic}-0/00000000000000000000.log")
    return found


def test_a_damaged_segment_takes_that_replica_offline_and_no_other(tmp_path: Path) -> None:
    """In the middle of what is committed: not repaired by cutting, named, and nothing is lost."""
    with LocalCluster(brokers=3, data_dir=tmp_path) as cluster:
        create(cluster, "kept")
        with Writer(cluster, "kept") as writer:
            writer.more(200)
        victim = cluster.leader_of("kept", 0)
        cluster.kill(victim)
        path = _segment(cluster, victim, "kept")
        data = bytearray(path.read_bytes())
        data[len(data) // 3] ^= 0xFF
        path.write_bytes(data)
        cluster.restart(victim)
        until(lambda: "damaged at byte" in cluster.log_of(victim), "the damage is found")
        line = next(x for x in cluster.log_of(victim).splitlines() if str(path) in x)
        assert "offline" in line
        assert path.read_bytes() == bytes(data)
        with Writer(cluster, "kept", writer.history) as writer:
            writer.more(50)
        assert cluster.leader_of("kept", 0) != victim
        assert_nothing_lost(cluster, writer)
        # The other replicas of that broker are as they were: it serves.
        create(cluster, "another")


def test_a_torn_tail_is_cut_and_filled_again(tmp_path: Path) -> None:
    with LocalCluster(brokers=3, data_dir=tmp_path) as cluster:
        create(cluster, "kept")
        with Writer(cluster, "kept") as writer:
            writer.more(100)
        leader = cluster.leader_of("kept", 0)
        victim = next(n for n in cluster.nodes if n != leader)
        cluster.kill(victim)
        path = _segment(cluster, victim, "kept")
        whole = path.read_bytes()
        path.write_bytes(whole[:-30])
        cluster.restart(victim)
        until_in_sync(cluster, "kept")
        assert _segment(cluster, victim, "kept").read_bytes() == whole
        assert_nothing_lost(cluster, writer)


def test_a_lost_data_directory_is_filled_from_the_others(tmp_path: Path) -> None:
    with LocalCluster(brokers=3, data_dir=tmp_path) as cluster:
        create(cluster, "kept")
        with Writer(cluster, "kept") as writer:
            writer.more(50)
        leader = cluster.leader_of("kept", 0)
        victim = next(n for n in cluster.nodes if n != leader)
        cluster.kill(victim)
        shutil.rmtree(cluster.nodes[victim].data_dir / "log")
        cluster.restart(victim)
        until_in_sync(cluster, "kept")
        content = _segment(cluster, victim, "kept").read_bytes()
        assert content == _segment(cluster, leader, "kept").read_bytes()
        assert not verdict(cluster, writer.history).lines


def _readiness(address: str) -> int:
    try:
        with urllib.request.urlopen(f"http://{address}/readyz", timeout=5) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def test_a_start_waits_for_a_majority_and_goes_on_with_it(tmp_path: Path) -> None:
    """One of three alone cannot serve, and says nothing of being ready."""
    with LocalCluster(brokers=3, data_dir=tmp_path) as cluster:
        http = cluster.nodes[1].http
    config = tmp_path / "node-1" / "server.properties"
    alone = subprocess.Popen(
        [sys.executable, "-m", "pegel", "server", "--json", "--config", str(config)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert alone.stdout is not None
        until(lambda: _readiness(http) == 503, "it lives, and is not ready")
        assert not select.select([alone.stdout], [], [], 0)[0]
        alone.send_signal(signal.SIGTERM)
        assert alone.wait(WAIT) == 0
    finally:
        alone.kill()
        alone.wait()


_STUBBORN = """
import os, signal, sys, time
from pathlib import Path
from pegel_broker import up

up.SAME_SIGNAL = 0.0
cluster = up._Cluster(Path(sys.argv[1]), None, "info", "text")
ready = os.pipe()
pid = os.fork()
if pid == 0:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"asked\\n"))
    os.write(ready[1], b"x")
    while True:
        time.sleep(60)
os.read(ready[0], 1)
cluster._children[1] = up._Child(1, pid, -1)
print(pid, flush=True)
cluster._wait(None)
cluster._stop()
"""


def test_a_second_ctrl_c_does_not_wait_for_a_node_that_does_not_stop(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _STUBBORN, str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "asked\n"
    assert not _is_gone(pid)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=WAIT)
    assert "node 1 did not stop" in err
    assert _is_gone(pid)
