"""The Raft shell: three runners on one loop with real files, joined in memory."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path

import pytest

from pegel.seams import World
from pegel.seams.clock import RealClock
from pegel.seams.disk import RealDisk, ThreadDiskQueue
from pegel.seams.network import RealNetwork
from pegel_controller.raft.errors import NotLeaderError, RaftClosedError
from pegel_controller.raft.options import RaftOptions
from pegel_controller.raft.runner import RaftRunner

VOTERS = {1: ("localhost", 1), 2: ("localhost", 2), 3: ("localhost", 3)}


class Machine:
    """Records what it is told; its state is the list of commands."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []
        self.restored = 0
        self.leaders: list[tuple[int | None, int, bool]] = []
        self.changed = asyncio.Event()

    def apply(self, index: int, term: int, data: bytes) -> None:
        self.commands.append(data)
        self.changed.set()

    def snapshot(self) -> bytes:
        return b",".join(self.commands)

    def restore(self, index: int, term: int, data: bytes) -> None:
        self.commands = data.split(b",") if data else []
        self.restored += 1
        self.changed.set()

    def on_leader_change(self, leader_id: int | None, term: int, is_leader: bool) -> None:
        self.leaders.append((leader_id, term, is_leader))
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


class Cluster:
    """Three runners; ``cut`` names nodes whose messages are lost both ways."""

    def __init__(self, path: Path, options: RaftOptions | None = None) -> None:
        self.path, self.options = path, options or RaftOptions()
        self.runners: dict[int, RaftRunner] = {}
        self.machines: dict[int, Machine] = {}
        self.cut: set[int] = set()

    async def start(self, node_id: int) -> RaftRunner:
        cluster = self

        class Link:
            def send(self, peer_id: int, payload: bytes) -> None:
                if not cluster.cut & {node_id, peer_id}:
                    loop = asyncio.get_running_loop()
                    loop.call_soon(cluster._deliver, node_id, peer_id, payload)

        world = World(
            RealClock(), RealNetwork(), RealDisk(), ThreadDiskQueue, random.Random(node_id)
        )
        machine = self.machines[node_id] = Machine()
        runner = RaftRunner(
            world, node_id, str(self.path / str(node_id)), VOTERS, Link(), self.options, machine
        )
        self.runners[node_id] = runner
        await runner.start()
        return runner

    def _deliver(self, sender: int, to: int, payload: bytes) -> None:
        if to in self.runners:
            self.runners[to].on_message(sender, payload)

    async def stop(self, node_id: int) -> None:
        await self.runners.pop(node_id).close()

    async def leader(self) -> RaftRunner:
        for machine in self.machines.values():
            machine.changed.set()
        async with asyncio.timeout(20):
            while True:
                for runner in self.runners.values():
                    if runner.is_leader and runner.node_id not in self.cut:
                        return runner
                waits = [asyncio.ensure_future(m.changed.wait()) for m in self.machines.values()]
                _, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                for task in pending:
                    task.cancel()
                for machine in self.machines.values():
                    machine.changed.clear()


def run(
    path: Path,
    test: Callable[[Cluster], Awaitable[None]],
    options: RaftOptions | None = None,
    nodes: tuple[int, ...] = (1, 2, 3),
) -> None:
    async def main() -> None:
        cluster = Cluster(path, options)
        for node_id in nodes:
            await cluster.start(node_id)
        try:
            await test(cluster)
        finally:
            for node_id in list(cluster.runners):
                await cluster.stop(node_id)

    coroutine: Coroutine[None, None, None] = main()
    asyncio.run(coroutine)


def test_proposals_commit_in_order_on_every_node(tmp_path: Path) -> None:
    async def test(cluster: Cluster) -> None:
        leader = await cluster.leader()
        commands = [b"%d" % i for i in range(200)]
        indexes = await asyncio.gather(*(leader.propose(c) for c in commands))
        assert indexes == list(range(indexes[0], indexes[0] + 200))
        for machine in cluster.machines.values():
            await machine.until(lambda m=machine: len(m.commands) == 200)  # type: ignore[misc]
            assert machine.commands == commands
        await leader.read_barrier()

    run(tmp_path, test)


def test_a_restarted_cluster_has_everything(tmp_path: Path) -> None:
    async def first(cluster: Cluster) -> None:
        leader = await cluster.leader()
        for i in range(20):
            await leader.propose(b"%d" % i)

    async def second(cluster: Cluster) -> None:
        leader = await cluster.leader()
        assert cluster.machines[leader.node_id].commands == [b"%d" % i for i in range(20)]
        await leader.propose(b"more")

    run(tmp_path, first)
    run(tmp_path, second)


def test_a_cut_leader_is_replaced_and_its_proposals_fail(tmp_path: Path) -> None:
    async def test(cluster: Cluster) -> None:
        old = await cluster.leader()
        await old.propose(b"kept")
        cluster.cut.add(old.node_id)
        lost = asyncio.ensure_future(old.propose(b"lost"))
        new = await cluster.leader()
        assert new is not old
        await new.propose(b"new")
        with pytest.raises(NotLeaderError):
            await lost
        assert not old.lease_valid(asyncio.get_running_loop().time())
        cluster.cut.clear()
        machine = cluster.machines[old.node_id]
        await machine.until(lambda: machine.commands == [b"kept", b"new"])

    run(tmp_path, test)


