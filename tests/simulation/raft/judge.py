"""The promises of Raft (figure 3 of the paper, and reads and leases), checked at each step."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from pegel_controller.raft.log_view import Entry, EntryKind
from pegel_controller.raft.node import RaftNode
from pegel_controller.raft.ready import HardState, Membership, Snapshot
from pegel_controller.raft.states import Leader

Disk = tuple[HardState, Snapshot | None, list[Entry]]


class InvariantError(AssertionError):
    """A promise of Raft does not hold."""


def require(holds: bool, what: str) -> None:
    if not holds:
        raise InvariantError(what)


class Judge:
    """Knows what was ever elected, committed and asked; raises InvariantError."""

    def __init__(self) -> None:
        self.leaders: dict[int, int] = {}  # by term
        self.committed: dict[int, Entry] = {}
        self.commit_terms: dict[int, int] = {}  # not below the term it was committed in
        self.last_committed = 0
        self._data: dict[int, bytes] = {}
        self._reads: dict[int, list[tuple[int, int]]] = {}  # token and floor, by server
        self._seen: dict[int, tuple[int, int]] = {}

    def on_leader(self, n: int, node: RaftNode) -> None:
        """Election safety: one leader a term."""
        known = self.leaders.setdefault(node.term, n)
        require(known == n, f"election safety: {known} and {n} lead in term {node.term}")

    def complete(self, n: int, node: RaftNode, first: int = 1) -> None:
        """Leader completeness: a leader holds what was committed in earlier terms."""
        for index in range(max(first, node.log.snapshot_index), self.last_committed + 1):
            entry = self.committed.get(index)
            if entry is not None and self.commit_terms[index] < node.term:
                held = node.log.term_at(index) == entry.term
                require(held, f"leader completeness: {n} lacks entry {index}")

    def on_applied(self, n: int, node: RaftNode, entry: Entry) -> bool:
        """State machine safety; whether nobody had applied the entry before."""
        known = self.committed.get(entry.index)
        if known is not None:
            require(known is entry or known == entry, f"state machine safety at {entry.index}")
            return False
        self.committed[entry.index] = entry
        self.commit_terms[entry.index] = node.term
        self.last_committed = max(self.last_committed, entry.index)
        return True

    def on_read(self, n: int, token: int) -> None:
        self._reads.setdefault(n, []).append((token, self.last_committed))

    def on_read_answer(self, n: int, token: int, index: int | None) -> None:
        """Linearizable reads: they see all that anybody has seen before they were asked."""
        asked, floor = self._reads[n].pop(0)
        require(asked == token, "reads are answered in order")
        require(index is None or index >= floor, "a read sees all that was committed before it")

    def on_crash(self, n: int) -> None:
        self._reads.pop(n, None)
        self._seen.pop(n, None)

    def on_store(self, disk: Disk, new: HardState, log: list[Entry], base: int) -> None:
        """What is durable never goes back."""
        hard = disk[0]
        require(new.term >= hard.term, "the term never falls")
        require(new.commit_index >= hard.commit_index, "the commit index never falls")
        same = new.term > hard.term or hard.vote in (None, new.vote)
        require(same, "one vote a term")
        contiguous = not log or (log[0].index, log[-1].index) == (base + 1, base + len(log))
        require(contiguous, "the log has no gaps")

    def on_step(self, n: int, node: RaftNode) -> None:
        """Term and commit index of a running server never fall."""
        term, commit_index = self._seen.get(n, (0, 0))
        require(node.term >= term, "the term never falls")
        require(node.log.commit_index >= commit_index, "the commit index never falls")
        self._seen[n] = node.term, node.log.commit_index

    def leases(self, nodes: Mapping[int, RaftNode], now: float) -> None:
        """While a leader's lease runs there is no newer leader."""
        leaders = [v for v in nodes.values() if isinstance(v.state, Leader)]
        if len(leaders) > 1:
            newest = max(leaders, key=lambda v: v.term)
            for node in leaders:
                holds = node is not newest and node.lease_valid(now)
                require(not holds, "a lease excludes newer leaders")

    def logs(self, nodes: Mapping[int, RaftNode]) -> None:
        """Log matching, pair by pair; and the newest membership of a log is in force."""
        logs = [(node.log, entries_of(node)) for _, node in sorted(nodes.items())]
        for (a, left), (b, right) in itertools.pairwise(logs):
            low = max(a.first_index, b.first_index)
            high = min(a.last_index, b.last_index)
            while high >= low and a.term_at(high) != b.term_at(high):
                high -= 1
            same = (
                left[low - a.first_index : high + 1 - a.first_index]
                == right[low - b.first_index : high + 1 - b.first_index]
            )
            require(high < low or same, f"log matching up to {high}")
        for (_, entries), (n, node) in zip(logs, sorted(nodes.items()), strict=True):
            changes = [e.data for e in entries if e.kind is EntryKind.MEMBERSHIP]
            if changes:
                newest = Membership.decode(changes[-1])
                require(node.membership == newest, f"{n}'s newest membership is in force")

    def state(self, index: int, data: bytes) -> None:
        """Whoever applied up to ``index`` has the same state, by entries or by snapshot."""
        require(self._data.setdefault(index, data) == data, f"one state at {index}")


def entries_of(node: RaftNode) -> list[Entry]:
    log = node.log
    return log.slice(log.first_index, log.last_index, 1 << 62)
