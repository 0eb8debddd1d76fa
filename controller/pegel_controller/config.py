"""The one declaration of every topic and broker configuration key (Kafka's names and defaults).

Validation, effective values, DescribeConfigs and the documentation derive from it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from pegel_controller.metadata.image import RESOURCE_BROKER, RESOURCE_TOPIC, MetadataImage

Value = bool | int | float | str | list[str]
INT_MAX = 2**31 - 1
LONG_MAX = 2**63 - 1


class ConfigType(IntEnum):
    """Numbers as DescribeConfigs sends them."""

    BOOLEAN = 1
    STRING = 2
    INT = 3
    SHORT = 4
    LONG = 5
    DOUBLE = 6
    LIST = 7


class ConfigSource(IntEnum):
    """Numbers as DescribeConfigs sends them."""

    DYNAMIC_TOPIC_CONFIG = 1
    DYNAMIC_BROKER_CONFIG = 2
    DYNAMIC_DEFAULT_BROKER_CONFIG = 3
    STATIC_BROKER_CONFIG = 4
    DEFAULT_CONFIG = 5


class InvalidConfigError(ValueError):
    """The message is Kafka's wording, for INVALID_CONFIG."""


@dataclass(frozen=True, slots=True)
class ConfigKey:
    """`minimum`, `maximum` inclusive; `choices` for strings and list items."""

    name: str
    type: ConfigType
    default: str
    doc: str
    scope: Literal["topic", "broker"] = "broker"
    broker_synonym: str = ""
    dynamic: bool = False
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ConfigSynonym:
    name: str
    value: str
    source: ConfigSource


@dataclass(frozen=True, slots=True)
class ConfigEntry:
    """What DescribeConfigs says of one key; synonyms in order of precedence."""

    key: ConfigKey
    value: str
    source: ConfigSource
    synonyms: tuple[ConfigSynonym, ...]
    read_only: bool = False


def _table(*keys: ConfigKey) -> dict[str, ConfigKey]:
    table = {key.name: key for key in keys}
    assert len(table) == len(keys), "a key is declared twice"
    return table


_T = ConfigType
_CODECS = ("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer")


