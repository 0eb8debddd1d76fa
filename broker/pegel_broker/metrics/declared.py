"""Every metric of a node, declared once. ``pegel server --list-metrics`` prints this table.

Labels are bounded: no client ids, no addresses, no group with partition. ``LABELS`` says of each
label what it may be and how many values it can take on one node.
"""

from __future__ import annotations

from pegel.metrics import Catalogue
from pegel.metrics.histogram import SECONDS, SHORT_SECONDS
from pegel_broker.group.counters import REBALANCE_SECONDS

# Above so many replicas on one broker there are no series per partition.
MAX_PARTITION_SERIES_REPLICAS = 2_000
# The same for topics.
MAX_TOPIC_SERIES = 1_000

PHASES = ("queue", "local", "remote", "throttle", "send")
RAFT_STATES = ("follower", "precandidate", "candidate", "leader")
BROKER_STATES = ("active", "fenced", "shutting_down")
ELECTION_TYPES = ("clean", "preferred", "eligible", "unclean", "offline")
ACKS = ("0", "1", "all")
PURGATORIES = ("produce", "fetch", "delete_records")
GROUP_STATES = ("Empty", "PreparingRebalance", "CompletingRebalance", "Stable", "Dead")
DELETE_REASONS = ("retention_time", "retention_size", "log_start")

LABELS = {
    "listener": ("the listener: client, controller or http", 3),
    "api": ("Kafka's name of the API; a follower's Fetch is FetchFollower", 70),
    "error": ("Kafka's name of the error code", 140),
    "outcome": ("successful, failed", 2),
    "phase": (", ".join(PHASES), len(PHASES)),
    "type": ("the kinds that the help names", 5),
    "group": ("groups with committed offsets, at most 1,000 with their topics", 1_000),
    "topic": (f"topics with a replica here, at most {MAX_TOPIC_SERIES:,}", MAX_TOPIC_SERIES),
    "partition": (
        f"replicas here, at most {MAX_PARTITION_SERIES_REPLICAS:,}", MAX_PARTITION_SERIES_REPLICAS,
    ),
    "acks": (", ".join(ACKS), len(ACKS)),
    "dir": ("log directories of the node", 32),
    "reason": (", ".join(DELETE_REASONS), len(DELETE_REASONS)),
    "state": ("the states that the help names", 5),
    "follower": ("controllers", 32),
    "node_id": ("one", 1), "roles": ("one", 1), "rack": ("one", 1),
    "version": ("one", 1), "python": ("one", 1),
}  # fmt: skip

BROKER = Catalogue("pegel_")

BROKER.begin("process")
build_info = BROKER.gauge("build_info", "Always 1; which release this is.", "version", "python")
node_info = BROKER.gauge("node_info", "Always 1; who this is.", "node_id", "roles", "rack")
broker_state = BROKER.gauge(
    "broker_state",
    "0 no broker, 1 starting, 2 recovering logs, 3 running, 4 fenced, 6 moving its leaders away.",
)
start_time = BROKER.gauge("start_time_seconds", "When the node started, in Unix time.")
loop_lag = BROKER.histogram(
    "event_loop_lag_seconds",
    "How late the event loop runs what was due: time in which nothing is served.",
    SHORT_SECONDS,
)
loop_busy = BROKER.counter(
    "event_loop_busy_seconds_total", "CPU time of the event loop's thread; 1 per second is all."
)
series_dropped = BROKER.gauge(
    "metrics_series_dropped",
    "Series per partition or topic that are left out, because there are too many replicas.",
)
scrape_duration = BROKER.gauge(
    "metrics_last_scrape_seconds", "How long the previous page took to write, pauses included."
)

BROKER.begin("network")
connections = BROKER.gauge("connections", "Open connections.", "listener")
connections_opened = BROKER.counter("connections_opened_total", "Accepted.", "listener")
connections_closed = BROKER.counter("connections_closed_total", "Ended.", "listener")
connections_refused = BROKER.counter(
    "connections_refused_total", "Closed at once: too many were open.", "listener"
)
protocol_errors = BROKER.counter(
    "protocol_errors_total", "Connections closed for what they sent.", "listener"
)
received_bytes = BROKER.counter("network_receive_bytes_total", "Bytes received.", "listener")
transmitted_bytes = BROKER.counter("network_transmit_bytes_total", "Bytes sent.", "listener")
logins = BROKER.counter(
    "authentications_total", "Log-ins of clients, where they have to: successful, failed.",
    "outcome",
)  # fmt: skip
requests = BROKER.counter("requests_total", "Requests answered.", "api")
request_errors = BROKER.counter(
    "request_errors_total", "Error codes in responses, one for each partition or item.",
    "api", "error",
)  # fmt: skip
request_duration = BROKER.histogram(
    "request_duration_seconds",
    "From the request's last byte to the response's first; a Fetch that waits for data included.",
    SECONDS, "api",
)  # fmt: skip
request_phase = BROKER.counter(
    "request_phase_seconds_total",
    "Where requests spend their time: queue (behind others), local (this broker's work), remote "
    "(replicas, disk, data to come), throttle (quotas), send (encoding, order, slow reader).",
    "api", "phase",
)  # fmt: skip
slow_requests = BROKER.counter(
    "slow_requests_total",
    "Requests above request.slow.log.ms; waits that were asked for do not count.", "api",
)  # fmt: skip
in_flight = BROKER.gauge("requests_in_flight", "Requests whose response has not been written.")
purgatory = BROKER.gauge("purgatory_size", f"Requests that wait: {', '.join(PURGATORIES)}.", "type")

