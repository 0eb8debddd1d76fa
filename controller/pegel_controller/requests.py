"""What the active controller answers: each RPC to the pure controller, and requests that wait."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pegel.protocol.errors import ErrorCode
from pegel_controller.control.options import ControllerResult
from pegel_controller.membership import Membership
from pegel_controller.metadata import encode_snapshot
from pegel_controller.metadata.wire import Wire
from pegel_controller.rpc import messages as m
from pegel_controller.rpc.credential_messages import AlterCredentialsRequest
from pegel_controller.rpc.framing import RpcRefusedError
from pegel_controller.rpc.quorum_messages import AddVoterRequest, RemoveVoterRequest
from pegel_controller.rpc.reassignment_messages import AlterReassignmentsRequest
from pegel_controller.rpc.recovery_messages import ReportLogEndsRequest
from pegel_controller.spreading import Spreading

if TYPE_CHECKING:
    from pegel_controller.node import ControllerNode

MAX_METADATA_WAIT = 30.0
MAX_TOPIC_WAIT = 60.0
EVENTS_PER_RESPONSE_MAX = 1_000


class ControllerRequests:
    """Serves one ``ControllerNode`` while it is active."""

    def __init__(self, node: ControllerNode) -> None:
        self._node = node
        self.membership = Membership(node)
        self._spreading = Spreading()

    def fail(self, error: Exception) -> None:
        """Leadership was lost: whoever waits for brokers to catch up waits in vain."""
        self._spreading.fail(error)

    async def dispatch(self, request: Wire) -> Wire:
        node = self._node
        now, controller = node.world.clock.monotonic(), node.controller
        match request:
            case m.HeartbeatRequest():
                return await self._heartbeat(request)
            case m.MetadataFetchRequest():
                return await self._fetch(request)
            case m.AlterPartitionRequest():
                return await self._node.respond(controller.alter_partition(now, request))
            case m.CreateTopicsRequest():
                result = controller.create_topics(now, request)
                return await self._spread(result, request.timeout_ms)
            case m.DeleteTopicsRequest():
                result = controller.delete_topics(now, request)
                return await self._spread(result, request.timeout_ms)
            case m.CreatePartitionsRequest():
                result = controller.create_partitions(now, request)
                return await self._spread(result, request.timeout_ms)
            case m.AlterConfigsRequest():
                result = controller.alter_configs(now, request)
                return await self._spread(result, int(MAX_TOPIC_WAIT * 1000))
            case AlterCredentialsRequest():
                result = controller.alter_credentials(now, request)
                return await self._spread(result, int(MAX_TOPIC_WAIT * 1000))
            case AlterReassignmentsRequest():
                result = controller.alter_reassignments(now, request)
                return await self._spread(result, request.timeout_ms)
            case m.ElectLeadersRequest():
                return await self._elect(request)
            case m.ResignRequest():
                return await self._node.respond(controller.resign(now, request))
            case ReportLogEndsRequest():
                return await self._node.respond(controller.report_log_ends(now, request))
            case m.RegisterBrokerRequest():
                return await self._node.respond(controller.register_broker(now, request))
            case m.AllocateProducerIdsRequest():
                return await self._node.respond(controller.allocate_producer_ids(now, request))
            case m.UnregisterBrokerRequest():
                return await self._node.respond(controller.unregister_broker(now, request))
            case m.UpdateOfflineReplicasRequest():
                return await self._node.respond(controller.update_offline_replicas(now, request))
            case AddVoterRequest() | RemoveVoterRequest():
                return await self.membership.change(request)
            case m.StatusRequest():
                return self.membership.describe()
            case m.EventsRequest():
                return await self._events(request)
        raise RpcRefusedError(ErrorCode.UNSUPPORTED_VERSION, f"no rule for {type(request)}")

    async def _heartbeat(self, request: m.HeartbeatRequest) -> Wire:
        """The lease in the answer is good: ``respond`` shows that nobody else was active when the
        request came. It counts from the sending, so it ends before a newer controller's grace."""
        result = self._node.controller.heartbeat(self._node.world.clock.monotonic(), request)
        self.check_spread()
        return await self._node.respond(result)

    async def _fetch(self, request: m.MetadataFetchRequest) -> m.MetadataFetchResponse:
        """Long poll; it says what is applied as well."""
        self._node.controller.on_metadata_applied(request.broker_id, request.applied_index)
        self.check_spread()
        if request.from_index > self._node.feed.index:
            # Either this one was held up and another is active, or the log did lose its end. Only
            # then is the broker to go back.
            await self._node.confirm_lead()
        entries = self._node.feed.after(request.from_index, request.max_bytes)
        if entries == ():
            await self._node.feed.changed(min(request.max_wait_ms / 1000, MAX_METADATA_WAIT))
            if not self._node.active:
                raise self._node.not_controller()
            entries = self._node.feed.after(request.from_index, request.max_bytes)
        if entries is None:
            image = self._node.image
            return m.MetadataFetchResponse(
                snapshot=encode_snapshot(image), snapshot_index=image.index,
                commit_index=self._node.feed.index,
            )  # fmt: skip
        return m.MetadataFetchResponse(entries=entries, commit_index=self._node.feed.index)

    async def _events(self, request: m.EventsRequest) -> m.EventsResponse:
        """Long poll, as of the metadata itself."""
        clock = self._node.world.clock
        deadline = clock.monotonic() + min(request.max_wait_ms / 1000, MAX_METADATA_WAIT)
        limit = max(1, min(request.limit, EVENTS_PER_RESPONSE_MAX))
        after = request.after
        while True:
            history = self._node.controller.history
            events, after = history.after(
                after, topic=request.topic, partition=request.partition, limit=limit
            )
            left = deadline - clock.monotonic()
            if events or left <= 0:
                return m.EventsResponse(events=events, last=after, first=history.first_sequence)
            await self._node.feed.changed(left)
            if not self._node.active:
                raise self._node.not_controller()

    async def _spread(self, result: ControllerResult, timeout_ms: int) -> Wire:
        """Answer when every live broker has applied the change, or the time is up."""
        response = await self._node.respond(result)
        if result.records:
            timeout = min(max(timeout_ms, 0) / 1000, MAX_TOPIC_WAIT)
            await self._spreading.wait(
                self._node.image.index, timeout, self._node.controller.brokers_behind
            )
        return response

    async def _elect(self, request: m.ElectLeadersRequest) -> Wire:
        """Answer when live leaders have handed over, or the time is up."""
        now = self._node.world.clock.monotonic()
        deadline = now + min(max(request.timeout_ms, 0) / 1000, MAX_TOPIC_WAIT)
        response = await self._spread(
            self._node.controller.elect_leaders(now, request), request.timeout_ms
        )
        assert isinstance(response, m.ElectLeadersResponse)
        while (late := self._not_led_by_preferred(response.awaited)) and self._node.active:
            left = deadline - self._node.world.clock.monotonic()
            if left <= 0:
                break
            await self._node.feed.changed(left)
        if not late:
            return replace(response, awaited=())
        code = ErrorCode.REQUEST_TIMED_OUT
        partitions = tuple(
            replace(p, error=code, message=code.message) if (p.topic, p.partition) in late else p
            for p in response.partitions
        )
        return replace(response, partitions=partitions, awaited=())

    def _not_led_by_preferred(self, awaited: Sequence[tuple[str, int]]) -> set[tuple[str, int]]:
        late = set()
        for topic, number in awaited:
            state = self._node.image.partition(topic, number)
            if state is not None and state.leader != state.preferred_leader:
                late.add((topic, number))
        return late

    def check_spread(self) -> None:
        self._spreading.check(self._node.controller.brokers_behind)
