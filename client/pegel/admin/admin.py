"""Admin calls: topics, configurations, cluster, log directories, leader elections.

Requests go to any broker: Kafka's brokers forward what only the controller may do. Each call
raises the broker's error for what failed, in the broker's words.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence

from pegel.admin import events
from pegel.admin.base import brokers_share_ms, soon_known
from pegel.admin.events import EventPage
from pegel.admin.groups import GroupAdmin
from pegel.admin.quorum import QuorumAdmin
from pegel.admin.reassignments import ReassignmentAdmin
from pegel.admin.records import RecordAdmin
from pegel.admin.types import (
    BrokerDescription,
    ClusterDescription,
    ConfigEntry,
    ConfigResourceType,
    ConfigSource,
    ElectionResult,
    LogDir,
    LogDirReplica,
    PartitionDescription,
    TopicDescription,
)
from pegel.admin.users import UserAdmin
from pegel.errors import PegelError, TopicNotFoundError, broker_error, to_error_code
from pegel.offsets import EARLIEST, LATEST, list_offsets
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.create_partitions import (
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreatePartitionsTopic,
)
from pegel.protocol.messages.create_topics import (
    CreatableReplicaAssignment,
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
    CreateTopicsResponse,
)
from pegel.protocol.messages.delete_topics import (
    DeleteTopicsRequest,
    DeleteTopicsResponse,
    DeleteTopicState,
)
from pegel.protocol.messages.describe_cluster import (
    DescribeClusterRequest,
    DescribeClusterResponse,
)
from pegel.protocol.messages.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResponse,
)
from pegel.protocol.messages.describe_log_dirs import (
    DescribeLogDirsRequest,
    DescribeLogDirsResponse,
)
from pegel.protocol.messages.elect_leaders import (
    ElectLeadersRequest,
    ElectLeadersResponse,
    TopicPartitions,
)
from pegel.protocol.messages.incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
)
from pegel.protocol.messages.metadata import MetadataResponseTopic
from pegel.types import TopicPartition

_SET, _DELETE = 0, 1


class Admin(GroupAdmin, QuorumAdmin, ReassignmentAdmin, RecordAdmin, UserAdmin):
    """Admin calls of one client; every one takes a ``timeout`` in seconds."""

    async def create_topic(
        self,
        name: str,
        *,
        partitions: int = -1,
        replication: int = -1,
        config: Mapping[str, str | int | float | bool] | None = None,
        assignment: Mapping[int, Sequence[int]] | None = None,
        validate_only: bool = False,
        timeout: float | None = None,
    ) -> uuid.UUID:
        """Create a topic; returns its id. -1 leaves a number to the broker's default.

        Args:
            assignment: broker ids for each partition, instead of the two numbers.

        Raises:
            TopicExistsError, InvalidTopicError, BrokerError: why it was not created.
        """
        wait = self._timeout(timeout)
        topic = CreatableTopic(
            name=name,
            num_partitions=-1 if assignment else partitions,
            replication_factor=-1 if assignment else replication,
            assignments=[
                CreatableReplicaAssignment(partition_index=p, broker_ids=list(b))
                for p, b in sorted((assignment or {}).items())
            ],
            configs=[
                CreatableTopicConfig(name=k, value=config_text(v))
                for k, v in (config or {}).items()
            ],
        )
        request = CreateTopicsRequest(
            topics=[topic], timeout_ms=brokers_share_ms(wait), validate_only=validate_only
        )
        response = await self._cluster.ask_any(request, CreateTopicsResponse, timeout=wait)
        for result in response.topics:
            if result.error_code:
                raise _topic_failed(name, result.error_code, result.error_message)
            return result.topic_id
        raise PegelError(f"the broker did not say whether it created topic {name!r}")

    async def delete_topic(self, name: str, *, timeout: float | None = None) -> None:
        """Delete a topic and its records.

        Raises:
            TopicNotFoundError, BrokerError.
        """
        wait = self._timeout(timeout)
        request = DeleteTopicsRequest(
            topics=[DeleteTopicState(name=name)],
            topic_names=[name],
            timeout_ms=brokers_share_ms(wait),
        )
        response = await self._cluster.ask_any(request, DeleteTopicsResponse, timeout=wait)
        for result in response.responses:
            if result.error_code:
                raise _topic_failed(name, result.error_code, result.error_message)
        self._cluster.metadata.view.forget(name)

    @soon_known
    async def grow_topic(self, name: str, partitions: int, *, timeout: float | None = None) -> None:
        """Raise the number of partitions to ``partitions``. Keys map to other ones from then on.

        Raises:
            TopicNotFoundError, BrokerError.
        """
        wait = self._timeout(timeout)
        request = CreatePartitionsRequest(
            topics=[CreatePartitionsTopic(name=name, count=partitions, assignments=None)],
            timeout_ms=brokers_share_ms(wait),
        )
        response = await self._cluster.ask_any(request, CreatePartitionsResponse, timeout=wait)
        for result in response.results:
            if result.error_code:
                raise _topic_failed(name, result.error_code, result.error_message)
        self._cluster.metadata.request_refresh()

    async def list_topics(
        self, *, internal: bool = False, timeout: float | None = None
    ) -> list[TopicDescription]:
        """All topics, by name; Kafka's own only with ``internal``."""
        wait = self._timeout(timeout)
        response = await self._cluster.metadata.fetch(None, timeout=wait)
        topics = [_describe(t) for t in response.topics if internal or not t.is_internal]
        return sorted(topics, key=lambda t: t.name)

    @soon_known
    async def describe_topic(
        self, name: str, *, offsets: bool = False, timeout: float | None = None
    ) -> TopicDescription:
        """Leaders, replicas and ISR of a topic; with ``offsets`` also where its logs begin and end.

        Raises:
            TopicNotFoundError, BrokerError.
        """
        wait = self._timeout(timeout)
        response = await self._cluster.metadata.fetch([name], timeout=wait)
        for topic in response.topics:
            if topic.error_code:
                raise _topic_failed(name, topic.error_code)
            description = _describe(topic)
            return await self._with_offsets(description, wait) if offsets else description
        raise _topic_failed(name, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)

    async def _with_offsets(self, topic: TopicDescription, wait: float) -> TopicDescription:
        led = [TopicPartition(topic.name, p.partition) for p in topic.partitions if p.leader >= 0]
        starts, ends = await asyncio.gather(
            list_offsets(self._cluster, dict.fromkeys(led, EARLIEST), timeout=wait),
            list_offsets(self._cluster, dict.fromkeys(led, LATEST), timeout=wait),
        )
        partitions: list[PartitionDescription] = []
        for p in topic.partitions:
            tp = TopicPartition(topic.name, p.partition)
            start, end = starts.get(tp), ends.get(tp)
            partitions.append(
                PartitionDescription(
                    p.partition, p.leader, p.leader_epoch, p.replicas, p.isr, p.offline_replicas,
                    p.eligible_leader_replicas,
                    None if start is None else start.offset,
                    None if end is None else end.offset,
                )
            )  # fmt: skip
        return TopicDescription(topic.name, topic.topic_id, topic.is_internal, tuple(partitions))

    @soon_known
    async def describe_config(
        self,
        resource: ConfigResourceType,
        name: str,
        *,
        documentation: bool = False,
        timeout: float | None = None,
    ) -> list[ConfigEntry]:
        """Every key of a topic, or of a broker by its id, with its value and where that is from.

        Raises:
            TopicNotFoundError, BrokerError.
        """
        request = DescribeConfigsRequest(
            resources=[
                DescribeConfigsResource(
                    resource_type=resource, resource_name=name, configuration_keys=None
                )
            ],
            include_documentation=documentation,
        )
        wait = self._timeout(timeout)
        if resource is ConfigResourceType.BROKER and name:
            response = await self._ask_broker(int(name), request, DescribeConfigsResponse, wait)
        else:
            response = await self._cluster.ask_any(
                request, DescribeConfigsResponse, timeout=wait, patience=wait / 3
            )
        entries: list[ConfigEntry] = []
        for result in response.results:
            if result.error_code:
                what = f"{resource.name.lower()} {name!r}"
                raise broker_error(result.error_code, what, result.error_message or None)
            entries += [
                ConfigEntry(
                    c.name, c.value, _source(c.config_source), c.read_only, c.is_sensitive,
                    c.documentation,
                )
                for c in result.configs
            ]  # fmt: skip
        return sorted(entries, key=lambda entry: entry.name)

    @soon_known
    async def alter_config(
        self,
        resource: ConfigResourceType,
        name: str,
        changes: Mapping[str, str | int | float | bool | None],
        *,
        validate_only: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Set keys, or unset those whose new value is ``None``; the others stay as they are.

        Raises:
            TopicNotFoundError, BrokerError.
        """
        configs = [
            AlterableConfig(
                name=key,
                config_operation=_DELETE if value is None else _SET,
                value=None if value is None else config_text(value),
            )
            for key, value in changes.items()
        ]
        request = IncrementalAlterConfigsRequest(
            resources=[
                AlterConfigsResource(resource_type=resource, resource_name=name, configs=configs)
            ],
            validate_only=validate_only,
        )
        wait = self._timeout(timeout)
        if resource is ConfigResourceType.BROKER and name:
            response = await self._ask_broker(
                int(name), request, IncrementalAlterConfigsResponse, wait
            )
        else:
            response = await self._cluster.ask_any(
                request, IncrementalAlterConfigsResponse, timeout=wait, patience=wait / 3
            )
        for result in response.responses:
            if result.error_code:
                what = f"{resource.name.lower()} {name!r}"
                raise broker_error(result.error_code, what, result.error_message or None)

    async def describe_cluster(self, *, timeout: float | None = None) -> ClusterDescription:
        """The cluster's id, controller and brokers, fenced ones included where the broker tells."""
        request = DescribeClusterRequest(include_fenced_brokers=True)
        wait = self._timeout(timeout)
        response = await self._cluster.ask_any(
            request, DescribeClusterResponse, timeout=wait, patience=wait / 3
        )
        if response.error_code:
            raise broker_error(response.error_code, "cluster", response.error_message)
        brokers = [
            BrokerDescription(b.broker_id, b.host, b.port, b.rack, b.is_fenced)
            for b in sorted(response.brokers, key=lambda b: b.broker_id)
        ]
        return ClusterDescription(response.cluster_id, response.controller_id, tuple(brokers))

    async def describe_log_dirs(self, *, timeout: float | None = None) -> list[LogDir]:
        """Log directories of every broker that answers, with the replicas in them."""
        wait = self._timeout(timeout)
        cluster = await self.describe_cluster(timeout=wait)
        live = [b.node_id for b in cluster.brokers if not b.fenced]
        request = DescribeLogDirsRequest(topics=None)
        answers = await asyncio.gather(
            *(self._ask_broker(n, request, DescribeLogDirsResponse, wait) for n in live)
        )
        found: list[LogDir] = []
        for node_id, answer in zip(live, answers, strict=True):
            if answer.error_code:
                raise broker_error(answer.error_code, f"log directories of broker {node_id}")
            for result in answer.results:
                replicas = tuple(
                    LogDirReplica(t.name, p.partition_index, p.partition_size, p.offset_lag)
                    for t in sorted(result.topics, key=lambda t: t.name)
                    for p in sorted(t.partitions, key=lambda p: p.partition_index)
                )
                error = to_error_code(result.error_code).name if result.error_code else None
                found.append(
                    LogDir(node_id, result.log_dir, error, result.total_bytes,
                           result.usable_bytes, replicas)
                )  # fmt: skip
        return found

    async def elect_leaders(
        self,
        partitions: Sequence[TopicPartition] | None = None,
        *,
        unclean: bool = False,
        timeout: float | None = None,
    ) -> list[ElectionResult]:
        """Give leadership to preferred replicas, of all partitions or of those named.

        Args:
            unclean: elect any live replica for partitions that have no leader: LOSES records
                that only the missing replicas hold.
        """
        wait = self._timeout(timeout)
        topics: dict[str, list[int]] = {}
        for topic, partition in partitions or ():
            topics.setdefault(topic, []).append(partition)
        request = ElectLeadersRequest(
            election_type=int(unclean),
            topic_partitions=None
            if partitions is None
            else [TopicPartitions(topic=t, partitions=p) for t, p in sorted(topics.items())],
            timeout_ms=brokers_share_ms(wait),
        )
        response = await self._cluster.ask_any(request, ElectLeadersResponse, timeout=wait)
        if response.error_code:
            raise broker_error(response.error_code, "election")
        results: list[ElectionResult] = []
        for topic_result in response.replica_election_results:
            for p in topic_result.partition_result:
                needless = p.error_code == ErrorCode.ELECTION_NOT_NEEDED
                error = None
                if p.error_code and not needless:
                    code = to_error_code(p.error_code)
                    error = p.error_message or code.message
                elected = p.error_code == 0
                results.append(ElectionResult(topic_result.topic, p.partition_id, error, elected))
        return results

    async def events(
        self,
        *,
        after: int = 0,
        topic: str = "",
        partition: int = -1,
        limit: int = 1_000,
        max_wait: float = 0.0,
        timeout: float | None = None,
    ) -> EventPage:
        """What happened to brokers and partitions, later than event ``after``, oldest first.

        Args:
            topic: only its events, with those of brokers, which are their causes.
            max_wait: seconds to wait where there is nothing yet.

        Raises:
            UnsupportedFeatureError: not a Pegel cluster.
            BrokerError: the active controller does not answer.
        """
        return await events.events(
            self._cluster, after=after, topic=topic, partition=partition, limit=limit,
            max_wait=max_wait, timeout=self._timeout(timeout),
        )  # fmt: skip

    async def eligible_leader_replicas(
        self, topic: str, *, timeout: float | None = None
    ) -> dict[int, tuple[int, ...]]:
        """By partition: who may lead beside the in-sync replicas (KIP-966)."""
        wait = self._timeout(timeout)
        return await events.eligible_leader_replicas(self._cluster, topic, timeout=wait)


def config_text(value: str | float | bool) -> str:
    """A configuration value as brokers write it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _source(number: int) -> ConfigSource:
    try:
        return ConfigSource(number)
    except ValueError:
        return ConfigSource.UNKNOWN


def _topic_failed(name: str, code: int, detail: str | None = None) -> PegelError:
    if code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
        return TopicNotFoundError(
            f"there is no topic {name!r}; `pegel topics list` shows those that exist"
        )
    return broker_error(code, f"topic {name!r}", detail)


def _describe(topic: MetadataResponseTopic) -> TopicDescription:
    partitions = tuple(
        PartitionDescription(
            p.partition_index,
            p.leader_id,
            p.leader_epoch,
            tuple(p.replica_nodes),
            tuple(p.isr_nodes),
            tuple(p.offline_replicas),
        )
        for p in sorted(topic.partitions, key=lambda p: p.partition_index)
    )
    return TopicDescription(topic.name or "", topic.topic_id, topic.is_internal, partitions)
