"""A cluster that asks who its clients are: real processes, and what happens to them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import pegel
from pegel.admin.types import ConfigResourceType
from pegel.testing import LocalCluster

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]
PATIENCE = 20.0
OPTIONS = pegel.ClientOptions(request_timeout=PATIENCE)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(brokers=3, sasl=True) as cluster:
        yield cluster


def connect(cluster: LocalCluster, who: object = None) -> pegel.Client:
    credentials = cluster.credentials if who is None else who
    return pegel.Client(cluster.bootstrap, credentials=credentials, options=OPTIONS)  # type: ignore[arg-type]


def test_records_are_replicated_and_groups_work(cluster: LocalCluster) -> None:
    """All of the cluster's own traffic, and a client with all of its connections."""
    with connect(cluster) as client:
        client.create_topic("t", partitions=3, replication=3, config={"min.insync.replicas": 3})
        client.send_many("t", [b"%d" % i for i in range(300)])  # three in sync: followers fetch
        with client.consumer("t", group="g", offset_reset="earliest") as consumer:
            seen = 0
            while seen < 300:
                batch = consumer.next_batch(timeout=PATIENCE)
                assert batch is not None
                seen += len(batch)
    for kind in (pegel.Plain, pegel.Scram256, pegel.Scram512):
        own = cluster.credentials
        with connect(cluster, kind(own.user, own.password)) as client:
            assert client.admin.describe_topic("t").partitions


@pytest.mark.parametrize("kind", [pegel.Plain, pegel.Scram256, pegel.Scram512])
@pytest.mark.parametrize(("user", "password"), [("admin", "hunter2"), ("nobody", "hunter2")])
def test_wrong_credentials_fail_every_call_at_once(
    cluster: LocalCluster, kind: type, user: str, password: str
) -> None:
    """Well within the time-out of an hour; in one line that says where, who and how."""
    options = pegel.ClientOptions(request_timeout=3600, connect_timeout=3600)
    with pegel.Client(
        cluster.bootstrap, credentials=kind(user, password), options=options
    ) as client:
        calls = [
            client.admin.list_topics,
            lambda: client.send("t", b"x"),
            lambda: client.send_many("t", [b"x"]),
            lambda: client.consumer("t", offset_reset="earliest").next_batch(timeout=3600),
            lambda: client.consumer("t", group="h").next_batch(timeout=3600),
            lambda: client.admin.describe_groups(["g"]),
            client.admin.describe_users,
        ]
        for call in calls:
            with pytest.raises(pegel.AuthenticationError) as raised:
                call()
            text = str(raised.value)
            assert not raised.value.retriable
            assert raised.value.code is pegel.ErrorCode.SASL_AUTHENTICATION_FAILED
            assert any(address in text for address in cluster.bootstrap.split(","))
            assert f"user {user!r} ({kind.mechanism})" in text  # type: ignore[attr-defined]
            assert "check the user and the password" in text
            assert password not in text
    assert password not in repr(kind(user, password))


def test_no_credentials_fail_within_the_time_out_and_say_what_is_missing(
    cluster: LocalCluster,
) -> None:
    options = pegel.ClientOptions(request_timeout=0.5)
    with (
        pegel.Client(cluster.bootstrap, options=options) as client,
        pytest.raises(pegel.ConnectionFailedError, match="if it wants credentials, give them"),
    ):
        client.admin.list_topics()


def test_credentials_change_while_the_cluster_runs(cluster: LocalCluster) -> None:
    """What is answered holds on every broker."""
    with connect(cluster) as admin:
        admin.admin.set_user("alice", "first")
        with connect(cluster, pegel.Scram256("alice", "first")) as client:
            client.admin.list_topics()
        admin.admin.set_user("alice", "second", iterations=8192)
        for address in cluster.bootstrap.split(","):
            with pegel.Client(address, credentials=pegel.Plain("alice", "second")) as client:
                client.admin.list_topics()
            with (
                pegel.Client(address, credentials=pegel.Scram512("alice", "first")) as client,
                pytest.raises(pegel.AuthenticationError),
            ):
                client.admin.list_topics()
        users = {u.name: u.credentials for u in admin.admin.describe_users()}
        assert [c.iterations for c in users["alice"]] == [8192, 8192]
        admin.admin.delete_user("alice")
        with pytest.raises(pegel.BrokerError, match="there is no such user"):
            admin.admin.delete_user("alice")
        with pytest.raises(ValueError, match="not every client sends alike"):
            admin.admin.set_user("alice", "\ufb01")
        with (
            connect(cluster, pegel.Scram512("alice", "second")) as gone,
            pytest.raises(pegel.AuthenticationError),
        ):
            gone.admin.list_topics()


