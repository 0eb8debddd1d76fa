"""A file system in memory that knows what a crash of the host would leave of it.

Each file has the content that processes see and the content that was synced; a name is durable
once its directory was synced. ``crash()`` is a loss of power. Faults are set by path and call.
"""

from __future__ import annotations

import errno
import functools
import posixpath
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random

from pegel.seams.disk import Buffer, File, Lock, LockedError


class MemoryNode:
    """An inode: ``data`` is what is seen, ``durable`` what survives a loss of power."""

    __slots__ = ("data", "durable")

    def __init__(self) -> None:
        self.data = bytearray()
        self.durable = b""


class MemoryFile:
    """An open file of a ``MemoryDisk``."""

    def __init__(self, disk: MemoryDisk, path: str, node: MemoryNode) -> None:
        self._disk = disk
        self._path = path
        self._node = node
        self._open = True
        disk.open_files += 1

    def append(self, buffers: Sequence[Buffer]) -> None:
        data = b"".join(buffers)
        self._enter("append")
        room = self._disk.room_for(len(data))
        self._node.data += data[:room]
        if room < len(data):
            raise OSError(errno.ENOSPC, "No space left on device", self._path)

    def read(self, offset: int, size: int) -> bytes:
        self._enter("read")
        return bytes(self._node.data[offset : offset + size])

    def read_nowait(self, offset: int, size: int) -> bytes | None:
        assert self._open, "read of a closed file"
        if not self._disk.cached:
            return None
        data = self.read(offset, size)
        return data if len(data) == size else None

    def write_at(self, offset: int, data: Buffer) -> None:
        self._enter("write_at")
        node = self._node.data
        if len(node) < offset:
            node += bytes(offset - len(node))
        growth = offset + len(data) - len(node)
        room = len(data) if growth <= 0 else len(data) - growth + self._disk.room_for(growth)
        node[offset : offset + room] = bytes(data)[:room]
        if room < len(data):
            raise OSError(errno.ENOSPC, "No space left on device", self._path)

    def truncate(self, size: int) -> None:
        self._enter("truncate")
        node = self._node.data
        if size < len(node):
            del node[size:]
        else:
            node += bytes(size - len(node))

    def sync(self) -> None:
        self._enter("sync")
        self._node.durable = bytes(self._node.data)

    def size(self) -> int:
        self._enter("size")
        return len(self._node.data)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._disk.open_files -= 1

    def _enter(self, call: str) -> None:
        assert self._open, f"{call} of a closed file"
        self._disk.enter(call, self._path)


class _MemoryLock:
    def __init__(self, disk: MemoryDisk, path: str) -> None:
        self._disk = disk
        self._path = path

    def close(self) -> None:
        self._disk.locks.discard(self._path)


_dirname = functools.lru_cache(4096)(posixpath.dirname)


