"""The disk seam: blocking file calls, and queues that run them off the event loop.

``Disk`` and ``File`` calls block; a node calls them from a ``DiskQueue`` (or before its event loop
serves anybody). The exception is ``File.read_nowait``, made for the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")
Buffer = bytes | bytearray | memoryview

_IOV_MAX = 1024
_RWF_NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)


class File(Protocol):
    """An open file; every offset and size is in bytes."""

    def append(self, buffers: Sequence[Buffer]) -> None:
        """Write all of ``buffers`` at the end of the file, in order. Not synced."""
        ...

    def read(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``offset``; shorter only at the end of the file."""
        ...

    def read_nowait(self, offset: int, size: int) -> bytes | None:
        """As ``read`` where that needs no wait for a device, else None; for the event loop."""
        ...

    def write_at(self, offset: int, data: Buffer) -> None: ...

    def truncate(self, size: int) -> None: ...

    def sync(self) -> None:
        """Return when all that was written is on stable storage (fdatasync)."""
        ...

    def size(self) -> int: ...

    def close(self) -> None: ...


class LockedError(BlockingIOError):
    """Another process holds the lock; ``holder`` is its id, 0 where it does not say."""

    def __init__(self, path: str, holder: int = 0) -> None:
        super().__init__(f"{path} is locked by " + (f"process {holder}" if holder else "another"))
        self.holder = holder

    @property
    def advice(self) -> str:
        """Who it is, and how to end it, to follow on "is used by"."""
        if not self.holder:
            return "another process: stop that first"
        return f"another process, pid {self.holder}: stop that first (kill {self.holder})"


class Lock(Protocol):
    """An exclusive lock of a data directory, released by ``close`` or by the process's end."""

    def close(self) -> None: ...


class Disk(Protocol):
    """A file system. Paths are ``str``; missing files raise FileNotFoundError."""

    def open(self, path: str, *, create: bool = False) -> File:
        """Open for reading and appending. ``create`` makes the file where it is missing."""
        ...

    def read_file(self, path: str) -> bytes: ...

    def write_file(self, path: str, data: bytes) -> None:
        """Replace the file atomically: write aside, sync, rename, sync the directory."""
        ...

    def exists(self, path: str) -> bool: ...

    def list_directory(self, path: str) -> list[str]:
        """Names in the directory, sorted."""
        ...

    def make_directories(self, path: str) -> None: ...

    def rename(self, source: str, target: str) -> None: ...

    def remove(self, path: str) -> None: ...

    def remove_tree(self, path: str) -> None: ...

    def sync_directory(self, path: str) -> None: ...

    def usage(self, path: str) -> tuple[int, int]:
        """Total and free bytes of the file system that holds ``path``."""
        ...

    def lock(self, path: str) -> Lock:
        """Lock the file at ``path`` (made where missing) for this process alone.

        Raises:
            LockedError: another process holds it.
        """
        ...


class Outcome(Generic[T]):
    """What a call on a disk queue came to."""

    __slots__ = ("_result", "error")

    def __init__(self, call: Callable[[], T], errors: type[BaseException] = BaseException) -> None:
        """Make the call; what it raises of ``errors`` is kept in ``error``."""
        self.error: BaseException | None = None
        try:
            self._result = call()
        except errors as caught:
            self.error = caught

    def result(self) -> T:
        """What the call returned, or raises what it raised."""
        if self.error is not None:
            raise self.error
        return self._result

    def settle(self, future: asyncio.Future[T]) -> None:
        """Give it to ``future``, unless nobody waits for that any more."""
        if future.done():
            return
        if self.error is None:
            future.set_result(self._result)
        else:
            future.set_exception(self.error)