BROKER.begin("topic")
topic_received_bytes = BROKER.counter(
    "topic_received_bytes_total", "Bytes of batches appended as the leader.", "topic"
)
topic_sent_bytes = BROKER.counter(
    "topic_sent_bytes_total", "Bytes of batches sent to consumers.", "topic"
)
topic_received_records = BROKER.counter(
    "topic_received_records_total", "Records appended as the leader.", "topic"
)
topic_produce_requests = BROKER.counter(
    "topic_produce_requests_total", "Batches that producers asked to append.", "topic", "acks"
)
topic_failed_produce = BROKER.counter(
    "topic_failed_produce_requests_total", "Batches that were refused, or timed out.", "topic"
)
topic_failed_fetch = BROKER.counter(
    "topic_failed_fetch_requests_total", "Partitions that a consumer could not read.", "topic"
)

BROKER.begin("replication")
leader_partitions = BROKER.gauge("leader_partitions", "Partitions that this broker leads.")
replica_partitions = BROKER.gauge("replica_partitions", "Replicas on this broker.")
under_replicated = BROKER.gauge(
    "under_replicated_partitions", "Led partitions whose ISR is smaller than their replicas."
)
under_min_isr = BROKER.gauge(
    "under_min_isr_partitions", "Led partitions that refuse acks=all: too few in sync."
)
at_min_isr = BROKER.gauge(
    "at_min_isr_partitions", "Led partitions that would refuse acks=all with one replica less."
)
offline_replicas = BROKER.gauge("offline_replicas", "Replicas whose log has failed.")
isr_shrinks = BROKER.counter("isr_shrinks_total", "Times that a leader took a replica out.")
isr_expands = BROKER.counter("isr_expands_total", "Times that a leader took a replica in.")
high_watermark_backwards = BROKER.counter(
    "high_watermark_backwards_total",
    "Truncations below the high watermark: committed data is gone. Only an unclean election may.",
)
replication_received = BROKER.counter(
    "replication_received_bytes_total", "Bytes appended as a follower."
)
replication_sent = BROKER.counter("replication_sent_bytes_total", "Bytes sent to followers.")
lag_max = BROKER.gauge(
    "replica_fetch_lag_max_records", "Records that the slowest follower of a led partition lacks."
)

BROKER.begin("partition")
_PARTITION = ("topic", "partition")
partition_log_start = BROKER.gauge("partition_log_start_offset", "First offset.", *_PARTITION)
partition_log_end = BROKER.gauge(
    "partition_log_end_offset", "Offset of the next record.", *_PARTITION
)
partition_high_watermark = BROKER.gauge(
    "partition_high_watermark", "Below it every in-sync replica has the data.", *_PARTITION
)
partition_size = BROKER.gauge("partition_size_bytes", "Bytes of all segments.", *_PARTITION)
partition_segments = BROKER.gauge("partition_segments", "Segments.", *_PARTITION)
partition_isr_size = BROKER.gauge(
    "partition_isr_size", "Replicas in sync; only where this broker leads.", *_PARTITION
)
partition_is_leader = BROKER.gauge("partition_is_leader", "1 where this broker leads.", *_PARTITION)
replica_lag = BROKER.gauge(
    "replica_fetch_lag_records",
    "Records that the slowest follower lacks; only where this broker leads.",
    *_PARTITION,
)

