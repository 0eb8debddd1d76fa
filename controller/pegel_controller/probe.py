"""Is a broker's process gone? A refused connection to its listener proves it (DESIGN section 6)."""

from __future__ import annotations

import asyncio

from pegel.seams import Network

# While a killed process is torn down its listener may take a connection that then breaks.
ATTEMPTS = 6
PAUSE = 0.010
TIMEOUT = 0.200


class _Silent(asyncio.Protocol):
    """A connection that says nothing."""


async def process_is_gone(network: Network, host: str, port: int) -> bool:
    """Whether the connection is refused. A time-out proves nothing: a paused process lives."""
    for _ in range(ATTEMPTS):
        try:
            async with asyncio.timeout(TIMEOUT):
                transport, _ = await network.connect(_Silent, host, port)
        except ConnectionRefusedError:
            return True
        except (OSError, TimeoutError):
            return False
        transport.abort()
        await asyncio.sleep(PAUSE)
    return False
