"""The asyncio shell of Raft. Signatures are final; the behaviour is NOT BUILT yet."""

from __future__ import annotations

from collections.abc import Mapping

from pegel.seams import World
from pegel_controller.raft.interfaces import RaftStateMachine, RaftStatus, RaftTransport
from pegel_controller.raft.options import RaftOptions

_MISSING = "the Raft core is not built yet"


class RaftRunner:
    """Runs one Raft node: its timer, its write-ahead log and its messages.

    ``voters`` is the first configuration (node id to host and port); a log that exists wins over
    it. All methods are called on one event loop.
    """

    def __init__(  # noqa: PLR0917 (the order is the interface)
        self,
        world: World,
        node_id: int,
        directory: str,
        voters: Mapping[int, tuple[str, int]],
        transport: RaftTransport,
        options: RaftOptions,
        state_machine: RaftStateMachine,
    ) -> None:
        if node_id < 0:
            raise ValueError(f"node id {node_id} is negative")
        self.node_id = node_id
        self.term = 0
        self.leader_id: int | None = None
        self.is_leader = False  # true only after an entry of its own term is applied
        self._world = world
        self._directory = directory
        self._voters = dict(voters)
        self._transport = transport
        self._options = options
        self._state_machine = state_machine

    async def start(self) -> None:
        """Recover the log from disk and take part.

        Raises:
            RaftError: the log is damaged in the middle (names file and offset).
        """
        raise NotImplementedError(_MISSING)

    async def close(self) -> None:
        """Fail what is pending with ``RaftClosedError`` and stop; safe to call twice."""
        raise NotImplementedError(_MISSING)

    async def propose(self, data: bytes) -> int:
        """The entry's index, once committed and applied on this node.

        Raises:
            NotLeaderError: not, or no longer, the leader (the entry may still be committed).
            RaftClosedError: closed meanwhile.
        """
        raise NotImplementedError(_MISSING)

    def propose_nowait(self, data: bytes) -> int:
        """Append and return the index at once; ``apply`` tells of its commit.

        Raises:
            NotLeaderError: this node does not lead.
        """
        raise NotImplementedError(_MISSING)

    async def read_barrier(self) -> None:
        """Return when all that was committed before the call is applied here (read index).

        Raises:
            NotLeaderError: leadership was not confirmed.
        """
        raise NotImplementedError(_MISSING)

    async def transfer_leadership(self, to: int | None = None) -> None:
        """Hand over to ``to``, or to the voter that is furthest along.

        Raises:
            NotLeaderError: this node does not lead.
            RaftError: the target is no voter, or did not take over in an election timeout.
        """
        raise NotImplementedError(_MISSING)

    def lease_valid(self, now: float) -> bool:
        """Whether a quorum was heard within the minimum election timeout before ``now``."""
        raise NotImplementedError(_MISSING)

    def on_message(self, peer_id: int, payload: bytes) -> None:
        """A payload of ``peer_id``. Raises RaftError where it does not decode."""
        raise NotImplementedError(_MISSING)

    def on_peer_connected(self, peer_id: int) -> None:
        """The transport reaches ``peer_id`` again: resume sending without waiting."""
        raise NotImplementedError(_MISSING)

    def on_peer_lost(self, peer_id: int) -> None:
        """The process of ``peer_id`` is known to be gone; elect at once if it led."""
        raise NotImplementedError(_MISSING)

    def status(self) -> RaftStatus:
        raise NotImplementedError(_MISSING)
