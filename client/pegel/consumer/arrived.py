"""What was fetched, batch by batch, and what the reader has to be told instead."""

from __future__ import annotations

from pegel.consumer.fetched import Fetched
from pegel.consumer.fetcher import Fetcher
from pegel.errors import CorruptResponseError
from pegel.metrics.clients import ConsumerStats
from pegel.record import CorruptBatchError
from pegel.seams.clock import Clock
from pegel.types import ConsumerBatch


class Arrived:
    """Takes batches out of ``fetcher.ready``, decoding one at a time."""

    def __init__(self, fetcher: Fetcher, stats: ConsumerStats, clock: Clock) -> None:
        self._fetcher, self._stats, self._clock = fetcher, stats, clock
        self._current: Fetched | None = None

    def next_batch(self) -> ConsumerBatch | None:
        """The next batch that is here; ``None`` if there is none.

        Raises:
            CorruptResponseError: it breaks the format; its partition is stopped.
            Exception: nothing is here, and the fetcher or the group has to say why.
        """
        fetcher = self._fetcher
        while True:
            current = self._current
            if current is None:
                if not fetcher.ready:
                    break
                current = self._current = fetcher.ready.popleft()
            state = current.state
            if not current.stale:
                try:
                    columns = current.next_columns()
                except CorruptBatchError as error:
                    self._current = None
                    fetcher.stop(
                        state,
                        CorruptResponseError(
                            f"{state.topic_partition} at offset {state.position}: {error.message}; "
                            "seek past it to go on"
                        ),
                    )
                    fetcher.release(current)
                    self.raise_trouble()
                    continue
                if columns is not None:
                    self._stats.on_batch(columns, self._clock.wall_ms())
                    return ConsumerBatch(*state.topic_partition, columns)
            self._current = None
            fetcher.release(current)
        fetcher.wake()
        self.raise_trouble()
        return None

    def raise_trouble(self) -> None:
        """Raise what the reader must know, if anything."""
        error = self._fetcher.trouble()
        if error is not None:
            # The same one may be raised many times; its traceback would grow with each.
            raise error.with_traceback(None)

    def drop_stale(self) -> None:
        """After a seek: forget what was fetched for the old position."""
        if self._current is not None and self._current.stale:
            self._fetcher.release(self._current)
            self._current = None
        self._fetcher.drop_stale()
        self._fetcher.wake()
