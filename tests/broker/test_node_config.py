"""What a node refuses to start with, in one line that says what to change."""

from __future__ import annotations

import pytest

from pegel_broker.config import NodeConfig, NodeConfigError
from pegel_controller.control.options import ControllerOptions


def _config(lease: int, session: int) -> NodeConfig:
    settings = {"broker.lease.ms": str(lease), "broker.session.timeout.ms": str(session)}
    return NodeConfig(1, "/data", {1: ("127.0.0.1", 9093)}, settings=settings)


@pytest.mark.parametrize(
    ("lease", "session", "why"),
    [
        (1_334, 6_000, "broker.lease.ms is 1334, it may be 1333 at most"),
        (1_200, 1_260, "broker.session.timeout.ms is 1260: it must be more than 5 % longer"),
        (1_000, 500, "broker.session.timeout.ms is 500: it must be more than 5 % longer"),
    ],
)
def test_a_lease_that_outlasts_what_it_must_not_is_refused(
    lease: int, session: int, why: str
) -> None:
    """The controller stopped at an assertion, with a traceback."""
    with pytest.raises(NodeConfigError, match=why):
        _config(lease, session)


@pytest.mark.parametrize(("lease", "session"), [(1_333, 6_000), (1_200, 1_261), (100, 200)])
def test_what_is_not_refused_the_controller_takes(lease: int, session: int) -> None:
    config = _config(lease, session)
    ControllerOptions(
        lease=config.number("broker.lease.ms") / 1000,
        session_timeout=config.number("broker.session.timeout.ms") / 1000,
    )
