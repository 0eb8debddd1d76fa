"""A controller whose proposal is refused while it leads: what it has planned will never be."""

from __future__ import annotations

from dataclasses import replace

from tests.simulation.cluster.test_scripted import story


def test_a_controller_with_too_many_proposals_gives_way_and_the_cluster_goes_on() -> None:
    """It forgot its plans and went on as Raft's leader: nobody was active any more, for good."""
    with story() as told:
        active = told.cluster.active_controller()
        assert active is not None
        node = told.cluster.nodes[active].node
        assert node is not None
        assert node.controller is not None
        controller, raft = node.controller, node.controller.raft
        term, honest = raft.term, raft._options
        raft._options = replace(honest, pending_proposals_max=0)
        create = told.client.create_topic("u", partitions=1, replication=3, timeout=20.0)
        task = told.loop.start(create)
        while controller.active:
            told.pass_time(0.01)
        raft._options = honest
        told.pass_time(4.0)
        assert told.cluster.active_controller() is not None
        assert raft.term > term
        told.pass_time(20.0)
        assert task.done()
        told.write(b"after")
        told.until_healthy()
