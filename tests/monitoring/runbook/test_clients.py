"""What clients do, or suffer: slow requests, errors, lag, rebalances, too many connections."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pegel
from pegel.testing import LocalCluster
from tests.monitoring.load import TOPIC
from tests.monitoring.runbook.trial import Trial, tries
from tests.monitoring.theatre import MARKS, SETTINGS, Scene, slower, watched

pytestmark = MARKS
GROUP = "billing"
DESCRIBE = "pegel groups describe GROUP"


@contextmanager
def again_and_again(work: Callable[[], object]) -> Iterator[None]:
    """On a thread, until the block ends."""
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            work()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@tries(
    "PegelSlowRequests",
    look={
        "grep slow_request node.log":
            r"api=Produce took_ms=\d{4,} .*phase=remote reason=it waited for replicas, "
            r"broker {SLOW} was last",
    },
)  # fmt: skip
def test_a_follower_holds_writes_up(trial: Trial, stage: Scene) -> None:
    trial.on(stage)
    leader = stage.cluster.leader_of(TOPIC, 0)
    slow = stage.another(leader)

    def hang() -> None:
        stage.cluster.pause(slow)
        time.sleep(1.4)
        stage.cluster.resume(slow)
        time.sleep(0.3)

    with again_and_again(hang):
        trial.fires()
        trial.names(leader, SLOW=slow)
        trial.look(seconds=20)
    trial.clears()


@tries(
    "PegelRequestErrors",
    look={
        "topk(5, sum by (api, error) (rate(pegel_request_errors_total[5m])))":
            r'error="UNKNOWN_TOPIC_OR_PARTITION"} 0*[.1-9]',
        "panel Errors, by API and code of Cluster overview": r"UNKNOWN_TOPIC_OR_PARTITION",
    },
)  # fmt: skip
def test_a_client_asks_for_a_topic_that_is_not_there(trial: Trial, stage: Scene) -> None:
    trial.on(stage)

    async def ask(client: pegel.AsyncClient) -> None:
        for _ in range(50):
            with contextlib.suppress(pegel.PegelError):
                await client.admin.describe_topic("no-such-topic")

    with again_and_again(lambda: stage.ask(ask)):
        trial.fires()
        trial.look()
    trial.clears()


BUSY = "instance:pegel_event_loop_busy:ratio_rate5m"
LAG = "instance:pegel_event_loop_lag_seconds:p99_5m"


@tries(
    "PegelEventLoopSaturated",
    look={LAG: r"} 0\.[3-9]|} [1-9]", "cat /proc/pressure/cpu": r"^some avg10="},
)
def test_the_host_has_no_cpu_left(trial: Trial, stage: Scene) -> None:
    """A process that does not get the CPU is one that is stopped again and again."""
    trial.on(stage)
    victim = stage.another()
    trial.names(victim)

    def stop() -> None:
        stage.cluster.pause(victim)
        time.sleep(0.35)
        stage.cluster.resume(victim)
        time.sleep(0.15)

    with again_and_again(stop):
        trial.fires()
        trial.look()
    trial.clears()


@tries(
    "PegelEventLoopSaturated",
    look={BUSY: r"} 0\.[89]|} 1"},
    do={"panel Requests, by API of Cluster overview": r'api="ApiVersions".*} \d{3}'},
)
def test_clients_ask_more_than_a_broker_can_answer(trial: Trial, stage: Scene) -> None:
    trial.on(stage)
    node = stage.cluster.nodes[stage.another()]
    client = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("busy.py")), node.client],
        start_new_session=True,
    )
    # It is to be short of its one core, not of those that others use.
    for pid in (node.pid, client.pid):
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/autogroup").write_text("-15")
    try:
        trial.fires(120)
        trial.look()
        trial.do("panel")
    finally:
        client.kill()
        client.wait()
        with contextlib.suppress(OSError):
            Path(f"/proc/{node.pid}/autogroup").write_text("0")
    trial.clears()


@tries("PegelStalledConsumer", look={DESCRIBE: r"Stable"}, do={
    "pegel consume TOPIC --partition PARTITION --offset OFFSET --max-records 1 --json": r'"offset"',
})  # fmt: skip
def test_a_consumer_hangs(trial: Trial, stage: Scene) -> None:
    trial.on(stage)
    trial.names(1, TOPIC=TOPIC, GROUP=GROUP, PARTITION=0, OFFSET=-1)
    stage.load.stop_reading()
    trial.fires(120)
    trial.look()
    trial.do("pegel consume")
    stage.load.read_on()
    trial.clears()


@tries(
    "PegelLagGrowing",
    look={DESCRIBE: rf"^.*{TOPIC} +\d.* \d{{3,}}", "pegel_group_catch_up_seconds": ""},
)
def test_a_consumer_is_too_slow(trial: Trial, stage: Scene) -> None:
    """It reads a batch a second; then it is made quicker."""
    trial.on(stage)
    trial.names(1, GROUP="slow")
    pause, stop = 1.0, threading.Event()

    async def read(client: pegel.AsyncClient) -> None:
        async with client.consumer(
            TOPIC, group="slow", partition_fetch_bytes=1_000, prefetch_bytes=1_000
        ) as consumer:
            while not stop.is_set():
                await consumer.next_batch(timeout=0.2)
                await asyncio.sleep(pause)

    reader = threading.Thread(target=stage.ask, args=(read,))
    reader.start()
    try:
        trial.fires(180)
        trial.look()
        # It does not gain.
        assert not stage.stack.query('pegel_group_catch_up_seconds{group="slow"}')
        pause = 0.0
        trial.clears()
    finally:
        stop.set()
        reader.join()
        trial.run("pegel groups delete slow")


@tries(
    "PegelRebalanceStorm",
    look={
        "curl http://HOST:9098/v1/groups": r'"group": "restless", .*"generation": \d{2,}',
        "increase(pegel_group_heartbeat_expirations_total[10m])": r"} 0$",
    },
)
def test_members_come_and_go(trial: Trial, stage: Scene, tmp_path: Path) -> None:
    async def join_and_leave(client: pegel.AsyncClient) -> None:
        async with client.consumer(TOPIC, group="restless") as consumer:
            await consumer.next_batch(timeout=5)

    with slower(stage, tmp_path, speed=10) as seen:
        trial.on(seen)
        with again_and_again(lambda: stage.ask(join_and_leave)):
            trial.fires(120)
            coordinator = next(
                node for node in stage.cluster.nodes
                if "restless" in trial.run_on(node, "curl http://HOST:9098/v1/groups")
            )  # fmt: skip
            trial.names(coordinator)
            trial.look()
        trial.clears()


@tries(
    "PegelFileDescriptors",
    look={
        "pegel_connections": r'listener="client"} [1-9]\d{2}',
        "ls /proc/PID/fd | wc -l": r"^[1-9]\d{2}$",
        "ss -Htn sport = :9092": r"^ESTAB",
    },
    do={
        "prlimit --pid PID --nofile": r"^NOFILE .* 400 +\d+",
        "prlimit --pid PID --nofile=LIMIT:": "^$",
    },
)
def test_connections_are_not_closed(trial: Trial, stage: Scene) -> None:
    trial.on(stage)
    victim = stage.another()
    trial.names(victim)
    pid = stage.cluster.nodes[victim].pid
    host, _, port = stage.cluster.nodes[victim].client.rpartition(":")
    trial.names(victim, LIMIT=2000)
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (400, hard))
    sockets = [socket.create_connection((host, int(port))) for _ in range(310)]
    try:
        trial.fires()
        trial.look()
        for item in trial.declared.do:
            trial.do(item)
        trial.clears()
    finally:
        for one in sockets:
            one.close()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


@tries(
    "PegelDroppedSeries",
    look={"pegel_replica_partitions": r"} 2[0-9]{3}"},
    do={"pegel topics delete TOPIC": "^deleted topic many-2"},
)
def test_a_broker_hosts_very_many_replicas(trial: Trial, tmp_path: Path) -> None:
    with (
        LocalCluster(brokers=1, settings=SETTINGS) as cluster,
        watched(tmp_path, cluster) as stack,
    ):
        trial.on(Scene(cluster, stack))
        trial.names(1, TOPIC="many-2")
        for number in range(3):
            trial.run(f"pegel topics create many-{number} --partitions 700 --timeout 60")
        trial.fires()
        trial.look()
        trial.do("pegel topics delete")
        trial.clears()
