"""The simulated and the real cluster agree: one script gives one transcript in both.

The transcripts beside this file are what both must say. After a change that is meant:
``pytest tests/agreement -k simulated --update-golden``, and look at the diff.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.agreement.play import Script
from tests.agreement.processes import on_processes
from tests.agreement.scripts import SCRIPTS
from tests.agreement.simulated import simulated
from tests.simulation.cluster.safeguards import Safeguard, without

SEEDS = (1, 2, 3)


def _golden(script: Script) -> Path:
    return Path(__file__).parent / f"{script.name}.txt"


def _transcript(script: Script) -> list[str]:
    return _golden(script).read_text().splitlines()


scripts = pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)


@scripts
def test_the_simulated_cluster(script: Script, request: pytest.FixtureRequest) -> None:
    """Whatever the latencies and the time-outs of elections that a seed draws."""
    if request.config.getoption("--update-golden"):
        _golden(script).write_text("\n".join(simulated(script)) + "\n")
    for seed in SEEDS:
        assert simulated(script, seed) == _transcript(script), f"seed {seed}"


@pytest.mark.process
@scripts
def test_the_cluster_of_processes(script: Script) -> None:
    assert on_processes(script) == _transcript(script)


# Of a rule that is changed: the script that must tell, where, what stands there instead, and a line
# that only the changed cluster says.
CHANGES = {
    "another replica is elected": (
        "lost-tail", "pegel_controller.control.partitions", None, "_elect",
        "for replica in old.replicas:\n        if replica in isr",
        "for replica in reversed(old.replicas):\n        if replica in isr",
        "t-0 killed or hung: C leads in epoch 1, BC in sync, nobody eligible",
    ),
    "the last in sync are not eligible": (
        "eligible-and-controller", "pegel_controller.control.partitions", None, "next_partition",
        "elr = tuple(r for r in trusted if r not in isr)", "elr = ()",
        "t-0 too slow: A leads in epoch 0, A in sync, nobody eligible",
    ),
    "anybody may lead": (
        "committed-alone", "pegel_controller.control.partitions", None, "_elect",
        "for replica in trusted:", "for replica in old.replicas:",
        "t-0 killed or hung: B leads in epoch 1, B in sync, nobody eligible",
    ),
    "a change of leader counts twice": (
        "lost-tail", "pegel_controller.control.partitions", None, "change_to",
        "(new.leader != old.leader or resigned)", "2 * (new.leader != old.leader or resigned)",
        "t-0 preferred: A leads in epoch 4, ABC in sync, nobody eligible",
    ),
    "a follower cuts one record more": (
        "hung-leader", "pegel_broker.replication.fetcher", "ReplicaFetcher", "_truncation_offset",
        "return min(end, own_end)", "return min(end, own_end) - 1",
        "A from 6 to 0 in epoch 1",  # the three of the first write are one batch
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_rule_is_noticed(name: str) -> None:
    story, module, owner, function, old, new, line = CHANGES[name]
    script = SCRIPTS[story]
    with without(Safeguard(name, module, owner, function, old, new)):
        found = simulated(script)
    assert line in set(found) - set(_transcript(script)), "\n".join(found)


def test_another_setting_is_noticed() -> None:
    """The script of an unclean election comes to no end where none is allowed."""
    script = SCRIPTS["unclean"]
    config = {**script.config, "unclean.leader.election.enable": "false"}
    found = simulated(replace(script, config=config))
    assert "TimeoutError: never: B leads, BC in sync" in found
    assert "t-0 killed or hung: nobody leads in epoch 1, nobody in sync, A eligible" in found
    assert not {*found} <= {*_transcript(script)}
