"""Timings, limits and static configuration of the controller."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pegel_controller.metadata.records import Record
from pegel_controller.metadata.wire import Wire

# How much longer a lease may last by the clock of the broker that holds it.
CLOCK_DRIFT = 1.05
# So long a new active controller fences nobody: every lease of the one before ends in it.
TAKEOVER_GRACE = 1.4


@dataclass(frozen=True, slots=True)
class ControllerOptions:
    """Seconds. A session and `takeover_grace` must outlast a lease at `CLOCK_DRIFT`."""

    lease: float = 1.2
    session_timeout: float = 2.0
    takeover_grace: float = TAKEOVER_GRACE
    # How long other replicas are waited for where the last known leader may lead (`recovery`).
    recovery_timeout: float = 10.0
    balance_interval: float = 5.0
    balance_batch_max: int = 1000
    reassignment_check_interval: float = 1.0
    partitions_per_request_max: int = 10_000
    partitions_per_topic_max: int = 100_000
    producer_id_block: int = 1000
    static_configs: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.lease * CLOCK_DRIFT < self.session_timeout
        assert self.lease * CLOCK_DRIFT < self.takeover_grace


@dataclass(frozen=True, slots=True)
class ControllerResult:
    """`records` must be proposed as ONE entry; `response` leaves once they are committed.

    Already applied to the controller's speculative tip. `response` is None for
    events that answer nobody.
    """

    records: tuple[Record, ...] = ()
    response: Wire | None = None
