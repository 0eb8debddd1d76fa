"""AlterConfigs and IncrementalAlterConfigs of one resource."""

from pegel.protocol.errors import ErrorCode
from pegel_controller.config import (
    BROKER_CONFIGS,
    TOPIC_CONFIGS,
    ConfigType,
    InvalidConfigError,
    validate_broker_configs,
    validate_topic_configs,
)
from pegel_controller.control.tip import Tip
from pegel_controller.control.topics import TopicError
from pegel_controller.metadata.image import RESOURCE_BROKER, RESOURCE_TOPIC
from pegel_controller.metadata.records import ConfigRecord, Record
from pegel_controller.rpc.messages import ConfigOperation, ConfigResource

MIN_ISR = "min.insync.replicas"
UNCLEAN = "unclean.leader.election.enable"
SET, DELETE, APPEND, SUBTRACT = range(4)


def plan_configs(tip: Tip, resource: ConfigResource, full: bool) -> list[Record]:
    """Records for one resource. Raises `TopicError` with its code and message."""
    kind, name = resource.resource_type, resource.resource_name
    if kind == RESOURCE_TOPIC:
        if name not in tip.image.topics_by_name:
            code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            raise TopicError(code, f"The topic '{name}' does not exist.")
    elif kind != RESOURCE_BROKER:
        raise TopicError(ErrorCode.INVALID_REQUEST, f"Unexpected resource type {kind}.")
    elif name and not (name.isdecimal() and int(name) in tip.image.brokers):
        raise TopicError(ErrorCode.BROKER_ID_NOT_REGISTERED, f"No broker with id {name} found.")
    old = tip.image.configs.get((kind, name), {})
    new = {} if full else dict(old)
    seen: set[str] = set()
    for operation in resource.operations:
        if operation.key in seen:
            raise TopicError(ErrorCode.INVALID_REQUEST, "Error due to duplicate config keys")
        seen.add(operation.key)
        _operate(kind, new, operation, SET if full else operation.operation)
    if kind == RESOURCE_BROKER:
        _check_minimum(name, old.get(MIN_ISR), new.get(MIN_ISR))
    changed = {key: value for key, value in new.items() if old.get(key) != value}
    try:
        (validate_topic_configs if kind == RESOURCE_TOPIC else validate_broker_configs)(changed)
    except InvalidConfigError as error:
        raise TopicError(ErrorCode.INVALID_CONFIG, str(error)) from None
    return [
        ConfigRecord(kind, name, key, new.get(key))
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]


def _check_minimum(broker: str, old: str | None, new: str | None) -> None:
    """KIP-966: who is eligible rests on one minimum, the same for controllers and brokers."""
    if broker and new is not None and new != old:
        message = f"Broker-level {MIN_ISR} cannot be altered while ELR is enabled."
        raise TopicError(ErrorCode.INVALID_CONFIG, message)
    if not broker and new is None and old is not None:
        message = f"Cluster-level {MIN_ISR} cannot be removed while ELR is enabled."
        raise TopicError(ErrorCode.INVALID_CONFIG, message)


def _operate(kind: int, values: dict[str, str], operation: ConfigOperation, mode: int) -> None:
    table = TOPIC_CONFIGS if kind == RESOURCE_TOPIC else BROKER_CONFIGS
    key = table.get(operation.key)
    if key is None and kind == RESOURCE_TOPIC:
        raise TopicError(ErrorCode.INVALID_CONFIG, f"Unknown topic config name: {operation.key}")
    if mode == DELETE:
        values.pop(operation.key, None)
        return
    if operation.value is None:
        message = f"Null value not supported for topic configs: {operation.key}"
        raise TopicError(ErrorCode.INVALID_CONFIG, message)
    if mode == SET:
        values[operation.key] = operation.value
        return
    if mode not in (APPEND, SUBTRACT):
        raise TopicError(ErrorCode.INVALID_REQUEST, f"Unknown operation type {mode}.")
    if key is None or key.type is not ConfigType.LIST:
        verb = "APPEND" if mode == APPEND else "SUBTRACT"
        message = f"Can't {verb} to key {operation.key} because its type is not LIST."
        raise TopicError(ErrorCode.INVALID_CONFIG, message)
    items = [i for i in values.get(operation.key, key.default).split(",") if i]
    given = [i.strip() for i in operation.value.split(",") if i.strip()]
    if mode == APPEND:
        items += [i for i in given if i not in items]
    else:
        items = [i for i in items if i not in given]
    values[operation.key] = ",".join(items)
