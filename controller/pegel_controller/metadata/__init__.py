"""The metadata state machine: records, image, delta, snapshot."""

from pegel_controller.metadata.delta import MetadataDelta
from pegel_controller.metadata.image import (
    BrokerState,
    MetadataImage,
    PartitionState,
    TopicState,
)
from pegel_controller.metadata.records import Record, decode_records, encode_records
from pegel_controller.metadata.snapshot import (
    decode_snapshot,
    decode_snapshot_and_history,
    encode_snapshot,
)

__all__ = [
    "BrokerState",
    "MetadataDelta",
    "MetadataImage",
    "PartitionState",
    "Record",
    "TopicState",
    "decode_records",
    "decode_snapshot",
    "decode_snapshot_and_history",
    "encode_records",
    "encode_snapshot",
]
