"""Tells the controller which replicas of this broker have failed, until it knows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from uuid import UUID

from pegel.logs import Event
from pegel_broker.metrics.vitals import Vitals
from pegel_controller.metadata import MetadataImage
from pegel_controller.rpc import messages as m
from pegel_controller.rpc.channel import ControllerChannel
from pegel_controller.rpc.framing import RpcError, RpcRefusedError

_log = logging.getLogger("pegel.broker")

REPORT_TIMEOUT = 5.0
RETRY_INTERVAL = 0.100


def on_metadata_log_failed(
    vitals: Vitals, fail: Callable[[str], None], data_dir: str, error: Exception
) -> None:
    """What the log directories are to records, this one is to metadata: without it a node ends."""
    vitals.raft_offline = True
    _log.error(Event("log_directory_offline", dir=f"{data_dir}/raft", reason=error))
    fail(f"the metadata log failed: {error}")


class OfflineReport:
    """Compares what failed with what the metadata say, and reports the whole list where it differs.

    So a report that was lost is repeated, whoever is the active controller by then, and so is one
    that a new registration made forgotten.
    """

    def __init__(
        self,
        node_id: int,
        channel: ControllerChannel,
        broker_epoch: Callable[[], int],
        offline: Callable[[], Mapping[tuple[UUID, int], str]],
    ) -> None:
        """``offline``: replicas that have failed, each with its reason ("": its directory's)."""
        self._node_id = node_id
        self._channel = channel
        self._broker_epoch = broker_epoch
        self._offline = offline
        self._due = asyncio.Event()
        self._known: tuple[tuple[UUID, int], ...] = ()  # what the metadata say

    def wake(self) -> None:
        """One more replica has failed."""
        self._due.set()

    def on_metadata(self, image: MetadataImage) -> None:
        broker = image.brokers.get(self._node_id)
        if broker is not None:
            self._known = broker.offline_replicas
            if self.pending():
                self._due.set()

    def pending(self) -> bool:
        """Whether the metadata do not say yet what failed: a leader may be elected by them."""
        return self._known != tuple(sorted(self._offline()))

    async def run(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            if not await self._report():
                await asyncio.sleep(RETRY_INTERVAL)
                self._due.set()

    async def _report(self) -> bool:
        """Whether the controller has committed it."""
        failed = sorted(self._offline().items())
        request = m.UpdateOfflineReplicasRequest(
            self._node_id, self._broker_epoch(), (),
            tuple(key for key, _ in failed), tuple(reason for _, reason in failed),
        )  # fmt: skip
        try:
            response = await self._channel.call("update_offline_replicas", request, REPORT_TIMEOUT)
        except (RpcError, RpcRefusedError) as error:
            _log.warning("the controller was not told of offline replicas yet: %s", error)
            return False
        assert isinstance(response, m.UpdateOfflineReplicasResponse)
        return not response.error  # a stale epoch: this broker is about to register anew