def test_a_producer_that_is_no_user_any_more_is_told_so_when_it_has_to_connect(
    cluster: LocalCluster,
) -> None:
    """Not after two minutes of delivery time-out."""
    with connect(cluster) as admin:
        admin.create_topic("u", partitions=1, replication=3)
        admin.admin.set_user("leaver", "first")
        with connect(cluster, pegel.Scram256("leaver", "first")) as leaver:
            leaver.send("u", b"1")
            admin.admin.delete_user("leaver")
            leader = cluster.leader_of("u", 0)
            cluster.kill(leader)
            with pytest.raises(pegel.AuthenticationError):
                leaver.send("u", b"2", timeout=60.0)
        cluster.restart(leader)


def test_they_survive_the_controller_and_every_node(tmp_path: Path) -> None:
    """A failover, then all nodes killed at once: users and the brokers' secret are metadata."""
    with LocalCluster(brokers=3, data_dir=tmp_path / "c", sasl=True) as cluster:
        with connect(cluster) as client:
            client.create_topic("t", replication=3, config={"min.insync.replicas": 2})
            client.admin.set_user("alice", "first")
            client.admin.delete_user("admin")  # must not come back from the file
        alice = pegel.Scram512("alice", "first")
        active = cluster.active_controller()
        cluster.kill(active)
        with connect(cluster, alice) as client:
            client.send("t", b"one")
        cluster.restart(active)
        cluster.kill_all()
        cluster.restart(1, 2, 3)
        with connect(cluster, alice) as client:
            assert [u.name for u in client.admin.describe_users()] == ["alice"]
            client.send("t", b"two")
        with connect(cluster) as admin, pytest.raises(pegel.AuthenticationError):
            admin.admin.list_topics()
        secrets = [
            p for p in (tmp_path / "c").rglob("*") if p.is_file() and p.parent.name == "raft"
        ]
        assert secrets
        assert all(p.stat().st_mode & 0o077 == 0 for p in secrets)


