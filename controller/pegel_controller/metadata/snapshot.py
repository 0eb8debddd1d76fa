"""Image ↔ bytes. The file layer adds the checksum and the atomic rename."""

from dataclasses import dataclass

import msgpack

from pegel_controller.metadata.history import Event, History
from pegel_controller.metadata.image import (
    BrokerState,
    MetadataImage,
    ScramCredential,
    TopicState,
)
from pegel_controller.metadata.wire import Wire

FORMAT = 1


@dataclass(frozen=True, slots=True)
class _Snapshot(Wire):
    format: int
    cluster_id: str
    index: int
    topics: tuple[TopicState, ...]
    brokers: tuple[BrokerState, ...]
    configs: tuple[tuple[int, str, tuple[tuple[str, str], ...]], ...]
    features: tuple[tuple[str, int], ...]
    next_producer_id: int
    last_broker_epoch: int
    events: tuple[Event, ...] = ()
    next_event: int = 1
    controllers: tuple[tuple[int, str, int], ...] = ()
    credentials: tuple[tuple[str, tuple[ScramCredential, ...]], ...] = ()
    inter_broker_secret: bytes = b""


def encode_snapshot(image: MetadataImage, history: History | None = None) -> bytes:
    """Equal images give equal bytes: everything is sorted. Brokers get it without the history."""
    snapshot = _Snapshot(
        FORMAT,
        image.cluster_id,
        image.index,
        tuple(topic for _, topic in sorted(image.topics_by_name.items())),
        tuple(broker for _, broker in sorted(image.brokers.items())),
        tuple((t, n, tuple(sorted(v.items()))) for (t, n), v in sorted(image.configs.items())),
        tuple(sorted(image.features.items())),
        image.next_producer_id,
        image.last_broker_epoch,
        () if history is None else history.events,
        1 if history is None else history.next_sequence,
        tuple((i, *(at or ("", -1))) for i, at in sorted(image.controllers.items())),
        tuple(
            (user, tuple(own[mechanism] for mechanism in sorted(own)))
            for user, own in sorted(image.credentials.items())
        ),
        image.inter_broker_secret,
    )
    packed = msgpack.packb(snapshot.to_wire())
    assert isinstance(packed, bytes)
    return packed


def decode_snapshot(data: bytes) -> MetadataImage:
    """Raises `ValueError` on anything that is not a snapshot of this format."""
    return decode_snapshot_and_history(data)[0]


def decode_snapshot_and_history(data: bytes) -> tuple[MetadataImage, History]:
    """As `decode_snapshot`, with the events that a controller's snapshot carries."""
    try:
        values = msgpack.unpackb(data)
    except (ValueError, msgpack.UnpackException) as error:
        raise ValueError(f"not a metadata snapshot: {error}") from None
    s = _Snapshot.from_wire(values)
    if s.format != FORMAT:
        raise ValueError(f"metadata snapshot has format {s.format}, this release reads {FORMAT}")
    image = MetadataImage(
        s.cluster_id,
        s.index,
        {topic.name: topic for topic in s.topics},
        {topic.topic_id: topic for topic in s.topics},
        {broker.node_id: broker for broker in s.brokers},
        {(kind, name): dict(values) for kind, name, values in s.configs},
        dict(s.features),
        s.next_producer_id,
        s.last_broker_epoch,
        {i: (host, port) if port >= 0 else None for i, host, port in s.controllers},
        {user: {c.mechanism: c for c in own} for user, own in s.credentials},
        s.inter_broker_secret,
    )
    return image, History(s.events, s.next_event)
