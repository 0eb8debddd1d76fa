"""A pytest plugin: runs a test session without one safeguard, named by PEGEL_WITHOUT."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.simulation.cluster.safeguards import SAFEGUARDS, without

VARIABLE = "PEGEL_WITHOUT"


@pytest.fixture(scope="session", autouse=True)
def taken_away() -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(without(SAFEGUARDS[os.environ[VARIABLE]]))
        yield
