"""Create, grow and delete topics: validation in Kafka's wording, then records."""

import re
from collections.abc import Mapping
from random import Random
from uuid import UUID

from pegel.protocol.errors import ErrorCode
from pegel_controller.config import BROKER_CONFIGS, InvalidConfigError, validate_topic_configs
from pegel_controller.control.options import ControllerOptions
from pegel_controller.control.placement import place
from pegel_controller.control.tip import Tip
from pegel_controller.metadata.image import RESOURCE_TOPIC, MetadataImage
from pegel_controller.metadata.records import ConfigRecord, PartitionRecord, Record, TopicRecord
from pegel_controller.rpc.messages import CreatableTopic, CreatePartitionsTopic

NAME_LENGTH_MAX = 249
_LEGAL = re.compile(r"[a-zA-Z0-9._-]+")


class TopicError(Exception):
    """A refused topic: `code` and `message` of its result."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def check_name(name: str) -> None:
    """Kafka's Topic.validate. Raises `TopicError`."""
    why = ""
    if not name:
        why = "the empty string is not allowed"
    elif name in (".", ".."):
        why = f"'{name}' is not allowed"
    elif len(name) > NAME_LENGTH_MAX:
        why = f"the length of '{name}' is longer than the max allowed length {NAME_LENGTH_MAX}"
    elif not _LEGAL.fullmatch(name):
        why = (
            f"'{name}' contains one or more characters other than ASCII alphanumerics, "
            "'.', '_' and '-'"
        )
    if why:
        raise TopicError(ErrorCode.INVALID_TOPIC_EXCEPTION, f"Topic name is invalid: {why}")


def _default(tip: Tip, name: str) -> int:
    return int(tip.static.get(name, BROKER_CONFIGS[name].default))


def folded(name: str) -> str:
    """Topics whose names differ by this alone would share the names of their metrics in Kafka."""
    return name.replace(".", "_")


def by_folded_name(image: MetadataImage) -> dict[str, str]:
    """The topics that there are, by what their names may not collide in."""
    return {folded(name): name for name in image.topics_by_name}


def plan_topic(
    tip: Tip,
    topic: CreatableTopic,
    taken: Mapping[str, str],
    room: int,
    random: Random,
    options: ControllerOptions,
) -> tuple[UUID, int, int, list[Record]]:
    """(id, partitions, replication factor, records). Raises `TopicError`.

    ``taken``: of all topics, ``by_folded_name``.
    """
    check_name(topic.name)
    if topic.name in tip.image.topics_by_name:
        raise TopicError(ErrorCode.TOPIC_ALREADY_EXISTS, f"Topic '{topic.name}' already exists.")
    if (other := taken.get(folded(topic.name))) is not None:
        message = f"Topic '{topic.name}' collides with existing topic: {other}"
        raise TopicError(ErrorCode.INVALID_TOPIC_EXCEPTION, message)
    configs = {key: value for key, value in topic.configs if value is not None}
    try:
        validate_topic_configs(configs)
    except InvalidConfigError as error:
        raise TopicError(ErrorCode.INVALID_CONFIG, str(error)) from None
    if topic.assignments:
        placed = _manual(tip, topic)
    else:
        placed = _automatic(tip, topic, room, random, options)
    if len(placed) > room:
        message = f"Excessively large number of partitions per request. Limit: {room}"
        raise TopicError(ErrorCode.POLICY_VIOLATION, message)
    topic_id = UUID(int=random.getrandbits(128) or 1, version=4)
    records: list[Record] = [TopicRecord(topic.name, topic_id)]
    records += [
        ConfigRecord(RESOURCE_TOPIC, topic.name, key, configs[key]) for key in sorted(configs)
    ]
    records += new_partitions(tip, topic_id, 0, placed)
    return topic_id, len(placed), len(placed[0]), records


def _automatic(
    tip: Tip, topic: CreatableTopic, room: int, random: Random, options: ControllerOptions
) -> list[tuple[int, ...]]:
    count, factor = topic.num_partitions, topic.replication_factor
    if count != -1 and count <= 0:
        message = "Number of partitions was set to an invalid non-positive value."
        raise TopicError(ErrorCode.INVALID_PARTITIONS, message)
    if factor != -1 and factor <= 0:
        message = "Replication factor must be larger than 0, or -1 to use the default value."
        raise TopicError(ErrorCode.INVALID_REPLICATION_FACTOR, message)
    count = _default(tip, "num.partitions") if count == -1 else count
    factor = _default(tip, "default.replication.factor") if factor == -1 else factor
    if count > room:
        message = f"Excessively large number of partitions per request. Limit: {room}"
        raise TopicError(ErrorCode.POLICY_VIOLATION, message)
    if count > options.partitions_per_topic_max:
        message = f"A topic may have at most {options.partitions_per_topic_max} partitions."
        raise TopicError(ErrorCode.INVALID_PARTITIONS, message)
    return place_checked(tip, count, factor, random)


