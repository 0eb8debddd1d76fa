"""The APIs of the Kafka protocol: every known key, and the versions that are declared here.

What a broker advertises is decided by its own handlers; this table says what can be encoded.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

# A version above every real one: "never".
NEWEST = 32767


class ApiKey(IntEnum):
    """Every API key that Apache Kafka has assigned, and a few of our own from 20,000 on."""

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    LEADER_AND_ISR = 4
    STOP_REPLICA = 5
    UPDATE_METADATA = 6
    CONTROLLED_SHUTDOWN = 7
    OFFSET_COMMIT = 8
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    LEAVE_GROUP = 13
    SYNC_GROUP = 14
    DESCRIBE_GROUPS = 15
    LIST_GROUPS = 16
    SASL_HANDSHAKE = 17
    API_VERSIONS = 18
    CREATE_TOPICS = 19
    DELETE_TOPICS = 20
    DELETE_RECORDS = 21
    INIT_PRODUCER_ID = 22
    OFFSET_FOR_LEADER_EPOCH = 23
    ADD_PARTITIONS_TO_TXN = 24
    ADD_OFFSETS_TO_TXN = 25
    END_TXN = 26
    WRITE_TXN_MARKERS = 27
    TXN_OFFSET_COMMIT = 28
    DESCRIBE_ACLS = 29
    CREATE_ACLS = 30
    DELETE_ACLS = 31
    DESCRIBE_CONFIGS = 32
    ALTER_CONFIGS = 33
    ALTER_REPLICA_LOG_DIRS = 34
    DESCRIBE_LOG_DIRS = 35
    SASL_AUTHENTICATE = 36
    CREATE_PARTITIONS = 37
    CREATE_DELEGATION_TOKEN = 38
    RENEW_DELEGATION_TOKEN = 39
    EXPIRE_DELEGATION_TOKEN = 40
    DESCRIBE_DELEGATION_TOKEN = 41
    DELETE_GROUPS = 42
    ELECT_LEADERS = 43
    INCREMENTAL_ALTER_CONFIGS = 44
    ALTER_PARTITION_REASSIGNMENTS = 45
    LIST_PARTITION_REASSIGNMENTS = 46
    OFFSET_DELETE = 47
    DESCRIBE_CLIENT_QUOTAS = 48
    ALTER_CLIENT_QUOTAS = 49
    DESCRIBE_USER_SCRAM_CREDENTIALS = 50
    ALTER_USER_SCRAM_CREDENTIALS = 51
    VOTE = 52
    BEGIN_QUORUM_EPOCH = 53
    END_QUORUM_EPOCH = 54
    DESCRIBE_QUORUM = 55
    ALTER_PARTITION = 56
    UPDATE_FEATURES = 57
    ENVELOPE = 58
    FETCH_SNAPSHOT = 59
    DESCRIBE_CLUSTER = 60
    DESCRIBE_PRODUCERS = 61
    BROKER_REGISTRATION = 62
    BROKER_HEARTBEAT = 63
    UNREGISTER_BROKER = 64
    DESCRIBE_TRANSACTIONS = 65
    LIST_TRANSACTIONS = 66
    ALLOCATE_PRODUCER_IDS = 67
    CONSUMER_GROUP_HEARTBEAT = 68
    CONSUMER_GROUP_DESCRIBE = 69
    CONTROLLER_REGISTRATION = 70
    GET_TELEMETRY_SUBSCRIPTIONS = 71
    PUSH_TELEMETRY = 72
    ASSIGN_REPLICAS_TO_DIRS = 73
    LIST_CONFIG_RESOURCES = 74
    DESCRIBE_TOPIC_PARTITIONS = 75
    SHARE_GROUP_HEARTBEAT = 76
    SHARE_GROUP_DESCRIBE = 77
    SHARE_FETCH = 78
    SHARE_ACKNOWLEDGE = 79
    ADD_RAFT_VOTER = 80
    REMOVE_RAFT_VOTER = 81
    UPDATE_RAFT_VOTER = 82
    INITIALIZE_SHARE_GROUP_STATE = 83
    READ_SHARE_GROUP_STATE = 84
    WRITE_SHARE_GROUP_STATE = 85
    DELETE_SHARE_GROUP_STATE = 86
    READ_SHARE_GROUP_STATE_SUMMARY = 87
    STREAMS_GROUP_HEARTBEAT = 88
    STREAMS_GROUP_DESCRIBE = 89
    DESCRIBE_SHARE_GROUP_OFFSETS = 90
    ALTER_SHARE_GROUP_OFFSETS = 91
    DELETE_SHARE_GROUP_OFFSETS = 92
    # Pegel's own, between its brokers and its client; told to no other client.
    DESCRIBE_EVENTS = 20_000


class ApiInfo(NamedTuple):
    """Versions of one API whose messages are declared.

    ``flexible_from`` is the first version with compact lengths and tagged fields (KIP-482),
    ``NEWEST`` where there is none. ``module`` is the file below ``messages`` that declares it.
    """

    key: ApiKey
    name: str
    min_version: int
    max_version: int
    flexible_from: int

    @property
    def module(self) -> str:
        return self.key.name.lower()


_TABLE = (
    ApiInfo(ApiKey.PRODUCE, "Produce", 3, 13, 9),
    ApiInfo(ApiKey.FETCH, "Fetch", 4, 17, 12),
    ApiInfo(ApiKey.LIST_OFFSETS, "ListOffsets", 1, 10, 6),
    ApiInfo(ApiKey.METADATA, "Metadata", 0, 13, 9),
    ApiInfo(ApiKey.OFFSET_COMMIT, "OffsetCommit", 2, 9, 8),
    ApiInfo(ApiKey.OFFSET_FETCH, "OffsetFetch", 1, 9, 6),
    ApiInfo(ApiKey.FIND_COORDINATOR, "FindCoordinator", 0, 5, 3),
    ApiInfo(ApiKey.JOIN_GROUP, "JoinGroup", 0, 9, 6),
    ApiInfo(ApiKey.HEARTBEAT, "Heartbeat", 0, 4, 4),
    ApiInfo(ApiKey.LEAVE_GROUP, "LeaveGroup", 0, 5, 4),
    ApiInfo(ApiKey.SYNC_GROUP, "SyncGroup", 0, 5, 4),
    ApiInfo(ApiKey.DESCRIBE_GROUPS, "DescribeGroups", 0, 5, 5),
    ApiInfo(ApiKey.LIST_GROUPS, "ListGroups", 0, 5, 3),
    ApiInfo(ApiKey.SASL_HANDSHAKE, "SaslHandshake", 0, 1, NEWEST),
    ApiInfo(ApiKey.API_VERSIONS, "ApiVersions", 0, 4, 3),
    ApiInfo(ApiKey.CREATE_TOPICS, "CreateTopics", 2, 7, 5),
    ApiInfo(ApiKey.DELETE_TOPICS, "DeleteTopics", 1, 6, 4),
    ApiInfo(ApiKey.DELETE_RECORDS, "DeleteRecords", 0, 2, 2),
    ApiInfo(ApiKey.INIT_PRODUCER_ID, "InitProducerId", 0, 5, 2),
    ApiInfo(ApiKey.OFFSET_FOR_LEADER_EPOCH, "OffsetForLeaderEpoch", 2, 4, 4),
    ApiInfo(ApiKey.ADD_PARTITIONS_TO_TXN, "AddPartitionsToTxn", 0, 3, 3),
    ApiInfo(ApiKey.ADD_OFFSETS_TO_TXN, "AddOffsetsToTxn", 0, 4, 3),
    ApiInfo(ApiKey.END_TXN, "EndTxn", 0, 4, 3),
    ApiInfo(ApiKey.WRITE_TXN_MARKERS, "WriteTxnMarkers", 1, 2, 1),
    ApiInfo(ApiKey.TXN_OFFSET_COMMIT, "TxnOffsetCommit", 0, 4, 3),
    ApiInfo(ApiKey.DESCRIBE_CONFIGS, "DescribeConfigs", 1, 4, 4),
    ApiInfo(ApiKey.ALTER_CONFIGS, "AlterConfigs", 0, 2, 2),
    ApiInfo(ApiKey.DESCRIBE_LOG_DIRS, "DescribeLogDirs", 1, 4, 2),
    ApiInfo(ApiKey.SASL_AUTHENTICATE, "SaslAuthenticate", 0, 2, 2),
    ApiInfo(ApiKey.CREATE_PARTITIONS, "CreatePartitions", 0, 3, 2),
    ApiInfo(ApiKey.DELETE_GROUPS, "DeleteGroups", 0, 2, 2),
    ApiInfo(ApiKey.ELECT_LEADERS, "ElectLeaders", 0, 2, 2),
    ApiInfo(ApiKey.INCREMENTAL_ALTER_CONFIGS, "IncrementalAlterConfigs", 0, 1, 1),
    ApiInfo(ApiKey.ALTER_PARTITION_REASSIGNMENTS, "AlterPartitionReassignments", 0, 1, 0),
    ApiInfo(ApiKey.LIST_PARTITION_REASSIGNMENTS, "ListPartitionReassignments", 0, 0, 0),
    ApiInfo(ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS, "DescribeUserScramCredentials", 0, 0, 0),
    ApiInfo(ApiKey.ALTER_USER_SCRAM_CREDENTIALS, "AlterUserScramCredentials", 0, 0, 0),
    ApiInfo(ApiKey.DESCRIBE_QUORUM, "DescribeQuorum", 0, 2, 0),
    ApiInfo(ApiKey.OFFSET_DELETE, "OffsetDelete", 0, 0, NEWEST),
    ApiInfo(ApiKey.DESCRIBE_CLUSTER, "DescribeCluster", 0, 2, 0),
    ApiInfo(ApiKey.UNREGISTER_BROKER, "UnregisterBroker", 0, 0, 0),
    ApiInfo(ApiKey.DESCRIBE_TOPIC_PARTITIONS, "DescribeTopicPartitions", 0, 0, 0),
    ApiInfo(ApiKey.ADD_RAFT_VOTER, "AddRaftVoter", 0, 1, 0),
    ApiInfo(ApiKey.REMOVE_RAFT_VOTER, "RemoveRaftVoter", 0, 0, 0),
    ApiInfo(ApiKey.DESCRIBE_EVENTS, "DescribeEvents", 0, 0, 0),
)

FIRST_OWN_KEY = 20_000

APIS: Mapping[int, ApiInfo] = {info.key: info for info in _TABLE}
