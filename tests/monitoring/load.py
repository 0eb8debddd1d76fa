"""Load for monitoring tests: producers and a consumer of ours, and their own metrics page."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from types import TracebackType

from prometheus_client import CollectorRegistry, start_http_server

import pegel
from pegel.metrics.clients import ClientCollector

TOPIC = "orders"


class Load:
    """Writes with every acknowledgement mode and reads, on a thread, inside of ``with``."""

    def __init__(
        self, bootstrap: str, *, partitions: int = 3, settings: dict[str, str] | None = None
    ) -> None:
        self._bootstrap = bootstrap
        self._partitions = partitions
        self._settings = settings or {"min.insync.replicas": "2", "flush.messages": "50"}
        self._stop = threading.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")
        self._reading = threading.Event()
        self._reading.set()
        registry = CollectorRegistry()
        registry.register(ClientCollector())  # type: ignore[arg-type]
        self._server, self._server_thread = start_http_server(0, "127.0.0.1", registry)
        self.address = f"127.0.0.1:{self._server.server_port}"
        self.error: BaseException | None = None

    def __enter__(self) -> Load:
        self._thread.start()
        assert self._started.wait(30), self.error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._reading.set()
        self._thread.join(60)
        self._server.shutdown()
        self._server.server_close()
        self._server_thread.join(5)

    def run(self, seconds: float) -> None:
        """Let it go on for a while: rates need several scrapes."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self._thread.is_alive():
            self._thread.join(0.2)
        assert self._thread.is_alive(), f"the load has ended: {self.error!r}"

    def stop_reading(self) -> None:
        self._reading.clear()

    def read_on(self) -> None:
        self._reading.set()

    # -- on the thread

    def _run(self) -> None:
        try:
            asyncio.run(self._work())
        except BaseException as error:
            self.error = error
            self._started.set()

    async def _work(self) -> None:
        async with pegel.AsyncClient(self._bootstrap) as client:
            await client.create_topic(
                TOPIC, partitions=self._partitions, replication=3, config=self._settings
            )
            async with asyncio.TaskGroup() as group:
                for acks in ("all", 1, 0):
                    group.create_task(self._write(client, acks))
                group.create_task(self._read(client))
                self._started.set()

    async def _write(self, client: pegel.AsyncClient, acks: str | int) -> None:
        async with client.producer(acks=acks, linger_ms=5) as producer:  # type: ignore[arg-type]
            while not self._stop.is_set():
                with contextlib.suppress(pegel.PegelError):
                    await producer.send_many(TOPIC, [b"x" * 200] * 20)
                await asyncio.sleep(0.05)

    async def _read(self, client: pegel.AsyncClient) -> None:
        async with client.consumer(TOPIC, group="billing") as consumer:
            while not self._stop.is_set():
                if not self._reading.is_set():
                    await asyncio.sleep(0.05)
                    continue
                with contextlib.suppress(pegel.PegelError):
                    await consumer.next_batch(timeout=0.2)