def test_data_is_for_the_user_of_the_node_alone(tmp_path: Path) -> None:
    """Arbiters ask nobody who they are, and hold the brokers' secret; and so may older files."""

    def open_to_others() -> list[Path]:
        found = []
        for node in (1, 2):
            home = tmp_path / "c" / f"node-{node}"
            found += [*home.glob("*"), *home.glob("*/**/*")]
        assert {p.name for p in found if p.parent.name == "raft"}
        own = {"node.log", "server.properties"}  # made by `pegel up`: no secrets
        return [p for p in found if p.stat().st_mode & 0o077 and p.name not in own]

    def start() -> LocalCluster:
        return LocalCluster(brokers=1, arbiters=1, data_dir=tmp_path / "c", sasl=True)

    before = os.umask(0o022)
    try:
        with start() as cluster:
            with connect(cluster) as client:
                client.create_topic("t")
                client.send("t", b"x")
            assert open_to_others() == []
        for path in (tmp_path / "c").glob("node-*/raft/**/*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        assert open_to_others()
        with start() as cluster, connect(cluster):
            assert open_to_others() == []
    finally:
        os.umask(before)


def test_a_client_outlives_its_sessions() -> None:
    """KIP-368: connections are replaced before their session ends; nothing fails meanwhile."""
    with (
        LocalCluster(
            brokers=1, sasl=True, settings={"connections.max.reauth.ms": "700"}
        ) as cluster,
        connect(cluster) as client,
    ):
        client.create_topic("t")
        ends = time.monotonic() + 2.5
        sent = 0
        with client.consumer("t", offset_reset="earliest") as consumer:
            while time.monotonic() < ends:
                client.send("t", b"%d" % sent)
                sent += 1
                batch = consumer.next_batch(timeout=PATIENCE)
                assert batch is not None
        log = cluster.log_of(1)
        assert "after its session ended" not in log


def test_commands_log_in(cluster: LocalCluster, tmp_path: Path) -> None:
    def pegel_command(*arguments: str, stdin: str = "", **variables: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "pegel", *arguments], input=stdin, capture_output=True,
            text=True, timeout=60, check=False,
            env={"PATH": os.environ["PATH"], "PEGEL_BOOTSTRAP": cluster.bootstrap, **variables},
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    own = cluster.credentials
    admin = {"PEGEL_USER": own.user, "PEGEL_PASSWORD": own.password}
    assert pegel_command("users", "add", "carol", stdin="pass word\n", **admin) == (
        0, "user carol can log in\n", "",
    )  # fmt: skip
    code, out, _ = pegel_command("users", "list", "--json", **admin)
    assert code == 0
    assert '"user": "carol"' in out
    (tmp_path / "right").write_text("pass word\nand more\n")
    (tmp_path / "wrong").write_text("hunter2\n")
    (tmp_path / "empty").write_text("\n")
    for more in ([], ["--mechanism", "plain"], ["--mechanism", "SCRAM-SHA-256"]):
        code, _, err = pegel_command(
            "topics", "list", "--user", "carol", "--password-file", str(tmp_path / "right"), *more
        )
        assert (code, err) == (0, "")
    code, _, err = pegel_command(
        "topics", "list", "--user", "carol", "--password-file", str(tmp_path / "wrong")
    )
    assert code == 1
    assert err.count("\n") == 1
    assert "refused user 'carol' (SCRAM-SHA-512)" in err
    assert "hunter2" not in err
    code, _, err = pegel_command("topics", "list", "--user", "carol")
    assert code == 2
    assert "--password-file" in err
    code, _, err = pegel_command("topics", "list", "--password-file", str(tmp_path / "right"))
    assert (code, "--user" in err) == (2, True)
    code, _, err = pegel_command(
        "topics", "list", "--user", "carol", "--password-file", str(tmp_path / "empty")
    )
    assert (code, "is empty" in err) == (2, True)
    assert pegel_command("users", "delete", "carol", **admin) == (0, "user carol is gone\n", "")
    code, _, err = pegel_command("users", "delete", "carol", **admin)
    assert (code, "there is no such user" in err) == (1, True)


def test_it_is_turned_on_broker_by_broker(tmp_path: Path) -> None:
    """No follower leaves the in-sync replicas for longer than its own restart."""

    def all_in_sync(cluster: LocalCluster) -> bool:
        for node_id in cluster.nodes:
            for entry in cluster.view(node_id)["broker"]["partitions"]:
                if entry["topic"] == "t" and entry["role"] == "leader":
                    return sorted(entry["isr"]) == [1, 2, 3]
        return False

    users = tmp_path / "users"
    users.write_text("alice:first\n")
    with LocalCluster(brokers=3, data_dir=tmp_path / "c") as cluster:
        with pegel.Client(cluster.bootstrap) as client:
            client.create_topic("t", replication=3, config={"min.insync.replicas": 2})
            client.send("t", b"0")
        for node_id in cluster.nodes:
            properties = cluster.nodes[node_id].data_dir / "server.properties"
            text = properties.read_text().replace("listeners=PLAINTEXT", "listeners=SASL_PLAINTEXT")
            properties.write_text(f"{text}sasl.bootstrap.users.file={users}\n")
            cluster.terminate(node_id)
            cluster.restart(node_id)
            until = time.monotonic() + PATIENCE
            while not all_in_sync(cluster):
                assert time.monotonic() < until, f"not in sync after node {node_id}"
                time.sleep(0.05)
        with connect(cluster, pegel.Scram256("alice", "first")) as client:
            client.admin.alter_config(ConfigResourceType.TOPIC, "t", {"min.insync.replicas": 3})
            client.send("t", b"1")
            with client.consumer("t", offset_reset="earliest") as consumer:
                found = [next(consumer).value for _ in range(2)]
            assert found == [b"0", b"1"]
