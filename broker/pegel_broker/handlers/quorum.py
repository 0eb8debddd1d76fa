"""DescribeQuorum, AddRaftVoter, RemoveRaftVoter (KIP-595, KIP-853): any broker asks the leader."""

from __future__ import annotations

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.add_raft_voter import AddRaftVoterRequest, AddRaftVoterResponse
from pegel.protocol.messages.describe_quorum import (
    DescribeQuorumRequest,
    DescribeQuorumResponse,
    Listener,
    Node,
    QuorumPartitionData,
    QuorumTopicData,
    ReplicaState,
)
from pegel.protocol.messages.remove_raft_voter import (
    RemoveRaftVoterRequest,
    RemoveRaftVoterResponse,
)
from pegel_broker.handlers.context import Request
from pegel_broker.handlers.registry import handles
from pegel_broker.handlers.topics import ask
from pegel_controller.rpc import messages as m
from pegel_controller.rpc.quorum_messages import (
    AddVoterRequest,
    ChangeVoterResponse,
    RemoveVoterRequest,
)

METADATA_TOPIC = "__cluster_metadata"
LISTENER = "CONTROLLER"
DESCRIBE_TIMEOUT_MS = 10_000
REMOVE_TIMEOUT_MS = 30_000


@handles(ApiKey.DESCRIBE_QUORUM)
async def describe_quorum(request: Request) -> DescribeQuorumResponse:
    """The one partition of the metadata log; anything else is unknown."""
    message = request.message
    assert isinstance(message, DescribeQuorumRequest)
    status = await ask(
        request.broker, "status", m.StatusRequest(), DESCRIBE_TIMEOUT_MS, m.StatusResponse
    )
    if isinstance(status, ErrorCode):
        return DescribeQuorumResponse(error_code=status, error_message=status.message)
    wall_ms = request.broker.world.clock.wall_ms()
    topics = []
    for topic in message.topics:
        partitions = [
            _partition(status, p.partition_index, wall_ms)
            if (topic.topic_name, p.partition_index) == (METADATA_TOPIC, 0)
            else QuorumPartitionData(
                partition_index=p.partition_index,
                error_code=ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
                error_message=ErrorCode.UNKNOWN_TOPIC_OR_PARTITION.message,
            )
            for p in topic.partitions
        ]
        topics.append(QuorumTopicData(topic_name=topic.topic_name, partitions=partitions))
    return DescribeQuorumResponse(
        topics=topics,
        nodes=[
            Node(node_id=v.node_id, listeners=[Listener(name=LISTENER, host=v.host, port=v.port)])
            for v in status.voters
            if v.port >= 0
        ],
    )


def _partition(status: m.StatusResponse, number: int, wall_ms: int) -> QuorumPartitionData:
    # Offsets are those of a next entry, as everywhere in Kafka; indexes are of the last one.
    return QuorumPartitionData(
        partition_index=number,
        leader_id=status.leader_id,
        leader_epoch=status.term,
        high_watermark=status.commit_index + 1,
        current_voters=[_replica(v, status.leader_id, wall_ms) for v in status.voters],
        observers=[_replica(v, status.leader_id, wall_ms) for v in status.observers],
    )


def _replica(voter: m.VoterStatus, leader_id: int, wall_ms: int) -> ReplicaState:
    fetched, caught_up = (
        -1 if ago < 0 else wall_ms - ago for ago in (voter.last_heard_ms, voter.last_caught_up_ms)
    )
    return ReplicaState(
        replica_id=voter.node_id,
        log_end_offset=-1 if voter.log_end_index < 0 else voter.log_end_index + 1,
        last_fetch_timestamp=-1 if voter.node_id == leader_id else fetched,
        last_caught_up_timestamp=caught_up,
    )


@handles(ApiKey.ADD_RAFT_VOTER)
async def add_raft_voter(request: Request) -> AddRaftVoterResponse:
    """Always answered after the change is committed, whatever ``ack_when_committed`` says."""
    message = request.message
    assert isinstance(message, AddRaftVoterRequest)
    if message.voter_id < 0 or not message.listeners:
        code = ErrorCode.INVALID_REQUEST
        why = "A controller needs an id and the address of a listener."
        return AddRaftVoterResponse(error_code=code, error_message=why)
    listener = message.listeners[0]
    asked = AddVoterRequest(
        message.voter_id, listener.host, listener.port, message.cluster_id, message.timeout_ms
    )
    answer = await ask(request.broker, "add_voter", asked, message.timeout_ms, ChangeVoterResponse)
    if isinstance(answer, ErrorCode):
        return AddRaftVoterResponse(error_code=answer, error_message=answer.message)
    return AddRaftVoterResponse(error_code=answer.error, error_message=answer.message or None)


@handles(ApiKey.REMOVE_RAFT_VOTER)
async def remove_raft_voter(request: Request) -> RemoveRaftVoterResponse:
    message = request.message
    assert isinstance(message, RemoveRaftVoterRequest)
    asked = RemoveVoterRequest(message.voter_id, message.cluster_id, REMOVE_TIMEOUT_MS)
    answer = await ask(
        request.broker, "remove_voter", asked, REMOVE_TIMEOUT_MS, ChangeVoterResponse,
        # A leader that is to be removed hands over first, and its connections break.
        retry_sent=True,
    )  # fmt: skip
    if isinstance(answer, ErrorCode):
        return RemoveRaftVoterResponse(error_code=answer, error_message=answer.message)
    return RemoveRaftVoterResponse(error_code=answer.error, error_message=answer.message or None)
