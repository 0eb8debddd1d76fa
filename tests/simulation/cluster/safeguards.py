"""Safeguards of the code under test, and how each is taken away: a mutant for each.

A safeguard is named by module, class (or None), function, the text that is taken away and what
stands there instead. The mutated function is compiled in its own module and put in its place, and
in every module that imported it; production code has no switch. Those of the Raft core are in
``tests/simulation/raft/test_sensitivity.py``.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Safeguard:
    """``function`` of the class ``owner``, or of the module, without ``old``."""

    name: str
    module: str
    owner: str | None
    function: str
    old: str
    new: str


class SafeguardMovedError(AssertionError):
    """The text is not there any more (or more than once): the registry must follow the code."""


@contextmanager
def without(safeguard: Safeguard) -> Iterator[None]:
    """Run without it."""
    module = importlib.import_module(safeguard.module)
    holder = getattr(module, safeguard.owner) if safeguard.owner else module
    original = inspect.getattr_static(holder, safeguard.function)
    wrap: Callable[[Any], Any] = lambda function: function  # noqa: E731
    plain = original
    if isinstance(original, property):
        wrap, plain = property, original.fget
    elif isinstance(original, classmethod):
        wrap, plain = classmethod, original.__func__
    source = textwrap.dedent(inspect.getsource(plain))
    if source.count(safeguard.old) != 1:
        raise SafeguardMovedError(
            f"{safeguard.name}: {source.count(safeguard.old)} times in {safeguard.function}"
        )
    lines = source.replace(safeguard.old, safeguard.new).splitlines()
    while lines[0].startswith("@"):
        del lines[0]
    scope: dict[str, Any] = {}
    text = "from __future__ import annotations\n" + "\n".join(lines)
    exec(compile(text, f"<without {safeguard.name}>", "exec"), vars(module), scope)
    mutated = scope[safeguard.function]
    replaced: list[tuple[Any, str, Any]] = [(holder, safeguard.function, original)]
    setattr(holder, safeguard.function, wrap(mutated))
    if not safeguard.owner:
        for other in list(sys.modules.values()):
            if other is not module and getattr(other, safeguard.function, None) is original:
                setattr(other, safeguard.function, mutated)
                replaced.append((other, safeguard.function, original))
    try:
        yield
    finally:
        for where, name, value in replaced:
            setattr(where, name, value)


# name, where, what is taken away, what stands there instead
_TABLE: list[tuple[str, str, str, str]] = [
    # -- acknowledging
    (
        "a leader needs its lease to accept",
        "pegel_broker.replication.producing:_append",
        "not manager.holds_lease(now)",
        "False",
    ),
    (
        "a leader that was asked to hand over accepts no more",
        "pegel_broker.replication.producing:_append",
        "state.resigned",
        "False",
    ),
    (
        "acks=all waits for the high watermark",
        "pegel_broker.replication.producing:produce",
        "everybody = acks == ACKS_ALL",
        "everybody = False",
    ),
    (
        "acks=all needs min.insync.replicas",
        "pegel_broker.replication.partition:Partition.check_in_sync",
        "return ErrorCode.NOT_ENOUGH_REPLICAS",
        "return ErrorCode.NONE",
    ),
    (
        "the high watermark waits for all in sync",
        "pegel_broker.replication.high_watermark:next_high_watermark",
        "min((stable_offset, *follower_ends))",
        "stable_offset",
    ),
    (
        "the high watermark never moves back",
        "pegel_broker.replication.high_watermark:next_high_watermark",
        "max(current, min((stable_offset, *follower_ends)))",
        "min((stable_offset, *follower_ends))",
    ),
    (
        "the high watermark stands still below min.insync.replicas",
        "pegel_broker.replication.partition:Partition.advance",
        "if len(state.isr) <",
        "if False and len(state.isr) <",
    ),
    (
        "a replica whose joining is in flight counts (maximal ISR)",
        "pegel_broker.replication.partition:Leader.maximal_isr",
        "if self.proposed is None:",
        "if True:",
    ),
    (
        "a leader counts only what its disk has",
        "pegel_broker.replication.hosted:HostedPartition.advance",
        "self.log.stable_offset",
        "self.log.log_end_offset",
    ),
    (
        "a follower claims only what its disk has",
        "pegel_broker.replication.fetcher:ReplicaFetcher._unstable",
        "log.stable_offset < log.log_end_offset",
        "False",
    ),
    (
        "flush.messages=1 syncs before it acknowledges",
        "pegel_broker.log.directory:write_all",
        "for segment in batch.sync:",
        "for segment in ():",
    ),
    (
        "nothing is acknowledged after a failed write",
        "pegel_broker.log.directory:LogDirectory._on_written",
        "if outcome.error is not None:",
        "if False:",
    ),
    # -- duplicates and order
    (
        "a retried batch is recognised",
        "pegel_broker.log.producer_state:ProducerTable.check",
        "for batch in reversed(producer.batches):",
        "for batch in ():",
    ),
    (
        "a batch out of sequence is refused",
        "pegel_broker.log.producer_state:ProducerTable.check",
        "if first == expected:",
        "if True:",
    ),
    (
        "a follower learns the producers' sequences",
        "pegel_broker.log.partition_log:PartitionLog._append",
        "if header.producer_id >= 0:",
        "if header.producer_id >= 0 and header.partition_leader_epoch < 0:",
    ),
    (
        "a restarted replica knows the producers' sequences",
        "pegel_broker.log.producer_load:load_producers",
        "return ",
        "return type(table)(), good\n    return ",
    ),
    # -- who is in sync
    (
        "who joins the ISR has caught up",
        "pegel_broker.replication.isr:ReplicaProgress.may_join",
        "return ",
        "return True or ",
    ),
    (
        "a refused ISR is forgotten only where it was certainly not done",
        "pegel_broker.replication.partition:Partition.on_isr_refused",
        "and definite",
        "",
    ),
    (
        "an ISR change is a compare-and-set",
        "pegel_controller.control.elections:_check",
        "if item.partition_epoch < old.partition_epoch:",
        "if False:",
    ),
    (
        "a member of the ISR is the broker that fetched (KIP-903)",
        "pegel_controller.control.elections:_check",
        "if member.broker_epoch not in (-1, broker.broker_epoch):",
        "if False:",
    ),
    (
        "a fenced broker may not join the ISR (KIP-841)",
        "pegel_controller.control.elections:_check",
        "if broker is None or not broker.eligible_for((item.topic_id, item.partition)):",
        "if broker is None:",
    ),
    (
        "a raise of min.insync.replicas refuses ISR changes in flight",
        "pegel_controller.control.elections:adopt_minimum",
        "if old.leader != NO_LEADER and",
        "if False and",
    ),
    (
        "a lower min.insync.replicas ends who is eligible by the old one",
        "pegel_controller.control.elections:adopt_minimum",
        "elif (old.elr or old.last_known_elr) and",
        "elif False and",
    ),
    (
        "a leader asks for nothing while its metadata are behind an answer",
        "pegel_broker.replication.partition:Partition.wanted_isr",
        "if state.told_partition_epoch < state.partition_epoch:",
        "if False:",
    ),
    (
        "a broker takes a minimum before the ISR that comes with it",
        "pegel_broker.replication.manager:ReplicaManager.apply",
        "configs.take_minimums(self, delta)",
        "pass",
    ),
    # -- who may lead
    (
        "only ISR and ELR may lead",
        "pegel_controller.control.partitions:_elect",
        "for replica in trusted:",
        "for replica in old.replicas:",
    ),
    (
        "a new, empty disk does not lead where another may hold what was acknowledged",
        "pegel_controller.control.partitions:_last_known",
        "if was_known and not (emptied and (trusted or known)):",
        "if was_known:",
    ),
    (
        "the best log leads where nobody is trusted (KIP-966)",
        "pegel_controller.control.recovery:Recoveries._elect",
        "ranking = self.ranking(tip, key)",
        "ranking = (first,)",
    ),
    (
        "who may hold more than the last known is waited for",
        "pegel_controller.control.recovery:Recoveries._elect",
        "if late and now < round_.since + self.timeout:",
        "if first not in ends:",
    ),
    (
        "a log end counts in the life in which it was told",
        "pegel_controller.control.recovery:Recoveries.ends",
        "and brokers[replica].broker_epoch == epoch",
        "",
    ),
    (
        "a log tells its end only while nobody leads",
        "pegel_broker.replication.log_ends:log_ends",
        "isinstance(state, Idle) and state.epoch == epoch and",
        "",
    ),
    (
        "what a loss of power took is not expected by the starts after it",
        "pegel_broker.log.opening:_lower_high_watermarks",
        "if rows != checkpointed:",
        "if False:",
    ),
    (
        "a host that lost its page cache leaves ISR and ELR",
        "pegel_controller.control.brokers:_lost_data",
        "return not request.clean_shutdown",
        "return False and not request.clean_shutdown",
    ),
    (
        "a refused probe, not a late one, proves a death",
        "pegel_controller.probe:process_is_gone",
        "except (OSError, TimeoutError):\n            return False",
        "except (OSError, TimeoutError):\n            return True",
    ),
    (
        "a session outlives the lease",
        "pegel_controller.control.brokers:BrokerControl.heartbeat",
        "session.deadline = now + self.options.session_timeout",
        "session.deadline = now + 0.45",
    ),
    (
        "a new controller waits for the leases of the old one",
        "pegel_controller.control.brokers:BrokerControl.take_over",
        "now + self.options.takeover_grace",
        "now + 0.05",
    ),
    (
        "a controller gives leases only while it has one",
        "pegel_controller.node:ControllerNode.respond",
        "if not result.records and not self.raft.lease_valid(self.world.clock.monotonic()):",
        "if False:",
    ),
    (
        "a lease runs from the sending of the heartbeat",
        "pegel_broker.heartbeat:BrokerSession._heartbeat",
        "self._on_lease(sent_at +",
        "self._on_lease(self._world.clock.monotonic() +",
    ),
    (
        "no lease beyond a proposed fence",
        "pegel_controller.control.brokers:BrokerControl.heartbeat",
        "0 if fenced else",
        "",
    ),
    (
        "a broker that ends accepts no more writes",
        "pegel_broker.replication.manager:ReplicaManager.retire",
        "self._retired = True",
        "return",
    ),
    (
        "a request of an earlier registration is refused",
        "pegel_controller.control.brokers:check_epoch",
        "if broker.broker_epoch == broker_epoch",
        "if True",
    ),
    (
        "a broker does not take up what it led before its restart",
        "pegel_broker.heartbeat:BrokerSession._knows_this_life",
        "return broker is not None",
        "return True or broker is not None",
    ),
    # -- where logs part
    (
        "a stale leader epoch is fenced",
        "pegel_broker.replication.partition:Partition._check_epoch",
        "if epoch < 0 or epoch == self.state.epoch:",
        "if True:",
    ),
    (
        "a leader answers where logs part",
        "pegel_broker.replication.fetching:_divergence",
        "if epoch < item.last_fetched_epoch or end_offset < item.fetch_offset:",
        "if False:",
    ),
    (
        "a follower truncates to where logs part, not to its high watermark (KIP-101)",
        "pegel_broker.replication.fetcher:ReplicaFetcher._truncation_offset",
        "epoch, end = data",
        "return hosted.core.high_watermark\n    epoch, end = data",
    ),
    (
        "a truncation goes by both logs' epochs (KIP-279)",
        "pegel_broker.replication.fetcher:ReplicaFetcher._truncation_offset",
        "return min(end, own_end)",
        "return end",
    ),
    (
        "older metadata changes no role",
        "pegel_broker.replication.partition:Partition.update",
        "if epoch < state.epoch:",
        "if False:",
    ),
    (
        "epochs are cut with the log",
        "pegel_broker.log.leader_epochs:LeaderEpochs.truncate_from_end",
        "while self._starts and",
        "while False and",
    ),
    (
        "consumers read below the high watermark",
        "pegel_broker.replication.fetching:Reader._read",
        "log.log_end_offset if follower else core.high_watermark",
        "log.log_end_offset",
    ),
    # -- the disk
    (
        "a torn end is cut by its checksum",
        "pegel_broker.log.recovery:scan_batches",
        "if problem is None and checksums:",
        "if False:",
    ),
    (
        "a last batch that is all there and not valid is damage",
        "pegel_broker.log.recovery:is_damage",
        "valid_after or not cut_short",
        "valid_after",
    ),
    (
        "damage in the middle is not cut as if it were a torn end",
        "pegel_broker.log.recovery:is_damage",
        "if next_offset < recovery_point:",
        "if False:",
    ),
    (
        "a follower checks what it copies",
        "pegel_broker.log.partition_log:PartitionLog.append_as_follower",
        "check_batch(records, position, header)",
        "pass",
    ),
    (
        "a damaged record is refused by its reader",
        "pegel.record.decode:decode_batch",
        "check_batch(",
        "(lambda *a, **k: None)(",
    ),
    # -- the client
    (
        "a producer repeats a batch under its first sequence",
        "pegel.producer.idempotence:SequenceState.take",
        "self.next_sequence = (first + count) % SEQUENCES",
        "self.next_sequence = first",
    ),
    (
        "a new epoch of a producer begins at sequence 0",
        "pegel.producer.idempotence:SequenceState.renew",
        "self.next_sequence = 0",
        "pass",
    ),
]

# Noticed by the cluster within a few seeds from this one on: every ``make test`` looks.
QUICK = {
    "a leader needs its lease to accept": 19,
    "acks=all waits for the high watermark": 21,
    "the high watermark waits for all in sync": 0,
    "the high watermark never moves back": 3,
    "a replica whose joining is in flight counts (maximal ISR)": 0,
    "a leader counts only what its disk has": 2,
    "a follower claims only what its disk has": 2,
    "a retried batch is recognised": 4,
    "a follower learns the producers' sequences": 21,
    "a restarted replica knows the producers' sequences": 4,
    "who joins the ISR has caught up": 2,
    "a refused probe, not a late one, proves a death": 1,
    "a session outlives the lease": 2,
}


def _safeguard(name: str, where: str, old: str, new: str) -> Safeguard:
    module, _, function = where.partition(":")
    owner, _, method = function.rpartition(".")
    return Safeguard(name, module, owner or None, method, old, new)


SAFEGUARDS: dict[str, Safeguard] = {row[0]: _safeguard(*row) for row in _TABLE}
assert len(SAFEGUARDS) == len(_TABLE), "names are unique"