BROKER.begin("log")
append_duration = BROKER.histogram(
    "log_append_duration_seconds", "One write of what many logs had to append.", SHORT_SECONDS
)
flush_duration = BROKER.histogram(
    "log_flush_duration_seconds", "One sync of a log to stable storage.", SHORT_SECONDS
)
segments_rolled = BROKER.counter("log_segments_rolled_total", "Segments begun after a full one.")
segments_deleted = BROKER.counter("log_segments_deleted_total", "Segments removed.", "reason")
recovery_seconds = BROKER.gauge(
    "log_recovery_seconds", "How long it took to open and check the logs at the last start."
)
corrupt_batches = BROKER.counter(
    "log_corrupt_batches_total", "Damage found in log files; the replica goes offline."
)
dir_free = BROKER.gauge("log_dir_free_bytes", "Free space of the file system.", "dir")
dir_total = BROKER.gauge("log_dir_total_bytes", "Size of the file system.", "dir")
dir_offline = BROKER.gauge("log_dir_offline", "1 where the directory has failed.", "dir")
unwritten_bytes = BROKER.gauge(
    "log_unwritten_bytes", "Appended and not yet written: the disk is so far behind.", "dir"
)
duplicate_batches = BROKER.counter(
    "duplicate_batches_total", "Retries of idempotent producers that were already there."
)
producer_ids = BROKER.gauge("producer_ids", "Idempotent producers that partitions remember.")

BROKER.begin("groups")
groups = BROKER.gauge(
    "groups", f"Consumer groups coordinated here: {', '.join(GROUP_STATES)}.", "state"
)
group_rebalances = BROKER.counter("group_rebalances_total", "Rebalances begun.")
group_rebalance_duration = BROKER.histogram(
    "group_rebalance_duration_seconds",
    "From the first change of membership to the new assignment.",
    REBALANCE_SECONDS,
)
offset_commits = BROKER.counter("offset_commits_total", "Partitions whose offset was committed.")
heartbeat_expirations = BROKER.counter(
    "group_heartbeat_expirations_total", "Members that were lost because they were silent."
)
group_lag = BROKER.gauge(
    "group_lag_records", "Records that a group has not read, by its coordinator.", "group", "topic"
)
group_lag_seconds = BROKER.gauge(
    "group_lag_seconds", "Age of the oldest record that it has not read.", "group", "topic"
)
group_catch_up = BROKER.gauge(
    "group_catch_up_seconds",
    "How long until it has caught up at its present speed; absent while its lag does not shrink.",
    "group", "topic",
)  # fmt: skip

BROKER.begin("Raft")
raft_state = BROKER.gauge(
    "raft_state", f"1 for the state it is in: {', '.join(RAFT_STATES)}.", "state"
)
raft_term = BROKER.gauge("raft_term", "The term.")
raft_leader = BROKER.gauge("raft_leader_id", "The leader as this controller knows it; -1 for none.")
raft_last = BROKER.gauge("raft_last_log_index", "Index of the last entry.")
raft_commit = BROKER.gauge("raft_commit_index", "Index up to which entries are committed.")
raft_snapshot_bytes = BROKER.gauge("raft_snapshot_bytes", "Size of the newest snapshot.")
raft_elections = BROKER.counter("raft_elections_total", "Times that this controller stood.")
raft_leader_changes = BROKER.counter(
    "raft_leader_changes_total", "Times that this controller learned of another leader."
)
raft_commit_duration = BROKER.histogram(
    "raft_commit_duration_seconds", "From proposing an entry to applying it.", SHORT_SECONDS
)
raft_follower_lag = BROKER.gauge(
    "raft_follower_lag_entries", "Entries that a follower is not known to have.", "follower"
)

BROKER.begin("controller")
controller_active = BROKER.gauge("controller_active", "1 on the controller that decides.")
controller_brokers = BROKER.gauge(
    "controller_brokers", f"Registered brokers: {', '.join(BROKER_STATES)}.", "state"
)
controller_topics = BROKER.gauge("controller_topics", "Topics.")
controller_partitions = BROKER.gauge("controller_partitions", "Partitions.")
controller_offline = BROKER.gauge(
    "controller_offline_partitions", "Partitions without a leader: nobody can write or read them."
)
controller_imbalance = BROKER.gauge(
    "controller_preferred_leader_imbalance",
    "Share of partitions that are not led by their preferred leader, 0 to 1.",
)
controller_elections = BROKER.counter(
    "controller_leader_elections_total",
    "Changes of leader: clean (from the ISR), preferred, eligible (from the ELR), unclean (data "
    "may be lost), offline (nobody could).",
    "type",
)
controller_failover = BROKER.histogram(
    "controller_failover_duration_seconds",
    "Without an active controller, as seen by the controller that took over.",
    SECONDS,
)
metadata_applied = BROKER.gauge(
    "metadata_last_applied_offset", "Index of the metadata log that this node has applied."
)
metadata_errors = BROKER.counter(
    "metadata_errors_total", "Metadata that this node could not carry out."
)
