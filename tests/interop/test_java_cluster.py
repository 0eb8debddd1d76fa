"""Apache Kafka's own tools for moves of replicas, elections and the quorum, unchanged."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pegel import Client
from pegel.testing import LocalCluster
from tests.interop.test_java_tools import pytestmark as java_marks
from tests.interop.test_java_tools import tool, topics

pytestmark = java_marks


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(brokers=4) as cluster:
        yield cluster


def reassign(cluster: LocalCluster, plan: Path, *arguments: str) -> str:
    return tool(
        "reassign.ReassignPartitionsCommand", "--bootstrap-server", cluster.bootstrap,
        "--reassignment-json-file", str(plan), *arguments,
    )  # fmt: skip


def until(condition: object, what: str) -> str:
    """Ask a tool again until it says so."""
    assert callable(condition)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return str(found)
    raise AssertionError(what)


def test_reassign_partitions_executes_verifies_throttles_lists_and_cancels(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    topics(cluster, "--create", "--topic", "moving", "--replica-assignment", "1:2:3")
    plan = tmp_path / "plan.json"
    partition = {"topic": "moving", "partition": 0, "replicas": [4, 2, 3]}
    plan.write_text(json.dumps({"version": 1, "partitions": [partition]}))
    said = reassign(cluster, plan, "--execute", "--throttle", "50000000")
    assert "Successfully started partition reassignment for moving-0" in said
    assert "The inter-broker throttle limit was set to 50000000 B/s" in said

    def verified() -> str:
        said = reassign(cluster, plan, "--verify")
        return said if "moving-0 is completed" in said else ""

    said = until(verified, "the move does not end")
    assert "Clearing broker-level throttles" in said
    assert "Clearing topic-level throttles" in said
    described = topics(cluster, "--describe", "--topic", "moving")
    assert re.search(r"Replicas: 4,2,3\s", described), described
    said = tool(
        "reassign.ReassignPartitionsCommand", "--bootstrap-server", cluster.bootstrap, "--list"
    )
    assert "No partition reassignments found" in said
    # At a thousand bytes a second this one takes hours: it is listed, and cancelled.
    with Client(cluster.bootstrap) as client:
        for _ in range(4):
            client.send_many("moving", [b"x" * 1000] * 1000, partition=0)
    partition["replicas"] = [2, 3, 1]
    plan.write_text(json.dumps({"version": 1, "partitions": [partition]}))
    reassign(cluster, plan, "--execute", "--throttle", "1000")
    said = tool(
        "reassign.ReassignPartitionsCommand", "--bootstrap-server", cluster.bootstrap, "--list"
    )
    assert "moving-0: replicas: 2,3,1,4. adding: 1. removing: 4." in said
    said = reassign(cluster, plan, "--cancel")
    assert "Successfully cancelled partition reassignment for: moving-0" in said
    described = topics(cluster, "--describe", "--topic", "moving")
    assert re.search(r"Replicas: 4,2,3\s", described), described


def test_leader_election_gives_leadership_to_the_preferred_replica(cluster: LocalCluster) -> None:
    topics(cluster, "--create", "--topic", "elected", "--replica-assignment", "2:3")
    arguments = ("--bootstrap-server", cluster.bootstrap, "--election-type", "preferred")
    said = tool("LeaderElectionCommand", *arguments, "--topic", "elected", "--partition", "0")
    assert "Valid replica already elected for partitions elected-0" in said
    tool("LeaderElectionCommand", *arguments, "--all-topic-partitions")


def test_metadata_quorum_describes_removes_and_knows_the_last_voters(
    cluster: LocalCluster,
) -> None:
    bootstrap = ("--bootstrap-server", cluster.bootstrap)
    status = tool("MetadataQuorumCommand", *bootstrap, "describe", "--status")
    assert re.search(r"LeaderId:\s+[1-4]\n", status), status
    assert re.search(r"MaxFollowerLag:\s+\d+\n", status), status
    assert "ClusterId" in status
    replication = tool("MetadataQuorumCommand", *bootstrap, "describe", "--replication")
    states = re.findall(r"^(\d).*\s(Leader|Follower)\s*$", replication, re.MULTILINE)
    assert sorted(node for node, _ in states) == ["1", "2", "3", "4"], replication
    leader = next(node for node, state in states if state == "Leader")
    said = tool(
        "MetadataQuorumCommand", *bootstrap, "remove-controller", "--controller-id", leader,
        "--controller-directory-id", "AAAAAAAAAAAAAAAAAAAAAA",
    )  # fmt: skip
    assert re.search(rf"Removed +KRaft controller {leader} ", said), said
    replication = tool("MetadataQuorumCommand", *bootstrap, "describe", "--replication")
    states = re.findall(r"^(\d).*\s(Leader|Follower|Observer)\s*$", replication, re.MULTILINE)
    assert (leader, "Observer") in states, replication
    with pytest.raises(AssertionError, match="VoterNotFound"):
        tool("MetadataQuorumCommand", *bootstrap, "remove-controller", "--controller-id", "9",
             "--controller-directory-id", "AAAAAAAAAAAAAAAAAAAAAA")  # fmt: skip
