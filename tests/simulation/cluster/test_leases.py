"""Who gives leases: only a controller that nobody can have replaced when it was asked."""

from __future__ import annotations

import asyncio

import pytest

from pegel.protocol.errors import ErrorCode
from pegel_controller.rpc.framing import RpcRefusedError
from pegel_controller.rpc.messages import HeartbeatRequest
from tests.simulation.cluster.network import ANY_PORT
from tests.simulation.cluster.test_scripted import Story, story


def _cut_off(told: Story, node: int) -> None:
    network = told.cluster.network
    for other in told.cluster.nodes:
        if other != node:
            network.cut(f"n{node}", f"n{other}", ANY_PORT)
            network.cut(f"n{other}", f"n{node}", ANY_PORT)


def test_a_controller_that_may_have_been_replaced_gives_no_lease() -> None:
    """Between the end of its lease and its election time-out it still takes itself for active, and
    the broker beside it still asks. What it would give could reach beyond the grace of another."""
    with story() as told:
        told.pass_time(1.0)
        active = told.cluster.active_controller()
        assert active is not None
        machine = told.cluster.nodes[active]
        assert machine.node is not None
        assert machine.node.controller is not None
        assert machine.node.session is not None
        assert machine.loop is not None
        controller, session = machine.node.controller, machine.node.session
        _cut_off(told, active)
        while controller.raft.lease_valid(machine.clock.monotonic()):
            told.pass_time(0.005)
        assert controller.active
        request = HeartbeatRequest(active, session.broker_epoch, session.applied_index)

        async def ask() -> None:
            with pytest.raises(RpcRefusedError) as refused:
                await asyncio.wait_for(controller.requests.dispatch(request), 1.0)
            assert refused.value.code == ErrorCode.NOT_CONTROLLER

        told.cluster.complete(machine.loop, ask(), 2.0)
        assert not controller.active