def _topic(
    name: str,
    kind: ConfigType,
    default: object,
    doc: str,
    synonym: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> ConfigKey:
    return ConfigKey(name, kind, str(default), doc, "topic", synonym, True, low, high, choices)


TOPIC_CONFIGS = _table(
    _topic("cleanup.policy", _T.LIST, "delete", "Delete or compact old segments.",
           "log.cleanup.policy", choices=("compact", "delete")),
    _topic("compression.type", _T.STRING, "producer", "Final compression of a topic.",
           "compression.type", choices=_CODECS),
    _topic("delete.retention.ms", _T.LONG, 86_400_000, "How long tombstones are kept.",
           "log.cleaner.delete.retention.ms", 0),
    _topic("file.delete.delay.ms", _T.LONG, 60_000, "Wait before a file is deleted.",
           "log.segment.delete.delay.ms", 0),
    _topic("flush.messages", _T.LONG, LONG_MAX, "Sync after this many records; 1: each batch.",
           "log.flush.interval.messages", 1),
    _topic("flush.ms", _T.LONG, LONG_MAX, "Sync at least this often.",
           "log.flush.interval.ms", 0),
    _topic("follower.replication.throttled.replicas", _T.LIST, "", "Throttled followers."),
    _topic("index.interval.bytes", _T.INT, 4096, "Bytes between index entries.",
           "log.index.interval.bytes", 0, INT_MAX),
    _topic("leader.replication.throttled.replicas", _T.LIST, "", "Throttled leaders."),
    _topic("max.compaction.lag.ms", _T.LONG, LONG_MAX, "Longest time a record stays uncompacted.",
           "log.cleaner.max.compaction.lag.ms", 1),
    _topic("max.message.bytes", _T.INT, 1_048_588, "Largest record batch.",
           "message.max.bytes", 0, INT_MAX),
    _topic("message.timestamp.after.max.ms", _T.LONG, 3_600_000, "Accepted future time stamps.",
           "log.message.timestamp.after.max.ms", 0),
    _topic("message.timestamp.before.max.ms", _T.LONG, LONG_MAX, "Accepted past time stamps.",
           "log.message.timestamp.before.max.ms", 0),
    _topic("message.timestamp.type", _T.STRING, "CreateTime", "Whose clock stamps records.",
           "log.message.timestamp.type", choices=("CreateTime", "LogAppendTime")),
    _topic("min.cleanable.dirty.ratio", _T.DOUBLE, 0.5, "Dirty share that starts compaction.",
           "log.cleaner.min.cleanable.ratio", 0, 1),
    _topic("min.compaction.lag.ms", _T.LONG, 0, "Shortest time a record stays uncompacted.",
           "log.cleaner.min.compaction.lag.ms", 0),
    _topic("min.insync.replicas", _T.INT, 1, "In-sync replicas that acks=all needs.",
           "min.insync.replicas", 1, INT_MAX),
    _topic("preallocate", _T.BOOLEAN, "false", "Preallocate segment files.", "log.preallocate"),
    _topic("retention.bytes", _T.LONG, -1, "Largest partition size; -1: any.",
           "log.retention.bytes"),
    _topic("retention.ms", _T.LONG, 604_800_000, "How long records are kept; -1: for ever.",
           "log.retention.ms", -1),
    _topic("segment.bytes", _T.INT, 1_073_741_824, "Segment size.",
           "log.segment.bytes", 14, INT_MAX),
    _topic("segment.index.bytes", _T.INT, 10_485_760, "Largest index file.",
           "log.index.size.max.bytes", 4, INT_MAX),
    _topic("segment.jitter.ms", _T.LONG, 0, "Random time taken off segment.ms.",
           "log.roll.jitter.ms", 0),
    _topic("segment.ms", _T.LONG, 604_800_000, "Time after which a segment rolls.",
           "log.roll.ms", 1),
    _topic("unclean.leader.election.enable", _T.BOOLEAN, "false",
           "Prefer availability to acknowledged data.", "unclean.leader.election.enable"),
)  # fmt: skip


def _broker_synonyms() -> list[ConfigKey]:
    """Each topic default is a dynamic broker key of its synonym's name."""
    return [
        ConfigKey(k.broker_synonym, k.type, k.default, k.doc, "broker", "", True,
                  k.minimum, k.maximum, k.choices)
        for k in TOPIC_CONFIGS.values() if k.broker_synonym
    ]  # fmt: skip


BROKER_CONFIGS = _table(
    *_broker_synonyms(),
    ConfigKey("advertised.listeners", _T.STRING, "", "Addresses told to clients."),
    ConfigKey("auto.create.topics.enable", _T.BOOLEAN, "true", "Create topics on first use."),
    ConfigKey("auto.leader.rebalance.enable", _T.BOOLEAN, "true", "Restore preferred leaders."),
    ConfigKey("broker.id", _T.INT, "-1", "The id of this node."),
    ConfigKey("broker.rack", _T.STRING, "", "The rack that placement keeps replicas apart by."),
    ConfigKey("broker.heartbeat.interval.ms", _T.INT, "400", "Time between heartbeats.", minimum=1),
    ConfigKey("broker.lease.ms", _T.INT, "1200", "How long a leader acts unheard.", minimum=1),
    ConfigKey("broker.session.timeout.ms", _T.INT, "2000", "Silence that fences.", minimum=1),
    ConfigKey("connection.failed.authentication.delay.ms", _T.INT, "100",
              "Wait before a client that could not log in is told.", minimum=0),
    ConfigKey("connections.max.reauth.ms", _T.LONG, "0",
              "How long a log-in is good for (KIP-368); 0: as long as the connection.", minimum=0),
    ConfigKey("default.replication.factor", _T.INT, "1", "Replicas of a new topic.", minimum=1),
    ConfigKey("delete.topic.enable", _T.BOOLEAN, "true", "Allow topic deletion."),
    ConfigKey("fetch.max.bytes", _T.INT, "57671680", "Largest fetch response.", minimum=1024),
    ConfigKey("follower.replication.throttled.rate", _T.LONG, str(LONG_MAX),
              "Bytes per second that throttled replicas here may copy.", dynamic=True, minimum=1),
    ConfigKey("group.initial.rebalance.delay.ms", _T.INT, "3000", "Wait for members.", minimum=0),
    ConfigKey("group.max.groups", _T.INT, "100000", "Groups per partition.", minimum=1),
    ConfigKey("group.max.session.timeout.ms", _T.INT, "1800000", "Longest allowed.", minimum=1),
    ConfigKey("group.max.size", _T.INT, "10000", "Members of one group.", minimum=1),
    ConfigKey("group.min.session.timeout.ms", _T.INT, "6000", "Shortest allowed.", minimum=1),
    ConfigKey("leader.imbalance.check.interval.seconds", _T.LONG, "5", "Period.", minimum=1),
    ConfigKey("leader.replication.throttled.rate", _T.LONG, str(LONG_MAX),
              "Bytes per second that throttled replicas may copy from here.", dynamic=True,
              minimum=1),
    ConfigKey("listeners", _T.STRING, "PLAINTEXT://127.0.0.1:9092", "Addresses bound."),
    ConfigKey("log.cleaner.backoff.ms", _T.LONG, "15000", "Time between compactions.", minimum=1),
    ConfigKey("log.cleaner.enable", _T.BOOLEAN, "true", "Compact logs whose policy says so."),
    ConfigKey("log.dirs", _T.STRING, "", "Log directories, comma separated."),
    ConfigKey("log.retention.check.interval.ms", _T.LONG, "300000", "Period.", minimum=1),
    ConfigKey("node.id", _T.INT, "-1", "The id of this node."),
    ConfigKey("num.partitions", _T.INT, "1", "Partitions of a new topic.", minimum=1),
    ConfigKey("offset.metadata.max.bytes", _T.INT, "4096", "Metadata of one offset.", minimum=0),
    ConfigKey("offsets.commit.timeout.ms", _T.INT, "5000", "Wait for replicas.", minimum=1),
    ConfigKey("offsets.retention.check.interval.ms", _T.LONG, "600000", "Period.", minimum=1),
    ConfigKey("offsets.retention.minutes", _T.INT, "10080", "Idle offsets are kept.", minimum=1),
    ConfigKey("offsets.topic.num.partitions", _T.INT, "50", "Coordinators.", minimum=1),
    ConfigKey("offsets.topic.replication.factor", _T.SHORT, "3", "At most this many.", minimum=1),
    ConfigKey("offsets.topic.segment.bytes", _T.INT, "104857600", "Segment size.", minimum=14),
    ConfigKey("process.roles", _T.LIST, "", "broker, controller or both."),
    ConfigKey("queued.max.request.bytes", _T.LONG, "268435456",
              "Bytes of requests that are still arriving, of all clients together; above it only "
              "the oldest one is read on. -1: no limit.", minimum=-1),
    ConfigKey("replica.fetch.max.bytes", _T.INT, "1048576", "Bytes per partition.", minimum=0),
    ConfigKey("replica.fetch.wait.max.ms", _T.INT, "2000",
              "Longest wait of a follower's fetch while nothing happens, half a second after news; "
              "new records end it at once.", minimum=0),
    ConfigKey("replica.replacement.moves.max", _T.INT, "16",
              "Replicas of lost brokers that are rebuilt at a time.", dynamic=True, minimum=1),
    ConfigKey("replica.replacement.timeout.ms", _T.LONG, "600000",
              "Absence, as one active controller sees it, after which a broker's replicas are "
              "rebuilt on others; -1: never.",
              dynamic=True, minimum=-1),
    ConfigKey("replica.lag.time.max.ms", _T.LONG, "30000", "Lag that leaves the ISR.", minimum=1),
    ConfigKey("request.slow.log.ms", _T.LONG, "1000", "Log slower requests; 0: none.", minimum=0),
    ConfigKey("sasl.bootstrap.users.file", _T.STRING, "",
              "Lines user:password, the users of a cluster that has none yet."),
    ConfigKey("sasl.enabled.mechanisms", _T.LIST, "",
              "How clients have to log in; empty: not at all.",
              choices=("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")),
    ConfigKey("socket.request.max.bytes", _T.INT, "104857600", "Largest request.", minimum=1),
    ConfigKey("unclean.recovery.timeout.ms", _T.LONG, "10000",
              "Wait for the log ends of replicas that are away, where all lost their page cache.",
              minimum=0),
)  # fmt: skip

_BOUNDS = {
    _T.INT: (-(2**31), INT_MAX),
    _T.SHORT: (-(2**15), 2**15 - 1),
    _T.LONG: (-(2**63), LONG_MAX),
}


def _invalid(key: ConfigKey, text: str, why: str) -> InvalidConfigError:
    return InvalidConfigError(f"Invalid value {text} for configuration {key.name}: {why}")


def parse(key: ConfigKey, text: str) -> Value:
    """The typed value. Raises `InvalidConfigError` in Kafka's wording."""
    stripped = text.strip()
    match key.type:
        case ConfigType.BOOLEAN:
            if stripped.lower() not in ("true", "false"):
                raise _invalid(key, text, "Expected value to be either true or false")
            return stripped.lower() == "true"
        case ConfigType.STRING:
            if key.choices and stripped not in key.choices:
                raise _invalid(key, text, f"String must be one of: {', '.join(key.choices)}")
            return stripped
        case ConfigType.LIST:
            items = [item.strip() for item in stripped.split(",")] if stripped else []
            for item in items:
                if key.choices and item not in key.choices:
                    raise _invalid(key, item, f"String must be one of: {', '.join(key.choices)}")
            return items
        case _:
            return _parse_number(key, stripped)


def _parse_number(key: ConfigKey, text: str) -> int | float:
    try:
        number: int | float = float(text) if key.type is ConfigType.DOUBLE else int(text)
    except ValueError:
        raise _invalid(key, text, f"Not a number of type {key.type.name}") from None
    low, high = _BOUNDS.get(key.type, (-float("inf"), float("inf")))
    if not low <= number <= high:
        raise _invalid(key, text, f"Not a number of type {key.type.name}")
    if key.minimum is not None and number < key.minimum:
        raise _invalid(key, text, f"Value must be at least {key.minimum}")
    if key.maximum is not None and number > key.maximum:
        raise _invalid(key, text, f"Value must be no more than {key.maximum}")
    return number


def validate_topic_configs(configs: Mapping[str, str]) -> None:
    """Raises `InvalidConfigError` for the first key (sorted) that is unknown or illegal."""
    for name in sorted(configs):
        key = TOPIC_CONFIGS.get(name)
        if key is None:
            raise InvalidConfigError(f"Unknown topic config name: {name}")
        parse(key, configs[name])


def validate_broker_configs(configs: Mapping[str, str]) -> None:
    """Checks known keys. Foreign ones are accepted: tools set keys of other brokers freely."""
    for name in sorted(configs):
        key = BROKER_CONFIGS.get(name)
        if key is None:
            continue
        if not key.dynamic:
            raise InvalidConfigError(f"Cannot update these configs dynamically: {{{name}}}")
        parse(key, configs[name])


def _layers(
    image: MetadataImage, static: Mapping[str, str], name: str, broker_id: int | None
) -> Iterator[tuple[str, ConfigSource]]:
    """What a broker key is set to and where, the one that holds first."""
    if broker_id is not None:
        own = image.configs.get((RESOURCE_BROKER, str(broker_id)))
        if own and name in own:
            yield own[name], ConfigSource.DYNAMIC_BROKER_CONFIG
    default = image.configs.get((RESOURCE_BROKER, ""))
    if default and name in default:
        yield default[name], ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG
    if name in static:
        yield static[name], ConfigSource.STATIC_BROKER_CONFIG
    if name in BROKER_CONFIGS and BROKER_CONFIGS[name].default:
        yield BROKER_CONFIGS[name].default, ConfigSource.DEFAULT_CONFIG


def _broker_layers(
    image: MetadataImage, static: Mapping[str, str], name: str, broker_id: int | None
) -> list[ConfigSynonym]:
    return [ConfigSynonym(name, *layer) for layer in _layers(image, static, name, broker_id)]


def _broker_text(
    image: MetadataImage, static: Mapping[str, str], name: str, broker_id: int | None
) -> str | None:
    """As it holds for one broker, or for all; None where it is set nowhere."""
    return next(_layers(image, static, name, broker_id), (None, None))[0]


def describe_topic_config(
    image: MetadataImage, topic: str, static: Mapping[str, str], broker_id: int | None = None
) -> dict[str, ConfigEntry]:
    """Every topic key: override → dynamic broker → dynamic default → static → default."""
    overrides = image.configs.get((RESOURCE_TOPIC, topic), {})
    entries = {}
    for name, key in TOPIC_CONFIGS.items():
        layers = _broker_layers(image, static, key.broker_synonym, broker_id)
        if name in overrides:
            source = ConfigSource.DYNAMIC_TOPIC_CONFIG
            layers.insert(0, ConfigSynonym(name, overrides[name], source))
        if layers:
            entries[name] = ConfigEntry(key, layers[0].value, layers[0].source, tuple(layers))
        else:
            entries[name] = ConfigEntry(key, key.default, ConfigSource.DEFAULT_CONFIG, ())
    return entries


def describe_broker_config(
    image: MetadataImage, broker_id: int, static: Mapping[str, str]
) -> dict[str, ConfigEntry]:
    """Every known broker key. Read-only static ones have no synonyms, as Kafka prints them."""
    entries = {}
    for name, key in BROKER_CONFIGS.items():
        layers = _broker_layers(image, static, name, broker_id)
        if layers:
            first = layers[0]
            synonyms = tuple(layers) if key.dynamic else ()
            entries[name] = ConfigEntry(key, first.value, first.source, synonyms, not key.dynamic)
        else:
            source = ConfigSource.DEFAULT_CONFIG
            entries[name] = ConfigEntry(key, key.default, source, (), not key.dynamic)
    return entries


def effective_topic_config(
    image: MetadataImage, topic: str, static: Mapping[str, str], broker_id: int | None = None
) -> dict[str, Value]:
    """Typed values of every topic key as they hold for `topic`."""
    overrides = image.configs.get((RESOURCE_TOPIC, topic), {})
    values = {}
    for name, key in TOPIC_CONFIGS.items():
        text = overrides.get(name)
        if text is None:
            text = _broker_text(image, static, key.broker_synonym, broker_id)
        values[name] = parse(key, key.default if text is None else text)
    return values


def broker_value(
    image: MetadataImage,
    key: ConfigKey,
    static: Mapping[str, str],
    broker_id: int | None = None,
) -> Value:
    """A key's value as it holds for a broker: set for it, for all brokers, static, default.

    Without ``broker_id`` as it holds for the cluster.
    """
    text = _broker_text(image, static, key.name, broker_id)
    return parse(key, key.default if text is None else text)


def topic_value(image: MetadataImage, topic: str, name: str, static: Mapping[str, str]) -> Value:
    """One effective value, without building the whole table."""
    key = TOPIC_CONFIGS[name]
    text = image.configs.get((RESOURCE_TOPIC, topic), {}).get(name)
    if text is None:
        text = _broker_text(image, static, key.broker_synonym, None)
    return parse(key, key.default if text is None else text)
