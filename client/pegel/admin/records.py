"""Admin calls about the records of partitions."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from pegel.admin.base import AdminBase
from pegel.errors import PegelError, TopicNotFoundError, broker_error, to_error_code
from pegel.network.pool import Endpoint
from pegel.offsets import OffsetAndTime, list_offsets
from pegel.portions import in_portions
from pegel.protocol.messages.delete_records import (
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    DeleteRecordsTopic,
)
from pegel.types import TopicPartition


class RecordAdmin(AdminBase):
    """The part of ``Admin`` that changes what partitions hold."""

    async def list_offsets(
        self, times: Mapping[TopicPartition, int], *, timeout: float | None = None
    ) -> dict[TopicPartition, OffsetAndTime]:
        """The first offset at or after each time (ms since 1970), -1 where nothing is so young.

        -1 as a time is the end of a partition, -2 its beginning, -3 its youngest record.

        Raises:
            TopicNotFoundError, BrokerError: for the first partition without an answer.
        """
        return await list_offsets(self._cluster, times, timeout=self._timeout(timeout))

    async def delete_records(
        self,
        before: Mapping[TopicPartition, int],
        *,
        timeout: float | None = None,
    ) -> dict[TopicPartition, int]:
        """Delete the records before these offsets (-1: all); the new log start offsets (KIP-107).

        Leaders that moved are followed until the time-out. To delete twice does no harm.

        Raises:
            OffsetOutOfRangeError: an offset beyond the high watermark.
            TopicNotFoundError, BrokerError: for the first partition that failed.
        """
        wait = self._timeout(timeout)
        clock, metadata = self._cluster.clock, self._cluster.metadata
        deadline = clock.monotonic() + wait
        missing = {TopicPartition(*tp): offset for tp, offset in before.items()}
        done: dict[TopicPartition, int] = {}
        attempts = 0
        while missing:
            left = max(0.001, deadline - clock.monotonic())
            by_leader: dict[Endpoint, dict[TopicPartition, int]] = {}
            errors: list[PegelError] = []
            for tp, offset in missing.items():
                topic = await metadata.topic(tp.topic, timeout=left)
                if not 0 <= tp.partition < len(topic.partitions):
                    raise TopicNotFoundError(
                        f"topic {tp.topic!r} has {len(topic.partitions)} partitions, not {tp}"
                    )
                leader = metadata.view.leader(*tp)
                if leader is None:
                    errors.append(broker_error(5, str(tp)))
                else:
                    by_leader.setdefault(leader, {})[tp] = offset
            for answer in await asyncio.gather(
                *(
                    self._delete(leader, dict(portion), left)
                    for leader, wanted in by_leader.items()
                    for portion in in_portions(wanted.items())
                )
            ):
                for tp, result in answer.items():
                    if isinstance(result, PegelError):
                        errors.append(result)
                    else:
                        done[tp] = result
                        del missing[tp]
            if errors:
                final = next((e for e in errors if not e.retriable), None)
                left = deadline - clock.monotonic()
                if final is not None or left <= 0:
                    raise final or errors[0]
                metadata.request_refresh()
                await asyncio.sleep(min(left, self._cluster.retry_pause(attempts)))
                attempts += 1
        return done

    async def _delete(
        self, leader: Endpoint, before: Mapping[TopicPartition, int], wait: float
    ) -> dict[TopicPartition, int | PegelError]:
        topics: dict[str, DeleteRecordsTopic] = {}
        for tp, offset in before.items():
            topic = topics.setdefault(tp.topic, DeleteRecordsTopic(name=tp.topic))
            topic.partitions.append(
                DeleteRecordsPartition(partition_index=tp.partition, offset=offset)
            )
        request = DeleteRecordsRequest(topics=list(topics.values()), timeout_ms=int(wait * 1000))
        try:
            response = await self._cluster.pool.ask(
                leader, request, DeleteRecordsResponse, timeout=wait
            )
        except PegelError as error:
            return dict.fromkeys(before, error)
        found: dict[TopicPartition, int | PegelError] = {}
        for answer in response.topics:
            for p in answer.partitions:
                tp = TopicPartition(answer.name, p.partition_index)
                code = to_error_code(p.error_code)
                found[tp] = broker_error(code, str(tp)) if code else p.low_watermark
        return found