class DiskQueue(Protocol):
    """Runs blocking calls one after another, in the order submitted, off the event loop."""

    def submit(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Queue ``call``; the future has its result or its exception, on the running loop."""
        ...

    def run(self, call: Callable[[], T], done: Callable[[Outcome[T]], None]) -> None:
        """As ``submit``, for what is done at every request: the loop calls ``done`` itself.

        A future would call back in the turn after that, and each turn is a poll and a contest for
        the interpreter's lock: one write costs half the processor time this way.
        """
        ...

    def close(self) -> None:
        """Finish what is queued, then stop the worker. Later submits raise RuntimeError."""
        ...


class RealFile:
    """A file descriptor with positional reads and appends."""

    __slots__ = ("_fd", "_nowait")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._nowait = bool(_RWF_NOWAIT)

    def append(self, buffers: Sequence[Buffer]) -> None:
        for start in range(0, len(buffers), _IOV_MAX):
            group = buffers[start : start + _IOV_MAX]
            expected = sum(len(b) for b in group)
            written = os.writev(self._fd, group)
            if written != expected:  # a signal or a full disk: finish by the slow way, or raise
                rest = memoryview(b"".join(group))[written:]
                while rest:
                    rest = rest[os.write(self._fd, rest) :]

    def read(self, offset: int, size: int) -> bytes:
        data = os.pread(self._fd, size, offset)
        if len(data) == size or not data:
            return data
        pieces = [data]
        got = len(data)
        while got < size:
            data = os.pread(self._fd, size - got, offset + got)
            if not data:
                break
            pieces.append(data)
            got += len(data)
        return b"".join(pieces)

    def read_nowait(self, offset: int, size: int) -> bytes | None:
        if not self._nowait:
            return None
        buffer = bytearray(size)
        try:
            got = os.preadv(self._fd, [buffer], offset, _RWF_NOWAIT)
        except BlockingIOError:
            return None
        except OSError:  # this file system does not offer it
            self._nowait = False
            return None
        if got < size:  # partly cached, or the end of the file: let the queue find out which
            return None
        return bytes(buffer) if size < 4096 else memoryview(buffer)  # type: ignore[return-value]

    def write_at(self, offset: int, data: Buffer) -> None:
        rest = memoryview(data)
        while rest:
            n = os.pwrite(self._fd, rest, offset)
            rest = rest[n:]
            offset += n

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def sync(self) -> None:
        os.fdatasync(self._fd) if hasattr(os, "fdatasync") else os.fsync(self._fd)

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class _FileLock:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class RealDisk:
    """The operating system's file system."""

    def open(self, path: str, *, create: bool = False) -> File:
        # No O_APPEND: Linux ignores pwrite's offset under it. One writer owns each file, and the
        # descriptor's position stays at the end because every read is positional.
        flags = os.O_RDWR | (os.O_CREAT if create else 0) | os.O_CLOEXEC
        fd = os.open(path, flags, 0o644)
        os.lseek(fd, 0, os.SEEK_END)
        return RealFile(fd)

    def read_file(self, path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    def write_file(self, path: str, data: bytes) -> None:
        aside = path + ".tmp"
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fd, rest) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(aside, path)
        self.sync_directory(os.path.dirname(path))

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def list_directory(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def make_directories(self, path: str) -> None:
        os.makedirs(path, exist_ok=True)

    def rename(self, source: str, target: str) -> None:
        os.rename(source, target)

    def remove(self, path: str) -> None:
        os.remove(path)

    def remove_tree(self, path: str) -> None:
        shutil.rmtree(path)

    def sync_directory(self, path: str) -> None:
        fd = os.open(path or ".", os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def usage(self, path: str) -> tuple[int, int]:
        usage = shutil.disk_usage(path)
        return usage.total, usage.free

    def lock(self, path: str) -> Lock:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).strip()
            os.close(fd)
            raise LockedError(path, int(holder) if holder.isdigit() else 0) from None
        except OSError:
            os.close(fd)
            raise
        return _FileLock(fd)


_Job = tuple[Callable[[], Any], Callable[["Outcome[Any]"], None]]


class ThreadDiskQueue:
    """A ``DiskQueue`` on one thread; completions of a burst reach the loop in one wake-up."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        # Written in C: a job costs one lock, where a semaphore costs a dozen calls of Python's.
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._done: deque[tuple[Callable[[Outcome[Any]], None], Outcome[Any]]] = deque()
        self._closed = False
        self._scheduled = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, call: Callable[[], T]) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self._loop.create_future()
        self.run(call, lambda outcome: outcome.settle(future))
        return future

    def run(self, call: Callable[[], T], done: Callable[[Outcome[T]], None]) -> None:
        if self._closed:
            raise RuntimeError("this disk queue is closed")
        self._jobs.put((call, done))

    def close(self) -> None:
        self._closed = True
        self._jobs.put(None)
        self._thread.join(timeout=5.0)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            call, done = job
            self._done.append((done, Outcome(call)))
            if not self._scheduled:
                self._scheduled = True
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                    self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        # Cleared before draining: an item appended by a worker that still saw it set is drained.
        self._scheduled = False
        waiting = self._done
        while waiting:
            done, outcome = waiting.popleft()
            try:
                done(outcome)
            except Exception as error:  # the others are told all the same
                self._loop.call_exception_handler(
                    {"message": "a call back from a disk queue failed", "exception": error}
                )
