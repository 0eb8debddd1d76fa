"""The scripts. A leads at the start; what a step does must not depend on how long others took."""

from __future__ import annotations

from tests.agreement.play import Play, Script

# No leader goes back by itself, and nobody is given up because a busy machine was slow.
_PATIENT = {
    "auto.leader.rebalance.enable": "false",
    "broker.session.timeout.ms": "6000",
    "replica.lag.time.max.ms": "30000",
}
# Replicas that cannot follow leave the ISR soon, and only they: see ``Partition.on_append``.
_SHRINKING = {**_PATIENT, "replica.lag.time.max.ms": "3000"}
# A broker that hangs is fenced soon, and nobody leaves the ISR before that.
_FENCING = {**_PATIENT, "broker.session.timeout.ms": "4000"}


async def _a_writes_alone(play: Play) -> None:
    """Three records that all have, and three that A alone has."""
    await play.write(3, acks="all")
    play.cut("A", "BC")
    await play.write(3, acks=1)


async def _a_returns(play: Play) -> None:
    """A has its place among the replicas again, and then leads again."""
    await play.until(leader="B", in_sync="ABC")
    await play.elect_preferred()
    await play.until(leader="A", in_sync="ABC")
    await play.write(1, acks="all")


async def _lost_tail(play: Play) -> None:
    """A dies with records that nobody else has, before anybody has left the ISR; then once more,
    with all in sync."""
    await _a_writes_alone(play)
    await play.kill("A")
    await play.until(leader="B", in_sync="BC")
    await play.write(2, acks="all")
    play.mend()
    await play.restart("A")
    await _a_returns(play)
    await play.kill("A")
    await play.until(leader="B", in_sync="BC")
    await play.write(1, acks="all")


async def _hung_leader(play: Play) -> None:
    """A hangs with such records, is replaced, and truncates in the same life."""
    await _a_writes_alone(play)
    play.pause("A")
    await play.until(leader="B", in_sync="BC")
    await play.write(2, acks="all")
    play.mend()
    play.resume("A")
    await _a_returns(play)


async def _eligible(play: Play) -> None:
    """A alone is in sync when it dies, and the active controller with it. Below
    min.insync.replicas it could commit nothing, so B may lead (KIP-966)."""
    await _a_writes_alone(play)
    await play.until(leader="A", in_sync="A")
    await play.write(1, acks=1)
    await play.kill("A")
    await play.until(leader="B", in_sync="BC")
    await play.write(2, acks="all")
    play.mend()
    await play.restart("A")
    await _a_returns(play)


async def _committed_alone(play: Play) -> None:
    """A alone is in sync, has committed alone, and dies: nobody may lead until it is back."""
    await _a_writes_alone(play)
    await play.until(leader="A", in_sync="A")
    await play.write(1, acks="all")
    await play.kill("A")
    await play.until(leader="", in_sync="")
    await play.restart("A")
    await play.until(leader="A", in_sync="A")
    await play.write(1, acks="all")


async def _unclean(play: Play) -> None:
    """As before, but B may lead without what A has committed, and A gives it up."""
    await _a_writes_alone(play)
    await play.until(leader="A", in_sync="A")
    await play.write(1, acks="all")
    await play.kill("A")
    await play.until(leader="B", in_sync="BC")
    await play.write(2, acks="all")
    play.mend()
    await play.restart("A")
    await _a_returns(play)


_MIN_ISR_1 = {"min.insync.replicas": "1"}
_MIN_ISR_2 = {"min.insync.replicas": "2"}

SCRIPTS = {
    script.name: script
    for script in (
        Script("lost-tail", _lost_tail, settings=_PATIENT, config=_MIN_ISR_1),
        Script("hung-leader", _hung_leader, settings=_FENCING, config=_MIN_ISR_1),
        Script(
            "eligible-and-controller", _eligible, leader_is_controller=True,
            settings=_SHRINKING, config=_MIN_ISR_2,
        ),
        Script("committed-alone", _committed_alone, settings=_SHRINKING, config=_MIN_ISR_1),
        Script(
            "unclean", _unclean, settings=_SHRINKING,
            config={**_MIN_ISR_1, "unclean.leader.election.enable": "true"},
        ),
    )
}  # fmt: skip
