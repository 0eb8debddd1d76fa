"""Rounds of faults on one cluster; each round has a topic, a load and a verdict of its own."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any

import pegel
from pegel.admin.events import PARTITION_CHANGED
from pegel.errors import PegelError
from pegel.testing import ClusterError
from pegel.testing.proxied import ProxiedCluster
from pegel_bench.chaos.faults import FAULTS, Happening, Scene
from pegel_bench.chaos.load import Load

HEALTHY_WITHIN = 60.0
TWO_FAULTS = 0.2  # chance that a round has a second fault right behind the first
# Of the command that tries one fault of such a round alone.
ALONE_ROUNDS = 5
# Shorter gaps are the machine's mood more than the cluster's.
GAP_SHOWN = 0.2
ACKNOWLEDGED_BEFORE = 5


@dataclass(frozen=True, slots=True)
class Options:
    """What a campaign is drawn from; the same options and seed draw the same faults."""

    rounds: int = 20
    seed: int = 0
    only: int | None = None
    brokers: int = 3
    partitions: int = 3
    replication: int = 3
    min_insync: int = 2
    faults: Sequence[str] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    topic_config: Mapping[str, str] = field(default_factory=dict)
    data_dir: str | None = None

    @property
    def numbers(self) -> Sequence[int]:
        return range(self.rounds) if self.only is None else [self.only]

    def repeat(self, number: int) -> str:
        """The command that plays this round again."""
        return self._command(["--only", str(number)], self.faults)

    def alone(self, one: Round) -> list[str]:
        """Of a round with two faults: the commands that try each by itself, a few times.

        Real processes take another turn each time, so that one that fails alone is told by trying.
        """
        names = list(dict.fromkeys(fault.name for fault in one.faults))
        if len(names) < 2:
            return []
        return [self._command(["--rounds", str(ALONE_ROUNDS)], [name]) for name in names]

    def _command(self, which: Sequence[str], faults: Sequence[str]) -> str:
        words = ["pegel", "chaos", "--seed", str(self.seed), *which]
        defaults = Options()
        for name in ("brokers", "partitions", "replication", "min_insync"):
            if getattr(self, name) != getattr(defaults, name):
                words += [f"--{name.replace('_', '-')}", str(getattr(self, name))]
        if faults:
            words += ["--faults", ",".join(faults)]
        for option, values in (("--set", self.settings), ("--topic-config", self.topic_config)):
            for key, value in values.items():
                words += [option, f"{key}={value}"]
        return shlex.join(words)


@dataclass(slots=True)
class Election:
    at: float
    partition: int
    old_leader: int
    leader: int
    reason: str


@dataclass(slots=True)
class Gap:
    """A partition whose prober got no acknowledgement in between; times of ``time.time``."""

    partition: int
    began: float
    ended: float

    @property
    def ms(self) -> float:
        return (self.ended - self.began) * 1000


@dataclass(slots=True)
class Round:
    """``findings`` are contradictions to a promise; each fails the campaign."""

    number: int
    began: float
    faults: list[Happening] = field(default_factory=list)
    elections: list[Election] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    # The longest gap of any partition since the first fault.
    unavailable_ms: float = 0.0
    findings: list[str] = field(default_factory=list)
    gave_up: dict[str, int] = field(default_factory=dict)
    sent: int = 0
    acknowledged: int = 0
    read: int = 0
    healthy_after: float = 0.0
    ended: float = 0.0

    @property
    def name(self) -> str:
        return " + ".join(f.name for f in self.faults)

    def document(self) -> dict[str, Any]:
        return {**asdict(self), "name": self.name, "unavailable_ms": round(self.unavailable_ms, 1)}


@dataclass(slots=True)
class Outcome:
    options: Options
    rounds: list[Round] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    # Where the cluster was left for a look, if something was found.
    kept: str = ""

    @property
    def findings(self) -> list[tuple[Round, str]]:
        return [(r, text) for r in self.rounds for text in r.findings]


class Campaign:
    """``say(text)`` gets a line for each event, ``status(text)`` what goes on right now."""

    def __init__(
        self, options: Options, say: Callable[[str], None], status: Callable[[str], None]
    ) -> None:
        self._options = options
        self._say = say
        self._status = status
        self.outcome = Outcome(options)
        wanted = options.faults or sorted(FAULTS)
        self._names = [name for name in wanted if not FAULTS[name].missing]
        self.outcome.skipped = {n: FAULTS[n].missing for n in wanted if FAULTS[n].missing}

    def run(self) -> Outcome:
        """All rounds; ends early at the first finding, so that the cluster can be looked at.

        Raises:
            ClusterError: the cluster does not come up at all.
        """
        cluster = ProxiedCluster(
            self._options.brokers, self._options.data_dir, self._options.settings
        )
        try:
            cluster.start()
            self._say(f"{self._options.brokers} brokers, data in {cluster.data_dir}")
            for number in self._options.numbers:
                one = self._round(cluster, number)
                self.outcome.rounds.append(one)
                if one.findings:
                    self.outcome.kept = str(cluster.data_dir)
                    break
        finally:
            cluster.stop(keep=bool(self.outcome.kept))
        return self.outcome

    def draw(self, number: int) -> tuple[Random, list[str]]:
        """The faults of a round, and the generator that decides whom they hit."""
        random = Random(f"{self._options.seed}/{number}")
        count = 2 if random.random() < TWO_FAULTS else 1
        return random, [random.choice(self._names) for _ in range(count)]

    def _round(self, cluster: ProxiedCluster, number: int) -> Round:
        random, names = self.draw(number)
        one = Round(number, time.time())
        topic = f"chaos-{number}-{time.time_ns()}"
        try:
            asyncio.run(self._make(cluster.bootstrap, topic))
        except PegelError as error:
            one.findings.append(f"not healthy: a topic cannot be made: {error}")
            return one
        load = Load(cluster.bootstrap, topic, self._options.partitions, f"{number}")
        load.start()
        scene = Scene(cluster, topic, random)
        try:
            self._until_acknowledged(load, one.began)
            for name in names:
                self._status(f"round {number}: {FAULTS[name].what.lower()}")
                scene.happened.append(Happening(name, FAULTS[name].what, time.time()))
                FAULTS[name].act(scene)
                scene.happened[-1].ended = time.time()
        except (ClusterError, OSError) as error:
            one.findings.append(f"not healthy: {error}")
        one.faults = scene.happened
        self._mend(cluster, one)
        healed = time.time()
        self._status(f"round {number}: waiting until everything is in sync")
        try:
            self._until_healthy(cluster, topic)
            self._until_acknowledged(load, time.time())
        except ClusterError as error:
            one.findings.append(f"not healthy: {error}")
        one.healthy_after = time.time() - healed
        self._status(f"round {number}: judging")
        self._judge(cluster, load, one, topic)
        self._tell(one)
        return one

    # -- the cluster

    async def _make(self, bootstrap: str, topic: str) -> None:
        options = self._options
        config = {"min.insync.replicas": str(options.min_insync)} | dict(options.topic_config)
        async with pegel.AsyncClient(bootstrap) as client:
            await client.create_topic(
                topic, partitions=options.partitions, replication=options.replication,
                config=config, timeout=HEALTHY_WITHIN,
            )  # fmt: skip

    def _mend(self, cluster: ProxiedCluster, one: Round) -> None:
        """Whatever a fault has left behind."""
        cluster.network.heal()
        gone = []
        for node_id, node in cluster.nodes.items():
            if not cluster.is_running(node_id):
                gone.append(node_id)
            elif node.paused:
                cluster.resume(node_id)
        if gone:
            try:
                cluster.restart(*gone)
            except ClusterError as error:
                one.findings.append(f"not healthy: nodes {gone} do not start: {error}")

    def _until_healthy(self, cluster: ProxiedCluster, topic: str) -> None:
        """Every partition with all its replicas in sync. Raises ClusterError."""
        missing: list[str] = ["everything"]

        def look() -> bool:
            missing[:] = [f"partition {p}" for p in range(self._options.partitions)]
            for node_id in cluster.nodes:
                with contextlib.suppress(OSError):
                    for entry in cluster.view(node_id)["broker"]["partitions"]:
                        if (
                            entry["topic"] == topic
                            and entry["role"] == "leader"
                            and len(entry["isr"]) == self._options.replication
                            and (name := f"partition {entry['partition']}") in missing
                        ):
                            missing.remove(name)
            return not missing

        _until(look, lambda: f"not in sync after {HEALTHY_WITHIN:g} s: {', '.join(missing)}")

    def _until_acknowledged(self, load: Load, since: float) -> None:
        _until(
            lambda: load.acknowledged_since(since) >= ACKNOWLEDGED_BEFORE,
            lambda: f"writes are not acknowledged within {HEALTHY_WITHIN:g} s",
        )

    # -- the verdict

    def _judge(self, cluster: ProxiedCluster, load: Load, one: Round, topic: str) -> None:
        if not load.stop():
            one.findings.append("hangs: a client did not end")
        if load.failed:
            one.findings.append(f"client failed: {load.failed}")
        one.ended, one.gave_up = load.ended, load.gave_up
        found = gaps(load, one.faults[0].began if one.faults else one.began)
        one.unavailable_ms = max((gap.ms for gap in found), default=0.0)
        one.gaps = [gap for gap in found if gap.ms >= GAP_SHOWN * 1000]
        try:
            verdict = load.verdict()
        except PegelError as error:
            one.findings.append(f"unreadable: {error}")
        else:
            one.findings += verdict.lines[:100]
            one.sent, one.acknowledged, one.read = verdict.sent, verdict.acknowledged, verdict.read
        with contextlib.suppress(PegelError):
            one.elections = asyncio.run(_elections(cluster.bootstrap, topic))
        with contextlib.suppress(PegelError):
            if not one.findings:
                asyncio.run(_delete(cluster.bootstrap, topic))

    def _tell(self, one: Round) -> None:
        what = "; ".join(f.text for f in one.faults)
        result = f"{len(one.findings)} FINDINGS" if one.findings else "nothing lost"
        self._say(
            f"round {one.number}: {what}: {len(one.elections)} elections, longest gap "
            f"{one.unavailable_ms:,.0f} ms, {one.acknowledged} of {one.sent} acknowledged, {result}"
        )


def gaps(load: Load, since: float) -> list[Gap]:
    """Times between two acknowledgements of a prober, from the first fault on."""
    found = []
    for partition, times in load.acknowledged.items():
        marks = [t for t in times if t <= load.ended]
        for before, after in zip(marks, [*marks[1:], load.ended], strict=True):
            if after >= since:
                found.append(Gap(partition, before, after))
    return found


def _until(condition: Callable[[], bool], what: Callable[[], str]) -> None:
    deadline = time.monotonic() + HEALTHY_WITHIN
    while not condition():
        if time.monotonic() > deadline:
            raise ClusterError(what())
        time.sleep(0.02)


async def _elections(bootstrap: str, topic: str) -> list[Election]:
    async with pegel.AsyncClient(bootstrap) as client:
        page = await client.admin.events(topic=topic)
    return [
        Election(e.at_ms / 1000, e.partition, e.old_leader, e.leader, e.reason)
        for e in page.events
        if e.kind == PARTITION_CHANGED and e.leader != e.old_leader
    ]


async def _delete(bootstrap: str, topic: str) -> None:
    async with pegel.AsyncClient(bootstrap) as client:
        await client.delete_topic(topic)
