"""Small values that several handlers report."""

from __future__ import annotations

from pegel_broker.handlers.context import Broker
from pegel_controller import config
from pegel_controller.config import BROKER_CONFIGS, Value

OPERATIONS_NOT_ASKED = -(2**31)


def _bits(*operations: int) -> int:
    return sum(1 << operation for operation in operations)


# Numbers of Kafka's AclOperation; without an authorizer everything is allowed.
ALL_TOPIC_OPERATIONS = _bits(3, 4, 5, 6, 7, 8, 10, 11)
ALL_GROUP_OPERATIONS = _bits(3, 6, 8)
ALL_CLUSTER_OPERATIONS = _bits(5, 7, 8, 9, 10, 11, 12)


def broker_value(broker: Broker, key: str) -> Value:
    """The effective value of a broker key on this node."""
    return config.broker_value(
        broker.image, BROKER_CONFIGS[key], broker.static_configs, broker.node_id
    )


def reported_controller(broker: Broker) -> int:
    """The active controller where it is a serving broker as well, else any that forwards."""
    brokers = broker.image.brokers
    active = broker.controllers.controller_id
    if active in brokers and not brokers[active].fenced:
        return active
    return min((i for i, b in brokers.items() if not b.fenced), default=-1)
