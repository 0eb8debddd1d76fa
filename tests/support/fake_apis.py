"""The answers of ``fake_broker``, one function for each API; ``error`` forces one everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages import create_partitions as grow
from pegel.protocol.messages import create_topics as create
from pegel.protocol.messages import delete_topics as delete
from pegel.protocol.messages import describe_cluster as cluster_api
from pegel.protocol.messages import describe_configs as configs
from pegel.protocol.messages import elect_leaders as elect
from pegel.protocol.messages import fetch, list_offsets, metadata, produce
from pegel.protocol.messages import incremental_alter_configs as alter
from pegel.protocol.messages import init_producer_id as init
from pegel.protocol.messages import list_partition_reassignments as moves
from pegel.protocol.messages import offset_for_leader_epoch as epochs
from pegel.protocol.schema import Message
from pegel.record import decode_batch
from tests.support import fake_group as group

if TYPE_CHECKING:
    from tests.support.fake_broker import FakeCluster
    from tests.support.fake_partition import FakePartition

_HIGHEST_TOPIC_NAME_VERSION = 12


def _partition(
    cluster: FakeCluster, node_id: int, topic: Any, index: int
) -> tuple[ErrorCode, FakePartition | None]:
    if topic is None:
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, None
    if not 0 <= index < len(topic.partitions):
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, None
    partition = topic.partitions[index]
    if partition.leader != node_id:
        return ErrorCode.NOT_LEADER_OR_FOLLOWER, partition
    return ErrorCode.NONE, partition


def on_metadata(
    cluster: FakeCluster, node_id: int, message: Message, version: int, error: int = 0
) -> Message:
    assert isinstance(message, metadata.MetadataRequest)
    names = sorted(cluster.topics) if message.topics is None else [t.name for t in message.topics]
    topics: list[metadata.MetadataResponseTopic] = []
    for name in names:
        assert name is not None
        topic = cluster.topics.get(name)
        if error or topic is None:
            code = error or ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            topics.append(metadata.MetadataResponseTopic(error_code=code, name=name))
            continue
        live = sorted(n for n, b in cluster.brokers.items() if b.alive)
        partitions = [
            metadata.MetadataResponsePartition(
                partition_index=i, leader_id=p.leader, leader_epoch=p.leader_epoch,
                replica_nodes=sorted(cluster.brokers),
                isr_nodes=[n for n in live if n not in p.adding],
            )
            for i, p in enumerate(topic.partitions)
        ]  # fmt: skip
        topics.append(
            metadata.MetadataResponseTopic(
                name=name, topic_id=topic.topic_id, partitions=partitions
            )
        )
    brokers = [
        metadata.MetadataResponseBroker(node_id=n, host="127.0.0.1", port=b.port)
        for n, b in sorted(cluster.brokers.items())
        if b.alive
    ]
    return metadata.MetadataResponse(
        brokers=brokers, cluster_id="fake", controller_id=cluster.controller_id, topics=topics
    )


def on_produce(
    cluster: FakeCluster, node_id: int, message: Message, version: int, error: int = 0
) -> Message | None:
    assert isinstance(message, produce.ProduceRequest)
    response = produce.ProduceResponse()
    for data in message.topic_data:
        _, topic = cluster.topic_by(data.name, data.topic_id)
        out = produce.TopicProduceResponse(name=data.name, topic_id=data.topic_id)
        for item in data.partition_data:
            code, partition = _partition(cluster, node_id, topic, item.index)
            answer = produce.PartitionProduceResponse(index=item.index, base_offset=-1)
            if error or code:
                answer.error_code = error or code
                if code is ErrorCode.NOT_LEADER_OR_FOLLOWER and partition is not None:
                    answer.current_leader = produce.LeaderIdAndEpoch(
                        leader_id=partition.leader, leader_epoch=partition.leader_epoch
                    )
                    broker = cluster.brokers[partition.leader]
                    response.node_endpoints.append(
                        produce.NodeEndpoint(
                            node_id=partition.leader, host="127.0.0.1", port=broker.port
                        )
                    )
            else:
                assert partition is not None
                assert isinstance(item.records, bytes | bytearray | memoryview)
                answer.error_code, answer.base_offset = partition.append(item.records)
            out.partition_responses.append(answer)
        response.responses.append(out)
    return None if message.acks == 0 else response


def on_fetch(
    cluster: FakeCluster, node_id: int, message: Message, version: int, error: int = 0
) -> Message:
    """Without sessions: every answer has session id 0, which is legal."""
    assert isinstance(message, fetch.FetchRequest)
    response = fetch.FetchResponse()
    for wanted in message.topics:
        _, topic = cluster.topic_by(wanted.topic, wanted.topic_id)
        out = fetch.FetchableTopicResponse(topic=wanted.topic, topic_id=wanted.topic_id)
        for item in wanted.partitions:
            code, partition = _partition(cluster, node_id, topic, item.partition)
            data = fetch.PartitionData(
                partition_index=item.partition, error_code=error or code, records=b""
            )
            if not data.error_code:
                assert partition is not None
                end = partition.log_end_offset
                data.high_watermark = data.last_stable_offset = end
                data.log_start_offset = partition.log_start_offset
                if not partition.log_start_offset <= item.fetch_offset <= end:
                    data.error_code = ErrorCode.OFFSET_OUT_OF_RANGE
                elif 0 <= item.current_leader_epoch < partition.leader_epoch:
                    data.error_code = ErrorCode.FENCED_LEADER_EPOCH
                else:
                    limit = min(item.partition_max_bytes, message.max_bytes)
                    data.records = partition.read(item.fetch_offset, limit)
            out.partitions.append(data)
        response.responses.append(out)
    return response


def on_list_offsets(
    cluster: FakeCluster, node_id: int, message: Message, version: int, error: int = 0
) -> Message:
    assert isinstance(message, list_offsets.ListOffsetsRequest)
    response = list_offsets.ListOffsetsResponse()
    for wanted in message.topics:
        out = list_offsets.ListOffsetsTopicResponse(name=wanted.name)
        for item in wanted.partitions:
            topic = cluster.topics.get(wanted.name)
            code, partition = _partition(cluster, node_id, topic, item.partition_index)
            answer = list_offsets.ListOffsetsPartitionResponse(
                partition_index=item.partition_index, error_code=error or code
            )
            if not answer.error_code:
                assert partition is not None
                answer.offset, answer.timestamp = _offset_at(partition, item.timestamp)
                answer.leader_epoch = partition.leader_epoch
            out.partitions.append(answer)
        response.topics.append(out)
    return response


def _offset_at(partition: FakePartition, time: int) -> tuple[int, int]:
    if time == -1:
        return partition.log_end_offset, -1
    if time == -2:
        return partition.log_start_offset, -1
    for _, data in partition.batches:
        columns = decode_batch(data)
        for offset, stamp in zip(columns.offsets, columns.timestamps, strict=True):
            if stamp >= time:
                return offset, stamp
    return -1, -1


def on_init_producer_id(
    cluster: FakeCluster, node_id: int, message: Message, version: int, error: int = 0
) -> Message:
    if error:
        return init.InitProducerIdResponse(error_code=error)
    cluster.next_producer_id += 1
    return init.InitProducerIdResponse(producer_id=cluster.next_producer_id, producer_epoch=0)


def on_offset_for_leader_epoch(
    cluster: FakeCluster, node_id: int, message: Message, version: int, error: int = 0
) -> Message:
    assert isinstance(message, epochs.OffsetForLeaderEpochRequest)
    response = epochs.OffsetForLeaderEpochResponse()
    for wanted in message.topics:
        out = epochs.OffsetForLeaderTopicResult(topic=wanted.topic)
        for item in wanted.partitions:
            topic = cluster.topics.get(wanted.topic)
            code, partition = _partition(cluster, node_id, topic, item.partition)
            answer = epochs.EpochEndOffset(partition=item.partition, error_code=error or code)
            if not answer.error_code:
                assert partition is not None
                answer.leader_epoch, answer.end_offset = partition.end_of_epoch(item.leader_epoch)
            out.partitions.append(answer)
        response.topics.append(out)
    return response


def on_create_topics(
    cluster: FakeCluster, node_id: int, message: Message, version: int, error: int = 0
) -> Message:
    assert isinstance(message, create.CreateTopicsRequest)
    response = create.CreateTopicsResponse()
    for topic in message.topics:
        result = create.CreatableTopicResult(name=topic.name, error_code=error)
        if not error and topic.name in cluster.topics:
            result.error_code = ErrorCode.TOPIC_ALREADY_EXISTS
            result.error_message = f"Topic '{topic.name}' already exists."
        elif not error and not message.validate_only:
            made = cluster.add_topic(topic.name, max(1, topic.num_partitions))
            result.topic_id = made.topic_id
            cluster.configs[topic.name].update({c.name: c.value for c in topic.configs})
        response.topics.append(result)
    return response


def on_delete_topics(
    cluster: FakeCluster, node_id: int, message: Message, version: int, error: int = 0
) -> Message:
    assert isinstance(message, delete.DeleteTopicsRequest)
    response = delete.DeleteTopicsResponse()
    for name in message.topic_names or [t.name for t in message.topics]:
        gone = cluster.topics.pop(name or "", None)
        code = error or (0 if gone else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        response.responses.append(delete.DeletableTopicResult(name=name, error_code=code))
    return response


def on_create_partitions(
    cluster: FakeCluster, node_id: int, message: Message, version: int, error: int = 0
) -> Message:
    assert isinstance(message, grow.CreatePartitionsRequest)
    response = grow.CreatePartitionsResponse()
    for topic in message.topics:
        known = cluster.topics[topic.name]
        if not error:
            known.partitions += cluster.add_topic("spare", topic.count).partitions[
                len(known.partitions) :
            ]
            del cluster.topics["spare"]
        response.results.append(grow.CreatePartitionsTopicResult(name=topic.name, error_code=error))
    return response


def on_describe_cluster(
    cluster: FakeCluster, node_id: int, message: Message, version: int, error: int = 0
) -> Message:
    brokers = [
        cluster_api.DescribeClusterBroker(
            broker_id=n, host="127.0.0.1", port=b.port, is_fenced=not b.alive
        )
        for n, b in cluster.brokers.items()
    ]
    return cluster_api.DescribeClusterResponse(
        error_code=error, cluster_id="fake", controller_id=cluster.controller_id, brokers=brokers
    )


def on_describe_configs(
    cluster: FakeCluster, node_id: int, message: Message, version: int, error: int = 0
) -> Message:
    assert isinstance(message, configs.DescribeConfigsRequest)
    results = [
        configs.DescribeConfigsResult(
            error_code=error, error_message="", resource_type=r.resource_type,
            resource_name=r.resource_name,
            configs=[
                configs.DescribeConfigsResourceResult(name=k, value=v, config_source=1)
                for k, v in cluster.configs[r.resource_name].items()
            ],
        )
        for r in message.resources
    ]  # fmt: skip
    return configs.DescribeConfigsResponse(results=results)


def on_alter_configs(
    cluster: FakeCluster, node_id: int, message: Message, version: int, error: int = 0
) -> Message:
    assert isinstance(message, alter.IncrementalAlterConfigsRequest)
    response = alter.IncrementalAlterConfigsResponse()
    for resource in message.resources:
        for change in resource.configs:
            if not error and change.config_operation == 0:
                cluster.configs[resource.resource_name][change.name] = change.value
            elif not error:
                cluster.configs[resource.resource_name].pop(change.name, None)
        response.responses.append(
            alter.AlterConfigsResourceResponse(
                error_code=error, error_message=None, resource_type=resource.resource_type,
                resource_name=resource.resource_name,
            )
        )  # fmt: skip
    return response


def on_elect_leaders(
    cluster: FakeCluster, node_id: int, message: Message, version: int, error: int = 0
) -> Message:
    results = [
        elect.ReplicaElectionResult(
            topic=name,
            partition_result=[
                elect.PartitionResult(
                    partition_id=i, error_code=ErrorCode.ELECTION_NOT_NEEDED, error_message=None
                )
                for i in range(len(topic.partitions))
            ],
        )
        for name, topic in sorted(cluster.topics.items())
    ]
    return elect.ElectLeadersResponse(error_code=error, replica_election_results=results)


def on_list_reassignments(
    cluster: FakeCluster, node_id: int, message: Message, version: int, error: int = 0
) -> Message:
    replicas = sorted(cluster.brokers)
    topics = [
        moves.OngoingTopicReassignment(
            name=name,
            partitions=[
                moves.OngoingPartitionReassignment(
                    partition_index=n, replicas=replicas, adding_replicas=list(p.adding)
                )
                for n, p in enumerate(topic.partitions)
                if p.adding
            ],
        )
        for name, topic in cluster.topics.items()
    ]
    return moves.ListPartitionReassignmentsResponse(error_code=error, topics=topics)


HANDLERS: dict[ApiKey, Callable[..., Any]] = {
    ApiKey.FIND_COORDINATOR: group.on_find_coordinator,
    ApiKey.JOIN_GROUP: group.on_join_group,
    ApiKey.SYNC_GROUP: group.on_sync_group,
    ApiKey.HEARTBEAT: group.on_heartbeat,
    ApiKey.LEAVE_GROUP: group.on_leave_group,
    ApiKey.OFFSET_COMMIT: group.on_offset_commit,
    ApiKey.OFFSET_FETCH: group.on_offset_fetch,
    ApiKey.LIST_GROUPS: group.on_list_groups,
    ApiKey.DESCRIBE_GROUPS: group.on_describe_groups,
    ApiKey.DELETE_GROUPS: group.on_delete_groups,
    ApiKey.METADATA: on_metadata,
    ApiKey.PRODUCE: on_produce,
    ApiKey.FETCH: on_fetch,
    ApiKey.LIST_OFFSETS: on_list_offsets,
    ApiKey.INIT_PRODUCER_ID: on_init_producer_id,
    ApiKey.OFFSET_FOR_LEADER_EPOCH: on_offset_for_leader_epoch,
    ApiKey.CREATE_TOPICS: on_create_topics,
    ApiKey.DELETE_TOPICS: on_delete_topics,
    ApiKey.CREATE_PARTITIONS: on_create_partitions,
    ApiKey.DESCRIBE_CLUSTER: on_describe_cluster,
    ApiKey.DESCRIBE_CONFIGS: on_describe_configs,
    ApiKey.INCREMENTAL_ALTER_CONFIGS: on_alter_configs,
    ApiKey.ELECT_LEADERS: on_elect_leaders,
    ApiKey.LIST_PARTITION_REASSIGNMENTS: on_list_reassignments,
}