def test_a_lost_process_is_replaced_without_waiting_for_the_timeout(tmp_path: Path) -> None:
    options = RaftOptions(election_timeout_min=30, election_timeout_max=60)

    async def test(cluster: Cluster) -> None:
        old = await cluster.leader()
        await old.propose(b"kept")
        await cluster.stop(old.node_id)
        for runner in cluster.runners.values():
            runner.on_peer_lost(old.node_id)
        new = await cluster.leader()  # within 20 s: nobody waited for a timeout of 30
        assert cluster.machines[new.node_id].commands == [b"kept"]

    run(tmp_path, test, options)


def test_snapshots_shorten_the_log_and_bring_a_late_node_up(tmp_path: Path) -> None:
    options = RaftOptions(snapshot_after_entries=50, segment_bytes=2_000)

    async def test(cluster: Cluster) -> None:
        leader = await cluster.leader()
        for i in range(180):
            await leader.propose(b"%d" % i)
        assert leader.status().snapshot_index >= 100
        late = await cluster.start(3)
        machine = cluster.machines[3]
        await machine.until(lambda: len(machine.commands) == 180)
        assert machine.restored == 1
        await cluster.stop(3)
        assert late.is_leader is False
        await cluster.start(3)
        machine = cluster.machines[3]
        await machine.until(lambda: len(machine.commands) == 180)

    run(tmp_path, test, options, nodes=(1, 2))


def test_the_disk_of_a_voter_stays_small_however_much_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that an arbiter stores: the log since the last snapshot, and two snapshots at most."""
    after, segment, entry, at_a_time = 100_000, 50_000, 2_000, 20
    options = RaftOptions(snapshot_after_bytes=after, segment_bytes=segment)
    state_bytes = 10 * entry  # a state that does not grow, as that of a cluster whose leaders move
    monkeypatch.setattr(Machine, "snapshot", lambda self: b",".join(self.commands[-10:]))
    # The log up to a snapshot, what comes in until it is written, and segments that end later.
    bound = after + 4 * at_a_time * entry + 2 * segment + 3 * state_bytes

    def held(node_id: int) -> int:
        total = 0
        for file in (tmp_path / str(node_id)).iterdir():
            with contextlib.suppress(FileNotFoundError):  # a segment that goes meanwhile
                total += file.stat().st_size
        return total

    async def test(cluster: Cluster) -> None:
        leader = await cluster.leader()
        peak = 0
        for i in range(50):
            commands = [b"%d" % (i * at_a_time + n) for n in range(at_a_time)]
            async with asyncio.TaskGroup() as group:
                for command in commands:
                    group.create_task(leader.propose(command.rjust(entry, b"0")))
            peak = max(peak, *(held(n) for n in (1, 2, 3)))
        assert after < peak < bound, "of 2,000,000 bytes written"

    run(tmp_path, test, options)


def test_leadership_is_handed_over(tmp_path: Path) -> None:
    async def test(cluster: Cluster) -> None:
        old = await cluster.leader()
        await old.propose(b"x")
        target = 1 + old.node_id % 3
        await old.transfer_leadership(target)
        new = await cluster.leader()
        assert new.node_id == target

    run(tmp_path, test)


def test_a_single_voter_leads_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        world = World(RealClock(), RealNetwork(), RealDisk(), ThreadDiskQueue, random.Random(1))
        machine = Machine()

        class Nowhere:
            def send(self, peer_id: int, payload: bytes) -> None:
                raise AssertionError("there is nobody to send to")

        runner = RaftRunner(
            world, 1, str(tmp_path), {1: ("h", 1)}, Nowhere(), RaftOptions(), machine
        )
        await runner.start()
        await machine.until(lambda: runner.is_leader)
        assert await runner.propose(b"a") == 2
        await runner.close()
        await runner.close()
        with pytest.raises(RaftClosedError):
            await runner.propose(b"b")

    asyncio.run(main())


def test_a_failed_disk_stops_the_node(tmp_path: Path) -> None:
    async def test(cluster: Cluster) -> None:
        leader = await cluster.leader()
        await leader.propose(b"kept")
        failures: list[Exception] = []
        leader.on_fatal = failures.append

        def broken(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        leader._wal.append = broken  # type: ignore[method-assign]
        with pytest.raises(RaftClosedError, match="No space left"):
            await leader.propose(b"lost")
        assert len(failures) == 1
        assert not leader.is_leader
        cluster.cut.add(leader.node_id)
        new = await cluster.leader()
        # The followers may have had the entry before the leader's own disk failed.
        assert cluster.machines[new.node_id].commands[0] == b"kept"
        # The node is closed with its disk still broken: that must not raise.

    run(tmp_path, test)