def place_checked(tip: Tip, count: int, factor: int, random: Random) -> list[tuple[int, ...]]:
    brokers = [b for _, b in sorted(tip.image.brokers.items())]
    prefix = f"Unable to replicate the partition {factor} time(s): "
    if factor > len(brokers):
        message = (
            f"The target replication factor of {factor} cannot be reached because only "
            f"{len(brokers)} broker(s) are registered."
        )
        raise TopicError(ErrorCode.INVALID_REPLICATION_FACTOR, prefix + message)
    if not any(b.eligible for b in brokers):
        message = prefix + "All brokers are currently fenced."
        raise TopicError(ErrorCode.INVALID_REPLICATION_FACTOR, message)
    return place(brokers, count, factor, random)


def check_replicas(tip: Tip, replicas: tuple[int, ...], factor: int) -> None:
    """One manual assignment. Raises `TopicError`."""
    message = ""
    if not replicas:
        message = "The manual partition assignment includes an empty replica list."
    elif len(set(replicas)) != len(replicas):
        message = (
            "The manual partition assignment includes the broker "
            f"{next(r for r in replicas if replicas.count(r) > 1)} more than once."
        )
    elif len(replicas) != factor:
        message = (
            f"The manual partition assignment includes a partition with {len(replicas)} "
            f"replica(s), but this is not consistent with previous partitions, which have "
            f"{factor} replica(s)."
        )
    else:
        for broker in replicas:
            if broker not in tip.image.brokers:
                message = (
                    f"The manual partition assignment includes broker {broker}, but no such "
                    "broker is registered."
                )
                break
        else:
            if not any(tip.eligible(r) for r in replicas):
                message = "All brokers specified in the manual partition assignment are fenced."
    if message:
        raise TopicError(ErrorCode.INVALID_REPLICA_ASSIGNMENT, message)


def _manual(tip: Tip, topic: CreatableTopic) -> list[tuple[int, ...]]:
    if topic.num_partitions != -1 or topic.replication_factor != -1:
        which = "numPartitions" if topic.num_partitions != -1 else "replicationFactor"
        message = (
            "A manual partition assignment was specified, but "
            f"{which} was not set to -1."
        )  # fmt: skip
        raise TopicError(ErrorCode.INVALID_REQUEST, message)
    assignments = dict(topic.assignments)
    if sorted(assignments) != list(range(len(topic.assignments))):
        message = "partitions should be a consecutive 0-based integer sequence"
        raise TopicError(ErrorCode.INVALID_REPLICA_ASSIGNMENT, message)
    placed = [assignments[number] for number in sorted(assignments)]
    for replicas in placed:
        check_replicas(tip, replicas, len(placed[0]))
    return placed


def new_partitions(
    tip: Tip, topic_id: UUID, first: int, placed: list[tuple[int, ...]]
) -> list[Record]:
    """Only eligible replicas start in the ISR; the first of them leads."""
    eligible = {b for b in tip.image.brokers if tip.eligible(b)}
    records: list[Record] = []
    for number, replicas in enumerate(placed, first):
        isr = tuple(r for r in replicas if r in eligible)
        records.append(PartitionRecord(topic_id, number, replicas, isr, isr[0]))
    return records


def plan_growth(tip: Tip, topic: CreatePartitionsTopic, room: int, random: Random) -> list[Record]:
    """Records of CreatePartitions for one topic. Raises `TopicError`."""
    state = tip.image.topics_by_name.get(topic.name)
    if state is None:
        raise TopicError(
            ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
            "This server does not host this topic-partition.",
        )
    have = len(state.partitions)
    if topic.count == have:
        message = f"Topic already has {have} partition(s)."
        raise TopicError(ErrorCode.INVALID_PARTITIONS, message)
    if topic.count < have:
        message = (
            f"The topic {topic.name} currently has {have} partition(s); "
            f"{topic.count} would not be an increase."
        )
        raise TopicError(ErrorCode.INVALID_PARTITIONS, message)
    added = topic.count - have
    if added > room:
        message = f"Excessively large number of partitions per request. Limit: {room}"
        raise TopicError(ErrorCode.POLICY_VIOLATION, message)
    factor = len(state.partitions[0].target)
    if topic.assignments is None:
        placed = place_checked(tip, added, factor, random)
    else:
        if len(topic.assignments) != added:
            message = (
                f"Attempted to add {added} additional partition(s), but only "
                f"{len(topic.assignments)} assignment(s) were specified."
            )
            raise TopicError(ErrorCode.INVALID_REPLICA_ASSIGNMENT, message)
        placed = list(topic.assignments)
        for replicas in placed:
            check_replicas(tip, replicas, factor)
    return new_partitions(tip, state.topic_id, have, placed)
