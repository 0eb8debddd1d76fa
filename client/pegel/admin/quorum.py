"""Who votes on the metadata, and changing that (KIP-595, KIP-853)."""

from __future__ import annotations

from pegel.admin.base import AdminBase, brokers_share_ms
from pegel.admin.types import QuorumDescription, QuorumReplica
from pegel.errors import broker_error
from pegel.protocol.messages.add_raft_voter import (
    AddRaftVoterRequest,
    AddRaftVoterResponse,
    Listener,
)
from pegel.protocol.messages.describe_quorum import (
    DescribeQuorumRequest,
    DescribeQuorumResponse,
    PartitionData,
    ReplicaState,
    TopicData,
)
from pegel.protocol.messages.remove_raft_voter import (
    RemoveRaftVoterRequest,
    RemoveRaftVoterResponse,
)

METADATA_TOPIC = "__cluster_metadata"
CONTROLLER_LISTENER = "CONTROLLER"


class QuorumAdmin(AdminBase):
    """The part of ``Admin`` about controllers."""

    async def describe_quorum(self, *, timeout: float | None = None) -> QuorumDescription:
        """The controllers, how far each has followed, and who leads them.

        Raises:
            BrokerError: no controller leads, for example.
        """
        request = DescribeQuorumRequest(
            topics=[
                TopicData(topic_name=METADATA_TOPIC, partitions=[PartitionData(partition_index=0)])
            ]
        )
        response = await self._cluster.ask_any(
            request, DescribeQuorumResponse, timeout=self._timeout(timeout)
        )
        found = [p for t in response.topics for p in t.partitions]
        code = response.error_code or (found[0].error_code if found else 0)
        if code or not found:
            raise broker_error(code, "quorum", response.error_message)
        addresses = {
            node.node_id: f"{listener.host}:{listener.port}"
            for node in response.nodes
            for listener in node.listeners[:1]
        }

        def shown(replica: ReplicaState) -> QuorumReplica:
            return QuorumReplica(
                replica.replica_id,
                addresses.get(replica.replica_id),
                replica.log_end_offset,
                replica.last_fetch_timestamp,
                replica.last_caught_up_timestamp,
            )

        p = found[0]
        return QuorumDescription(
            p.leader_id, p.leader_epoch, p.high_watermark,
            tuple(shown(v) for v in p.current_voters), tuple(shown(o) for o in p.observers),
        )  # fmt: skip

    async def add_controller(
        self, node_id: int, host: str, port: int, *, timeout: float | None = None
    ) -> None:
        """Have a controller vote that runs already, and listens for others at ``host:port``.

        Returns once the change is committed.

        Raises:
            BrokerError: it votes already, or did not catch up with the others in time.
        """
        wait = self._timeout(timeout)
        request = AddRaftVoterRequest(
            timeout_ms=brokers_share_ms(wait),
            voter_id=node_id,
            listeners=[Listener(name=CONTROLLER_LISTENER, host=host, port=port)],
        )
        response = await self._cluster.ask_any(request, AddRaftVoterResponse, timeout=wait)
        if response.error_code:
            what = f"controller {node_id}"
            raise broker_error(response.error_code, what, response.error_message)

    async def remove_controller(self, node_id: int, *, timeout: float | None = None) -> None:
        """Have a controller vote no more. The last one, or one too many, is refused.

        Raises:
            BrokerError: with what would be possible.
        """
        response = await self._cluster.ask_any(
            RemoveRaftVoterRequest(voter_id=node_id), RemoveRaftVoterResponse,
            timeout=self._timeout(timeout),
        )  # fmt: skip
        if response.error_code:
            what = f"controller {node_id}"
            raise broker_error(response.error_code, what, response.error_message)
