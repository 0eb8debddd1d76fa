"""DescribeCluster and DescribeLogDirs."""

from __future__ import annotations

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.describe_cluster import (
    DescribeClusterBroker,
    DescribeClusterRequest,
    DescribeClusterResponse,
)
from pegel.protocol.messages.describe_log_dirs import (
    DescribeLogDirsPartition,
    DescribeLogDirsRequest,
    DescribeLogDirsResponse,
    DescribeLogDirsResult,
    DescribeLogDirsTopic,
)
from pegel_broker.handlers.context import Request
from pegel_broker.handlers.registry import handles
from pegel_broker.handlers.values import (
    ALL_CLUSTER_OPERATIONS,
    OPERATIONS_NOT_ASKED,
    reported_controller,
)

BROKERS = 1


@handles(ApiKey.DESCRIBE_CLUSTER)
def describe_cluster(request: Request) -> DescribeClusterResponse:
    message, broker = request.message, request.broker
    assert isinstance(message, DescribeClusterRequest)
    if message.endpoint_type != BROKERS:
        return DescribeClusterResponse(
            error_code=ErrorCode.MISMATCHED_ENDPOINT_TYPE,
            error_message="this listener describes brokers only",
            endpoint_type=message.endpoint_type,
        )
    return DescribeClusterResponse(
        cluster_id=broker.image.cluster_id,
        controller_id=reported_controller(broker),
        brokers=[
            DescribeClusterBroker(
                broker_id=i, host=b.host, port=b.port, rack=b.rack, is_fenced=b.fenced
            )
            for i, b in sorted(broker.image.brokers.items())
            if not b.fenced or message.include_fenced_brokers
        ],
        cluster_authorized_operations=ALL_CLUSTER_OPERATIONS
        if message.include_cluster_authorized_operations
        else OPERATIONS_NOT_ASKED,
    )


@handles(ApiKey.DESCRIBE_LOG_DIRS)
async def describe_log_dirs(request: Request) -> DescribeLogDirsResponse:
    """Every directory with its logs. The size of the file system is asked off the event loop."""
    message, broker = request.message, request.broker
    assert isinstance(message, DescribeLogDirsRequest)
    wanted = None
    if message.topics is not None:
        wanted = {(t.topic, p) for t in message.topics for p in t.partitions}
    logs = broker.replicas.logs
    results = []
    for directory in logs.directories:
        if directory.offline is not None:
            results.append(
                DescribeLogDirsResult(
                    error_code=ErrorCode.KAFKA_STORAGE_ERROR, log_dir=directory.path
                )
            )
            continue
        topics: dict[str, list[DescribeLogDirsPartition]] = {}
        for log in logs.logs():
            key = (log.topic, log.partition)
            if log.keeper.directory is not directory or (wanted is not None and key not in wanted):
                continue
            hosted = broker.replicas.hosted(*key)
            lag = 0 if hosted is None else max(0, hosted.core.high_watermark - log.log_end_offset)
            topics.setdefault(log.topic, []).append(
                DescribeLogDirsPartition(
                    partition_index=log.partition,
                    partition_size=log.size_bytes,
                    offset_lag=lag,
                )
            )
        disk, path = broker.world.disk, directory.path
        total, free = await directory.reads.submit(lambda d=disk, p=path: d.usage(p))  # type: ignore[misc]
        results.append(
            DescribeLogDirsResult(
                log_dir=directory.path,
                topics=[DescribeLogDirsTopic(name=t, partitions=p) for t, p in topics.items()],
                total_bytes=total,
                usable_bytes=free,
            )
        )
    return DescribeLogDirsResponse(results=results)
