"""The same broker leads on under a new epoch: what it had appended is still on its way."""

from __future__ import annotations

import asyncio

from pegel.protocol.errors import ErrorCode
from tests.support.replicas import Replicas, turns


def test_a_batch_that_waits_is_acknowledged_under_the_new_epoch() -> None:
    """Refused, librdkafka would take it for not written and write it under a new producer epoch."""

    async def main() -> None:
        async with Replicas() as replicas:
            replicas.create(1, 2, 3)
            replicas.tell()
            assert not (await replicas.produce(1, b"a")).error
            waiting = replicas.produce(1, b"b")
            replicas.elect(1)
            replicas.tell(1)  # its followers still ask under the former epoch
            await turns()
            assert not waiting.done()
            replicas.tell()
            acknowledged = await waiting
            assert acknowledged.error is ErrorCode.NONE
            assert acknowledged.base_offset == 1
            assert replicas.members[1].log.latest_epoch == 1

    asyncio.run(main())
