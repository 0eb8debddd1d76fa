"""Many clients of one group at random, with a coordinator that moves and writes that fail.

At every step: no two members hold a partition in one generation, and an acknowledged offset is
there until the next one. At the end, once the faults stop, everybody has its share.
"""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from pegel.protocol.errors import ErrorCode
from tests.broker.group.harness import GROUP, NO_DELAY, Call, Coordinator

PARTITIONS = 12
STEPS = 600
HEARTBEAT_S = 3.0
LOST = {ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.ILLEGAL_GENERATION, ErrorCode.FENCED_INSTANCE_ID}


class Client:
    """A consumer: joins, syncs, commits, and starts anew where it is told that it is nobody."""

    def __init__(self, world: World, instance: str | None) -> None:
        self.world = world
        self.instance = instance
        self.restart()

    def restart(self) -> None:
        """Forget everything, as a process that was killed."""
        self.member_id = ""
        self.generation = -1
        self.shares: list[int] | None = None
        self.joining: Call | None = None
        self.syncing: Call | None = None
        self.alive = True

    @property
    def is_idle(self) -> bool:
        return self.joining is None and self.syncing is None

    def step(self) -> None:
        """React to what was answered, else say that it is still there."""
        if not self.alive:
            return
        if self.joining is not None:
            if self.joining.answer is not None:
                self._on_joined(self.joining.answer)
        elif self.syncing is not None:
            if self.syncing.answer is not None:
                self._on_synced(self.syncing.answer)
        elif self.shares is None:
            self.join()
        else:
            c = self.world.coordinator
            self._on_error(c.heartbeat(self.member_id, self.generation, self.instance))

    def join(self) -> None:
        self.shares = None
        self.joining = self.world.coordinator.ask_join(
            self.member_id, instance=self.instance, rebalance_ms=15_000
        )

    def _on_error(self, error: ErrorCode) -> None:
        if error in LOST:
            self.member_id, self.shares = "", None
        elif error:
            self.shares = None

    def _on_joined(self, answer: Any) -> None:
        self.joining = None
        if answer.error_code == ErrorCode.MEMBER_ID_REQUIRED:
            self.member_id = answer.member_id
        elif answer.error_code:
            self._on_error(answer.error_code)
        else:
            self.member_id, self.generation = answer.member_id, answer.generation_id
            self._sync(answer)

    def _sync(self, answer: Any) -> None:
        shares: dict[str, bytes] = {}
        if answer.leader == answer.member_id and not answer.skip_assignment:
            ids = sorted(m.member_id for m in answer.members)
            assert answer.member_id in ids
            shares = {
                m: json.dumps(list(range(i, PARTITIONS, len(ids)))).encode()
                for i, m in enumerate(ids)
            }
        self.syncing = self.world.coordinator.sync(answer, shares, instance=self.instance)

    def _on_synced(self, answer: Any) -> None:
        self.syncing = None
        if answer.error_code:
            self._on_error(answer.error_code)
        else:
            self.shares = json.loads(answer.assignment or b"[]")
            self.world.on_assigned(self)


class World:
    """The coordinator, its clients, and what must hold."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.coordinator = Coordinator(replace(NO_DELAY, initial_rebalance_delay=1.0), seed=seed)
        count = self.random.randrange(2, 7)
        self.clients = [
            Client(self, f"i{n}" if self.random.random() < 0.4 else None) for n in range(count)
        ]
        # (generation, partition) → member, over all coordinators there have been.
        self.owners: dict[tuple[int, int], str] = {}
        self.acknowledged: dict[int, int] = {}
        self.commits: list[tuple[int, int, Call]] = []
        self.next_offset = 0
        # (member id, generation, instance id) that somebody has been.
        self.past: list[tuple[str, int, str | None]] = []

    def on_assigned(self, client: Client) -> None:
        assert client.shares is not None
        self.past.append((client.member_id, client.generation, client.instance))
        for partition in client.shares:
            holder = client.instance or client.member_id  # a static member's id changes
            key = client.generation, partition
            assert self.owners.setdefault(key, holder) == holder, key

    def step(self) -> None:
        c, random = self.coordinator, self.random
        client = random.choice(self.clients)
        match random.randrange(120):
            case 0:
                client.alive = False
            case 1 | 2:
                client.restart()
            case 3:
                if client.alive and client.is_idle and client.member_id and not client.instance:
                    c.leave(client.member_id)
                    client.restart()
            case 4 | 5 | 6:
                c.hold = True
            case 7:
                c.refuse()
            case 8:
                self.coordinator = c.fail_over()
            case n if n < 25:
                c.hold = False
                c.commit()
            case n if n < 40:
                c.advance(random.choice((0.1, 1.0, HEARTBEAT_S)))
            case n if n < 60:
                self.commit_offset(client)
            case n if n < 65:
                self._commit_as_before()
            case _:
                client.step()
        self.check()

    def commit_offset(self, client: Client) -> None:
        if client.shares and client.is_idle and client.alive:
            self.next_offset += 1
            partition = self.random.choice(client.shares)
            call = self.coordinator.commit_offset(
                self.next_offset, partition=partition, member_id=client.member_id,
                generation=client.generation, instance=client.instance,
            )  # fmt: skip
            self.commits.append((partition, self.next_offset, call))

    def _commit_as_before(self) -> None:
        """A process that was away speaks up, as whom it was then."""
        if not self.past:
            return
        member_id, generation, instance = self.random.choice(self.past)
        group = self.coordinator.shard.groups.get(GROUP)
        call = self.coordinator.commit_offset(
            0, partition=PARTITIONS, member_id=member_id, generation=generation, instance=instance
        )
        if call.answer in {None, (ErrorCode.NONE,)}:
            assert group is not None
            assert generation == group.generation
            assert member_id in group.members
            assert instance is None or group.roster.static_ids[instance] == member_id

    def check(self) -> None:
        waiting = []
        for partition, offset, call in self.commits:
            if call.answer is None:
                waiting.append((partition, offset, call))
            elif call.answer == (ErrorCode.NONE,):
                self.acknowledged[partition] = max(offset, self.acknowledged.get(partition, 0))
        self.commits = waiting
        for partition, offset in self.acknowledged.items():
            assert self.coordinator.committed(partition) >= offset
        for group in self.coordinator.shard.groups.values():
            assert group.joined == sum(m.joining is not None for m in group.members.values())
            assert sorted(group.roster.static_ids.values()) == sorted(
                m.member_id for m in group.members.values() if m.instance_id is not None
            )
            assert group.leader_id is None or group.leader_id in group.members
        live = self.coordinator.counters.groups_by_state
        assert sum(live.values()) == len(self.coordinator.shard.groups)

    def heal(self) -> None:
        """No more faults: within a few rounds everybody is in one generation."""
        self.coordinator.hold = False
        self.coordinator.commit()
        for client in self.clients:
            if not client.alive:
                client.restart()
        for _ in range(60):
            for client in self.clients:
                for _ in range(4):
                    client.step()
            self.coordinator.advance(HEARTBEAT_S)
            self.check()


@pytest.mark.parametrize("seed", range(25))
def test_a_group_under_random_clients(seed: int) -> None:
    world = World(seed)
    for _ in range(STEPS):
        world.step()
    world.heal()
    assert {c.generation for c in world.clients} == {world.coordinator.group.generation}
    held = sorted(p for c in world.clients for p in c.shares or [])
    assert held == list(range(PARTITIONS))
    for client in world.clients:
        for _ in range(3):
            world.commit_offset(client)
    world.check()
    assert world.acknowledged
    world.coordinator = world.coordinator.fail_over()
    world.check()
