"""Request handlers, one file for each family of APIs; importing this registers all of them."""

from pegel_broker.handlers import (
    api_versions,
    cluster,
    configs,
    delete_records,
    events,
    fetch,
    find_coordinator,
    group_admin,
    group_membership,
    group_offsets,
    metadata,
    offsets,
    produce,
    producer_ids,
    reassignments,
    topics,
)

__all__ = [
    "api_versions",
    "cluster",
    "configs",
    "delete_records",
    "events",
    "fetch",
    "find_coordinator",
    "group_admin",
    "group_membership",
    "group_offsets",
    "metadata",
    "offsets",
    "produce",
    "producer_ids",
    "reassignments",
    "topics",
]
