"""Controllers that join and leave a running cluster (KIP-853), over real sockets."""

from __future__ import annotations

from pathlib import Path

import pytest

from pegel.protocol.errors import ErrorCode
from pegel_controller.node import ControllerNode, Controllers
from pegel_controller.raft.options import RaftOptions
from pegel_controller.rpc import messages as m
from pegel_controller.rpc.channel import ControllerChannel
from pegel_controller.rpc.framing import RpcRefusedError
from pegel_controller.rpc.hello import ROLE_CONTROLLER, HelloRequest
from pegel_controller.rpc.quorum_messages import (
    AddVoterRequest,
    ChangeVoterResponse,
    RemoveVoterRequest,
)
from tests.controller.node.test_node import Cluster, _free_ports, _world, run, until

WAIT = 30.0


async def start_joining(cluster: Cluster, node_id: int, port: int) -> ControllerNode:
    """A controller that the running ones do not know yet."""
    told: list[Controllers] = []
    node = ControllerNode(
        _world(node_id), node_id, str(cluster.path / str(node_id)), cluster.voters,
        raft_options=cluster.options,
        address=("127.0.0.1", port), on_controllers=told.append,
    )  # fmt: skip
    node.told = told  # type: ignore[attr-defined]
    cluster.nodes[node_id] = node
    await node.start()
    return node


async def change(
    channel: ControllerChannel, request: AddVoterRequest | RemoveVoterRequest
) -> ChangeVoterResponse:
    method = "add_voter" if isinstance(request, AddVoterRequest) else "remove_voter"
    response = await channel.call(method, request, WAIT)
    assert isinstance(response, ChangeVoterResponse)
    return response


async def status(channel: ControllerChannel) -> m.StatusResponse:
    response = await channel.call("status", m.StatusRequest(), WAIT)
    assert isinstance(response, m.StatusResponse)
    return response


def voters(found: m.StatusResponse) -> list[int]:
    return sorted(voter.node_id for voter in found.voters)


def test_a_controller_joins_votes_and_leads_when_the_others_leave(tmp_path: Path) -> None:
    async def test(cluster: Cluster) -> None:
        broker = await cluster.broker(10)
        channel = broker.channel
        (port,) = _free_ports(1)
        new = await start_joining(cluster, 4, port)
        assert voters(await status(channel)) == [1, 2, 3]
        answer = await change(channel, AddVoterRequest(4, "127.0.0.1", port))
        assert (answer.error, answer.message) == (0, "")
        found = await status(channel)
        assert voters(found) == [1, 2, 3, 4]
        joined = next(voter for voter in found.voters if voter.node_id == 4)
        assert (joined.host, joined.port) == ("127.0.0.1", port)
        assert joined.last_heard_ms >= 0
        assert joined.last_caught_up_ms >= 0
        await until(lambda: new.image.controllers == {4: ("127.0.0.1", port)}, "it is told")
        again = await change(channel, AddVoterRequest(4, "127.0.0.1", port))
        assert again.error == ErrorCode.DUPLICATE_VOTER
        assert "voters are 1, 2, 3, 4" in again.message
        assert [o.node_id for o in found.observers] == [10], "brokers follow, and do not vote"
        channel.set_controllers(new.controllers)
        for gone in (1, 2, 3):
            answer = await change(channel, RemoveVoterRequest(gone))
            assert (answer.error, answer.message) == (0, ""), gone
            await cluster.nodes.pop(gone).close()
        assert voters(await status(channel)) == [4]
        assert new.active
        last = await change(channel, RemoveVoterRequest(4))
        assert last.error == ErrorCode.INVALID_REQUEST
        assert "is the last one: add another controller first" in last.message
        unknown = await change(channel, RemoveVoterRequest(1))
        assert unknown.error == ErrorCode.VOTER_NOT_FOUND

    run(tmp_path, test)


def test_one_that_does_not_run_is_refused_and_leaves_no_trace(tmp_path: Path) -> None:
    async def test(cluster: Cluster) -> None:
        active = await cluster.active()
        channel = (await cluster.broker(10)).channel
        (port,) = _free_ports(1)
        request = AddVoterRequest(4, "127.0.0.1", port, timeout_ms=200)
        answer = await change(channel, request)
        assert answer.error == ErrorCode.REQUEST_TIMED_OUT
        assert "is it running there" in answer.message
        assert voters(await status(channel)) == [1, 2, 3]
        assert active.status().learners == ()
        assert active.image.controllers == {4: None}
        other = await change(channel, RemoveVoterRequest(2, cluster_id="another"))
        assert other.error == ErrorCode.INCONSISTENT_CLUSTER_ID

    run(tmp_path, test)


def test_a_removal_that_would_cost_the_quorum_names_whom_to_remove(tmp_path: Path) -> None:
    async def test(cluster: Cluster) -> None:
        active = await cluster.active()
        channel = (await cluster.broker(10)).channel
        dead, alive = sorted({1, 2, 3} - {active.node_id})
        await cluster.kill(dead)
        await until(lambda: not active.links.connected(dead), "the connection breaks")
        answer = await change(channel, RemoveVoterRequest(alive))
        assert answer.error == ErrorCode.INVALID_REQUEST
        assert f"remove {dead} instead" in answer.message
        answer = await change(channel, RemoveVoterRequest(dead))
        assert answer.error == 0
        assert voters(await status(channel)) == sorted({active.node_id, alive})

    run(tmp_path, test)


