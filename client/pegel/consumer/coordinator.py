"""Finds the coordinator of a group, and follows it when it moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from pegel.cluster import Cluster
from pegel.errors import BrokerError, PegelError, RequestTimeoutError, broker_error, to_error_code
from pegel.network.pool import CONTROL, Endpoint
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.find_coordinator import (
    FindCoordinatorRequest,
    FindCoordinatorResponse,
)
from pegel.protocol.schema import Message

M = TypeVar("M", bound=Message)

_GROUP = 0
_MOVED = {ErrorCode.NOT_COORDINATOR, ErrorCode.COORDINATOR_NOT_AVAILABLE}
# The same coordinator will know in a moment.
_LATER = {ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, ErrorCode.UNSTABLE_OFFSET_COMMIT}
# A coordinator that keeps silent for so long may have been replaced: others are asked.
_DOUBT = 1.0


class Coordinator:
    """Asks the coordinator of one group, whichever broker that is at the moment.

    Args:
        purpose: names a connection of its own: a JoinGroup waits at the broker for the other
            members, and what stands behind it on the connection waits too.
    """

    def __init__(self, cluster: Cluster, group: str, purpose: str = CONTROL) -> None:
        self._cluster, self.group, self.purpose = cluster, group, purpose
        self._known: Endpoint | None = None

    @property
    def endpoint(self) -> Endpoint | None:
        """The coordinator as last known."""
        return self._known

    async def find(self, *, timeout: float) -> Endpoint:
        """Ask for the coordinator once.

        Raises:
            BrokerError: there is none at the moment, or the group may not be used.
            ConnectionFailedError, RequestTimeoutError: no broker answers.
        """
        request = FindCoordinatorRequest(
            key=self.group, key_type=_GROUP, coordinator_keys=[self.group]
        )
        response = await self._cluster.ask_hedged(request, FindCoordinatorResponse, timeout=timeout)
        found = response.coordinators[0] if response.coordinators else response
        if found.error_code:
            raise broker_error(found.error_code, f"group {self.group!r}", found.error_message)
        return Endpoint(found.node_id, found.host, found.port)

    async def ask(
        self,
        request: Message,
        response_type: type[M],
        error_of: Callable[[M], int],
        *,
        timeout: float,
        wait: float = 0.0,
    ) -> M:
        """One request, repeated while the coordinator moves or cannot be reached.

        The response may still hold any error but those of finding the coordinator.

        Args:
            timeout: seconds for which trouble may last.
            wait: seconds that a coordinator in good health may take on top of that.

        Raises:
            BrokerError, ConnectionFailedError, RequestTimeoutError: no coordinator answered
                within ``timeout`` seconds; the last reason.
        """
        clock = self._cluster.clock
        deadline = clock.monotonic() + timeout
        attempts = 0
        last: PegelError | None = None
        while True:
            left = deadline - clock.monotonic()
            if left <= 0:
                raise last or RequestTimeoutError(
                    f"group {self.group!r}: no coordinator answered in {timeout:.3g} s"
                )
            asked_at: float | None = None
            try:
                if self._known is None:
                    self._known = await self.find(timeout=left)
                asked_at = clock.monotonic()
                response = await self._ask_known(self._known, request, response_type, left + wait)
                code = to_error_code(error_of(response))
                if code not in _MOVED and code not in _LATER:
                    return response
                last = broker_error(code, f"group {self.group!r} at {self._known}")
                if code in _MOVED:
                    self._known = None
            except PegelError as error:
                if not error.retriable:
                    raise
                last = error
                if not isinstance(error, BrokerError):
                    self._known = None
            if asked_at is not None:  # a coordinator that died while we waited: no time of trouble
                deadline += min(wait, clock.monotonic() - asked_at)
            left = deadline - clock.monotonic()
            if left > 0:
                await asyncio.sleep(min(left, self._cluster.retry_pause(attempts)))
            attempts += 1

    async def _ask_known(
        self, endpoint: Endpoint, request: Message, response_type: type[M], timeout: float
    ) -> M:
        """Wait for the answer for as long as the broker asked is still the coordinator."""
        pool = self._cluster.pool
        task = asyncio.get_running_loop().create_task(
            pool.ask(endpoint, request, response_type, purpose=self.purpose, timeout=timeout)
        )
        try:
            while True:
                done, _ = await asyncio.wait([task], timeout=_DOUBT)
                if done:
                    return task.result()
                if await self._is_replaced(endpoint):
                    raise RequestTimeoutError(
                        f"{endpoint} is silent, and no coordinator of {self.group!r} any more"
                    )
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
            if not task.cancelled():
                task.exception()

    async def _is_replaced(self, endpoint: Endpoint) -> bool:
        try:
            found = await self.find(timeout=_DOUBT)
        except PegelError:
            return False
        if found == endpoint:
            return False
        # What waits on the connection to a broker that hangs would only wait on.
        self._cluster.pool.drop(endpoint.node_id, self.purpose)
        return True


async def find_coordinators(
    cluster: Cluster, groups: Sequence[str], timeout: float
) -> dict[str, Endpoint]:
    """The coordinators of many groups, asked for at once where the broker can (KIP-699).

    Raises:
        BrokerError: one of them has none at the moment. ConnectionFailedError: no answer.
    """
    request = FindCoordinatorRequest(key_type=_GROUP, coordinator_keys=list(groups))
    response = await cluster.ask_hedged(request, FindCoordinatorResponse, timeout=timeout)
    if not response.coordinators:  # an older broker, which looked for the group ""
        return {g: await Coordinator(cluster, g).find(timeout=timeout) for g in groups}
    found: dict[str, Endpoint] = {}
    for c in response.coordinators:
        if c.error_code:
            raise broker_error(c.error_code, f"group {c.key!r}", c.error_message)
        found[c.key] = Endpoint(c.node_id, c.host, c.port)
    left_out = [group for group in groups if group not in found]
    if left_out:
        raise broker_error(15, f"the coordinators of {len(left_out)} groups, {left_out[0]!r} first")
    return found
