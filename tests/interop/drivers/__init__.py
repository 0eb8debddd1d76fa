"""One small interface over other people's clients, so that each scenario is written once.

The clients are used unmodified and through their public interfaces alone.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.interop.drivers.aiokafka import AioKafka
from tests.interop.drivers.confluent import Confluent
from tests.interop.drivers.interface import Driver, Pair, Received
from tests.interop.drivers.kafka_python import KafkaPython

__all__ = ["DRIVERS", "Driver", "Pair", "Received"]

DRIVERS: dict[str, Callable[[str], Driver]] = {
    "confluent": Confluent,
    "kafka_python": KafkaPython,
    "aiokafka": AioKafka,
}