def test_one_that_has_just_died_does_not_count_for_a_removal(tmp_path: Path) -> None:
    """It was heard a moment ago, and its connection still stands. What was left had no quorum."""

    async def test(cluster: Cluster) -> None:
        active = await cluster.active()
        channel = (await cluster.broker(10)).channel
        dead, alive = sorted({1, 2, 3} - {active.node_id})
        silent = cluster.nodes[dead]
        silent.on_raft_message = lambda peer_id, payload: None  # type: ignore[method-assign]
        assert active.links.connected(dead)
        answer = await change(channel, RemoveVoterRequest(alive))
        assert answer.error == ErrorCode.INVALID_REQUEST
        assert f"remove {dead} instead" in answer.message
        assert not (await change(channel, RemoveVoterRequest(dead))).error

    run(tmp_path, test)


def test_who_joined_is_known_after_a_restart_of_all(tmp_path: Path) -> None:
    """Three of four are needed then: the configuration alone names but three."""

    async def test(cluster: Cluster) -> None:
        cluster.options = RaftOptions()
        channel = (await cluster.broker(10)).channel
        (port,) = _free_ports(1)
        await start_joining(cluster, 4, port)
        assert not (await change(channel, AddVoterRequest(4, "127.0.0.1", port))).error
        for node_id in (1, 2, 3, 4):
            node = cluster.nodes[node_id]
            await until(lambda n=node: 4 in n.image.controllers, "all have it")  # type: ignore[misc]
        for node_id in (1, 2, 3, 4):
            await cluster.nodes.pop(node_id).close()
        for node_id in (1, 2, 3):
            await cluster.start(node_id)
        await start_joining(cluster, 4, port)
        active = await cluster.active()
        assert sorted(active.status().voters) == [1, 2, 3, 4]

    run(tmp_path, test)


async def _lead(cluster: Cluster, node_id: int) -> None:
    await (await cluster.active()).raft.transfer_leadership(node_id)
    await until(lambda: cluster.nodes[node_id].active, f"{node_id} leads")


def test_one_that_was_away_follows_a_leader_that_joined_meanwhile(tmp_path: Path) -> None:
    """It refused the leader as a stranger, and did not know where to answer it: for ever."""

    async def test(cluster: Cluster) -> None:
        active = await cluster.active()
        channel = (await cluster.broker(10)).channel
        away = min({1, 2, 3} - {active.node_id})
        await cluster.nodes.pop(away).close()
        (port,) = _free_ports(1)
        leader = await start_joining(cluster, 4, port)
        channel.set_controllers({**cluster.voters, 4: ("127.0.0.1", port)})
        assert not (await change(channel, AddVoterRequest(4, "127.0.0.1", port))).error
        await _lead(cluster, 4)
        back = await cluster.start(away)
        await until(lambda: 4 in back.image.controllers, "it hears the leader")
        await until(lambda: leader.links.connected(away), "they are connected")
        assert back.raft.leader_id == 4

    run(tmp_path, test)


def test_a_stranger_is_refused(tmp_path: Path) -> None:
    """Of another cluster, or of none, by everybody; of this one, by who knows all: the leader."""

    async def test(cluster: Cluster) -> None:
        active = await cluster.active()
        await until(lambda: bool(active.image.cluster_id), "the cluster has an id")
        ours = active.image.cluster_id
        follower = cluster.nodes[min({1, 2, 3} - {active.node_id})]
        await until(lambda: follower.image.cluster_id == ours, "it is told")
        for node, cluster_id in ((active, ours), (active, ""), (follower, ""), (follower, "no")):
            with pytest.raises(RpcRefusedError):
                node.greet(HelloRequest(9, ROLE_CONTROLLER, cluster_id))
        told = follower.greet(HelloRequest(9, ROLE_CONTROLLER, ours))
        assert (told.leader_id, told.active) == (active.node_id, False)
        assert (told.leader_host, told.leader_port) == cluster.voters[active.node_id]

    run(tmp_path, test)


def test_a_broker_that_was_away_is_told_where_the_leader_is(tmp_path: Path) -> None:
    """It knew one controller, which did not lead, and never found another."""

    async def test(cluster: Cluster) -> None:
        active = await cluster.active()
        other = min({1, 2, 3} - {active.node_id})
        known = {other: cluster.voters[other]}
        channel = ControllerChannel(_world(11), 11, known, lambda: "")
        channel.start()
        assert (await status(channel)).leader_id == active.node_id
        await channel.close()

    run(tmp_path, test)


def test_a_broker_asks_the_controllers_of_the_beginning_when_no_other_answers(
    tmp_path: Path,
) -> None:
    """They had left and come back while it was away."""

    async def test(cluster: Cluster) -> None:
        active = await cluster.active()
        (nobody,) = _free_ports(1)
        channel = ControllerChannel(_world(11), 11, cluster.voters, lambda: "")
        channel.set_controllers({9: ("127.0.0.1", nobody)})
        channel.start()
        assert (await status(channel)).leader_id == active.node_id
        await channel.close()

    run(tmp_path, test)
