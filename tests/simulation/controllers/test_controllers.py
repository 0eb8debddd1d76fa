"""Controllers under faults answer as one object that does one thing after the other."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pegel_controller.node import ControllerNode
from pegel_controller.rpc import messages as m
from pegel_controller.rpc.framing import RpcError
from pegel_controller.rpc.hello import ROLE_BROKER, HelloRequest, open_rpc
from tests.simulation.controllers.simulator import CONTROLLERS, MODEL, Simulation, _Owner
from tests.support.linearizability import check

SEEDS = 6


@pytest.mark.parametrize("seed", range(SEEDS))
def test_histories_are_linearizable(seed: int) -> None:
    simulation = Simulation(seed)
    try:
        history = simulation.run(8.0)
        assert not simulation.violations
        assert simulation.figures["answered"] > 50
        verdict = check(MODEL, history)
        assert verdict.linearizable, [str(operation) for operation in verdict.stuck]
    finally:
        simulation.close()


def test_the_same_seed_is_the_same_history() -> None:
    digests = set()
    for _ in range(2):
        simulation = Simulation(3)
        simulation.run(3.0)
        digests.add(simulation.trace.digest)
        simulation.close()
    assert len(digests) == 1


def test_a_deposed_controller_tells_nothing_of_what_it_no_longer_knows() -> None:
    """The old one leads a term that is over, and is asked for what the new one has changed."""
    simulation = Simulation(0, faults=False)
    for n in CONTROLLERS:
        simulation.start_controller(n)
    for n in simulation.brokers:
        simulation.start_broker(n)
    simulation._until(lambda: all(b.unfenced for b in simulation.brokers.values()), "brokers")
    machine = simulation._machine("w")
    loop = machine.new_loop()
    world = machine.new_world(loop)

    async def ask(n: int, method: str, request: Any) -> list[object]:
        greeting = HelloRequest(100, ROLE_BROKER)
        connection, _hello = await open_rpc(world.network, _Owner(), CONTROLLERS[n], greeting, 1.0)
        try:
            async with asyncio.timeout(3.0):
                return await connection.call(method, request.to_wire())
        finally:
            connection.drop("asked")

    def until_done(work: Any) -> Any:
        task = loop.start(work)
        simulation._until(task.done, "an answer")
        return task

    def active() -> list[tuple[int, ControllerNode]]:
        return [(n, node) for n, node in sorted(simulation.nodes.items()) if node.active]

    old = active()[0][0]
    create = m.CreateTopicsRequest((m.CreatableTopic("a", 1, 2),), timeout_ms=0)
    until_done(ask(old, "create_topics", create)).result()
    for n in CONTROLLERS:
        if n != old:
            simulation.network.cut(f"c{old}", f"c{n}")
            simulation.network.cut(f"c{n}", f"c{old}")
    simulation._until(lambda: any(n != old for n, _node in active()), "a successor")
    new = next(n for n, _node in active() if n != old)
    delete = m.DeleteTopicsRequest((m.DeletableTopic("a"),), timeout_ms=0)
    until_done(ask(new, "delete_topics", delete)).result()
    assert len(active()) == 2, "the old one does not know yet"
    again = until_done(ask(old, "create_topics", create))
    with pytest.raises((RpcError, TimeoutError)):
        again.result()
    simulation.close()