class MemoryDisk:
    """A ``Disk``; see the module.

    Attributes:
        calls: how often each call was made ("sync", "append", "open", …).
        fault: called with (call, path) before each call; it may raise OSError.
        capacity: bytes that still fit (None: any number).
        cached: whether ``read_nowait`` finds everything in the page cache.
        open_files: handles that are open now.
    """

    def __init__(self) -> None:
        self.files: dict[str, MemoryNode] = {}
        self.directories: set[str] = {"/"}
        self._durable_files: dict[str, MemoryNode] = {}
        self._durable_directories: set[str] = {"/"}
        self._renamed: dict[str, str] = {}  # directories, and what they are called now
        self.locks: set[str] = set()
        self.calls: Counter[str] = Counter()
        self.fault: Callable[[str, str], None] | None = None
        self.capacity: int | None = None
        self.cached = True
        self.open_files = 0

    def enter(self, call: str, path: str) -> None:
        self.calls[call] += 1
        if self.fault is not None:
            self.fault(call, path)

    def room_for(self, size: int) -> int:
        """How many of ``size`` more bytes fit; they are taken."""
        if self.capacity is None:
            return size
        room = min(size, self.capacity)
        self.capacity -= room
        return room

    # --- crashes ---

    def crash(self, random: Random | None = None) -> None:
        """Lose power: back to what is durable. With ``random``, a prefix of each file's unsynced
        growth may have reached the disk as well."""
        self.directories = set(self._durable_directories)
        self.files = {}
        for path, node in self._durable_files.items():
            kept = node.durable
            if random is not None and len(node.data) > len(kept) and node.data.startswith(kept):
                kept = bytes(node.data[: random.randint(len(kept), len(node.data))])
            fresh = MemoryNode()
            fresh.data = bytearray(kept)
            fresh.durable = kept
            self.files[path] = fresh
        self._durable_files = dict(self.files)
        self.locks.clear()
        self.fault = None

    def copy(self) -> MemoryDisk:
        """The same content on another disk, all of it durable; for trying out crash points."""
        other = MemoryDisk()
        other.directories = set(self.directories)
        other._durable_directories = set(self.directories)
        for path, node in self.files.items():
            fresh = MemoryNode()
            fresh.data = bytearray(node.data)
            fresh.durable = bytes(node.data)
            other.files[path] = fresh
        other._durable_files = dict(other.files)
        return other

    # --- Disk ---

    def open(self, path: str, *, create: bool = False) -> File:
        self.enter("open", path)
        node = self.files.get(path)
        if node is None:
            if not create:
                raise FileNotFoundError(errno.ENOENT, "No such file", path)
            if _dirname(path) not in self.directories:
                raise FileNotFoundError(errno.ENOENT, "No such directory", path)
            node = self.files[path] = MemoryNode()
        return MemoryFile(self, path, node)

    def read_file(self, path: str) -> bytes:
        self.enter("read_file", path)
        return bytes(self._node(path).data)

    def write_file(self, path: str, data: bytes) -> None:
        self.enter("write_file", path)
        if _dirname(path) not in self.directories:
            raise FileNotFoundError(errno.ENOENT, "No such directory", path)
        if self.room_for(len(data)) < len(data):
            raise OSError(errno.ENOSPC, "No space left on device", path)
        node = MemoryNode()
        node.data = bytearray(data)
        node.durable = bytes(data)
        self.files[path] = node
        self._sync_names(_dirname(path))

    def exists(self, path: str) -> bool:
        return path in self.files or path in self.directories

    def list_directory(self, path: str) -> list[str]:
        self.enter("list_directory", path)
        if path not in self.directories:
            raise FileNotFoundError(errno.ENOENT, "No such directory", path)
        names = [*self.files, *(self.directories - {"/"})]
        return sorted(posixpath.basename(n) for n in names if _dirname(n) == path)

    def make_directories(self, path: str) -> None:
        self.enter("make_directories", path)
        while path not in self.directories:
            self.directories.add(path)
            path = _dirname(path)

    def rename(self, source: str, target: str) -> None:
        self.enter("rename", source)
        if source in self.directories:
            self._renamed[source] = target
            for path in sorted(self.directories):
                if path == source or path.startswith(source + "/"):
                    self.directories.remove(path)
                    self.directories.add(target + path[len(source) :])
            for path in [p for p in self.files if p.startswith(source + "/")]:
                self.files[target + path[len(source) :]] = self.files.pop(path)
        else:
            self.files[target] = self._node(source)
            del self.files[source]

    def remove(self, path: str) -> None:
        self.enter("remove", path)
        self._node(path)
        del self.files[path]

    def remove_tree(self, path: str) -> None:
        self.enter("remove_tree", path)
        if path not in self.directories:
            raise FileNotFoundError(errno.ENOENT, "No such directory", path)
        self.directories = {
            p for p in self.directories if p != path and not p.startswith(path + "/")
        }
        self.files = {p: n for p, n in self.files.items() if not p.startswith(path + "/")}

    def sync_directory(self, path: str) -> None:
        self.enter("sync_directory", path)
        self._sync_names(path)

    def usage(self, path: str) -> tuple[int, int]:
        used = sum(len(node.data) for node in self.files.values())
        free = 1 << 40 if self.capacity is None else self.capacity
        return used + free, free

    def lock(self, path: str) -> Lock:
        if path in self.locks:
            raise LockedError(path)
        self.locks.add(path)
        return _MemoryLock(self, path)

    def _node(self, path: str) -> MemoryNode:
        node = self.files.get(path)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, "No such file", path)
        return node

    def _sync_names(self, path: str) -> None:
        """Make the names in ``path`` durable (and, to stay simple, ``path`` itself)."""
        for name in [n for n in self._durable_files if _dirname(n) == path]:
            del self._durable_files[name]
        for name, node in self.files.items():
            if _dirname(name) == path:
                self._durable_files[name] = node
        gone = {
            name
            for name in self._durable_directories
            if _dirname(name) == path and name not in self.directories
        }
        for directory in sorted(gone):
            self._move_durable(directory, self._renamed.pop(directory, None))
        self._durable_directories -= gone
        self._durable_directories |= {name for name in self.directories if _dirname(name) == path}
        while path not in self._durable_directories:
            self._durable_directories.add(path)
            path = _dirname(path)

    def _move_durable(self, gone: str, target: str | None) -> None:
        """What was durable in a directory is so under its new name, or gone with it."""
        for names in (self._durable_directories, set(self._durable_files)):
            for path in sorted(names):
                if path.startswith(gone + "/"):
                    moved = None if target is None else target + path[len(gone) :]
                    if path in self._durable_files:
                        node = self._durable_files.pop(path)
                        if moved is not None:
                            self._durable_files[moved] = node
                    else:
                        self._durable_directories.discard(path)
                        if moved is not None:
                            self._durable_directories.add(moved)
