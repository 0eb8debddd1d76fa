"""Three real controllers on simulated time, network and disks, and a history of what was asked.

Two brokers register and follow the metadata; workers create, delete and configure topics and change
in-sync replicas by compare-and-set, each request sent once. Controllers are killed, lose their
power, are paused and cut off. The history must be linearizable, and every broker's metadata a
prefix of one log.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any
from uuid import UUID

from pegel.protocol.errors import ErrorCode
from pegel.seams import World
from pegel_controller.control.options import ControllerOptions
from pegel_controller.metadata import MetadataImage, decode_records, decode_snapshot_and_history
from pegel_controller.node import ControllerNode
from pegel_controller.rpc import messages as m
from pegel_controller.rpc.channel import ControllerChannel, ControllerUnavailableError
from pegel_controller.rpc.framing import Frame, RpcConnection, RpcError, RpcRefusedError
from pegel_controller.rpc.hello import ROLE_BROKER, HelloRequest, open_rpc
from tests.simulation.cluster.kernel import Scheduler, Trace, bury
from tests.simulation.cluster.machine import Machine
from tests.simulation.cluster.network import Network
from tests.support.linearizability import NEVER, UNKNOWN, Model, Operation

PORT = 9093
CONTROLLERS = {n: (f"c{n}", PORT) for n in (1, 2, 3)}
BROKERS = (11, 12)
WORKERS = 3
TOPICS = ("a", "b")
# Brokers are not what breaks here: nobody is fenced, so nothing changes but by what is asked.
OPTIONS = ControllerOptions(
    session_timeout=100_000.0, takeover_grace=100_000.0, balance_interval=100_000.0
)


@dataclass(frozen=True, slots=True)
class Topic:
    """What the model knows of a topic; an id of None is one that nobody was told."""

    topic_id: UUID | None
    value: str | None = None
    epoch: int = 0


def step(state: Topic | None, operation: Operation) -> Iterable[Topic | None]:
    """One topic, as somebody sees it who asks one question after the other."""
    output, unknown = operation.output, operation.output is UNKNOWN
    match operation.name:
        case "create":
            if state is None:
                return [Topic(None if unknown else output)] if unknown or output else []
            return [state] if unknown or output is None else []
        case "delete":
            if state is None:
                return [None] if unknown or output is False else []
            return [None] if unknown or output is True else []
        case "configure":
            if state is None:
                return [None] if unknown or output is False else []
            changed = Topic(state.topic_id, operation.input, state.epoch)
            return [changed] if unknown or output is True else []
        case "exists":
            return [state] if unknown or output == (state is not None) else []
        case "change ISR":
            topic_id, epoch = operation.input
            found: list[Topic | None] = []
            # A topic whose id nobody was told may be this one or a later one of its name.
            if (state is None or state.topic_id != topic_id) and (unknown or output == "gone"):
                found.append(state)
            if state is not None and state.topic_id in {None, topic_id}:
                if state.epoch != epoch:
                    told, then = "conflict", Topic(topic_id, state.value, state.epoch)
                else:
                    told, then = epoch + 1, Topic(topic_id, state.value, epoch + 1)
                if unknown or output == told:
                    found.append(then)
            return found
        case "read":
            if state is None or output is None:
                return [state] if output == state else []
            same = state.topic_id in {None, output.topic_id}
            equal = same and (state.value, state.epoch) == (output.value, output.epoch)
            return [state] if equal else []
    raise AssertionError(operation.name)


MODEL: Model[Topic | None] = Model(None, step, key=lambda operation: operation.client.split("/")[1])


class _Quiet(asyncio.Protocol):
    pass


class _Owner:
    """Of a worker's connection: nothing is asked of it."""

    def on_rpc_request(self, connection: RpcConnection, frame: Frame) -> None: ...

    def on_rpc_push(self, connection: RpcConnection, frame: Frame) -> None: ...

    def on_rpc_closed(self, connection: RpcConnection, reason: str) -> None: ...


@dataclass
class Broker:
    """A registered broker that applies the metadata log."""

    node_id: int
    image: MetadataImage = field(default_factory=MetadataImage)
    epoch: int = -1
    unfenced: bool = False


class Simulation:
    """One history; all its randomness comes from ``seed``."""

    def __init__(self, seed: int, *, faults: bool = True) -> None:
        self.random = Random(f"controllers {seed}")
        self.trace = Trace()
        self.scheduler = Scheduler(self.trace)
        self.network = Network(self.scheduler, Random(f"{seed} network"))
        self.seed = seed
        self.faults = faults
        self.machines = {n: self._machine(f"c{n}") for n in CONTROLLERS}
        self.nodes: dict[int, ControllerNode] = {}
        self.brokers = {n: Broker(n) for n in BROKERS}
        self.history: list[Operation] = []
        self.entries: dict[int, bytes] = {}
        self.violations: list[str] = []
        self.figures: Counter[str] = Counter()
        self.working = True

    def _machine(self, name: str) -> Machine:
        return Machine(self.scheduler, self.network, name, self.seed)

    # -- processes

    def start_controller(self, n: int) -> None:
        machine = self.machines[n]
        if machine.loop is not None:
            return
        if not machine.powered:
            machine.boot()
        loop = machine.new_loop()
        loop.start(self._controller(n, machine.new_world(loop)))

    async def _controller(self, n: int, world: World) -> None:
        node = ControllerNode(world, n, "/raft", CONTROLLERS, options=OPTIONS)
        self.nodes[n] = node
        await node.start()

    def end_controller(self, n: int, *, power: bool) -> None:
        machine = self.machines[n]
        if machine.loop is None:
            return
        self.figures["power losses" if power else "kills"] += 1
        self.nodes.pop(n, None)
        if power:
            machine.lose_power()
        else:
            machine.end_process()

    def start_broker(self, n: int) -> None:
        machine = self._machine(f"b{n}")
        loop = machine.new_loop()
        world = machine.new_world(loop)
        loop.start(self._broker(self.brokers[n], world))

    async def _broker(self, broker: Broker, world: World) -> None:
        name = f"b{broker.node_id}"
        await world.network.listen(_Quiet, name, 9092)
        channel = ControllerChannel(
            world, broker.node_id, CONTROLLERS, lambda: broker.image.cluster_id
        )
        channel.start()
        request = m.RegisterBrokerRequest(
            broker.node_id, UUID(int=broker.node_id), name, 9092, boot_id="boot"
        )
        response = await channel.call("register_broker", request, 60)
        assert isinstance(response, m.RegisterBrokerResponse)
        assert not response.error, response
        broker.epoch = response.broker_epoch
        beating = asyncio.ensure_future(self._beat(broker, channel))
        await self._follow(broker, channel)
        beating.cancel()

    async def _follow(self, broker: Broker, channel: ControllerChannel) -> None:
        while True:
            request = m.MetadataFetchRequest(
                broker.node_id, broker.image.index, max_wait_ms=500,
                applied_index=broker.image.index,
            )  # fmt: skip
            try:
                response = await channel.call("metadata_fetch", request, 10)
            except RpcError:
                continue
            assert isinstance(response, m.MetadataFetchResponse)
            if response.snapshot is not None:
                broker.image = decode_snapshot_and_history(response.snapshot)[0]
                continue
            for entry in response.entries:
                known = self.entries.setdefault(entry.index, entry.data)
                if known != entry.data:
                    self.violations.append(f"broker {broker.node_id}: another entry {entry.index}")
                broker.image = broker.image.apply(decode_records(entry.data), entry.index)

    async def _beat(self, broker: Broker, channel: ControllerChannel) -> None:
        while True:
            request = m.HeartbeatRequest(broker.node_id, broker.epoch, broker.image.index)
            try:
                response = await channel.call("heartbeat", request, 5)
            except RpcError:
                continue
            assert isinstance(response, m.HeartbeatResponse)
            broker.unfenced = not response.fenced
            await asyncio.sleep(0.2)

    # -- workers

    def start_worker(self, number: int) -> None:
        machine = self._machine(f"w{number}")
        loop = machine.new_loop()
        loop.start(self._work(number, machine.new_world(loop), Random(f"{self.seed} w{number}")))

    async def _work(self, number: int, world: World, r: Random) -> None:
        connection: RpcConnection | None = None
        while self.working:
            await asyncio.sleep(r.uniform(0.0, 0.05))
            if connection is None or connection.closed:
                n = r.choice(sorted(CONTROLLERS))
                greeting = HelloRequest(100 + number, ROLE_BROKER)
                try:
                    connection, hello = await open_rpc(
                        world.network, _Owner(), CONTROLLERS[n], greeting, 0.5
                    )
                except (RpcError, OSError):
                    continue
                if not hello.active:
                    connection.drop("not active")
                    continue
            topic = r.choice(TOPICS)
            made = self._draw(topic, r)
            if made is None:
                continue
            name, given, method, request = made
            called = self.scheduler.now
            output: Any = UNKNOWN
            try:
                async with asyncio.timeout(r.choice((0.3, 3.0))):
                    output = _output(name, await connection.call(method, request.to_wire()))
            except (RpcError, TimeoutError, ControllerUnavailableError) as error:
                # Whether it was done nobody knows, also where a controller says that it lost its
                # office: what it had proposed may still be committed.
                if not isinstance(error, TimeoutError):
                    connection.drop("over")
            returned = NEVER if output is UNKNOWN else self.scheduler.now
            self.figures["answered" if output is not UNKNOWN else "unanswered"] += 1
            self.history.append(
                Operation(f"w{number}/{topic}", name, given, output, called, returned)
            )

    def _draw(self, topic: str, r: Random) -> tuple[str, Any, str, Any] | None:
        match r.choice(("create", "create", "delete", "configure", "exists", "ISR", "ISR", "ISR")):
            case "create":
                request = m.CreateTopicsRequest(
                    (m.CreatableTopic(topic, 1, 2),), timeout_ms=r.choice((0, 500))
                )
                return "create", None, "create_topics", request
            case "exists":
                request = m.CreateTopicsRequest((m.CreatableTopic(topic, 1, 2),), True)
                return "exists", None, "create_topics", request
            case "delete":
                gone = m.DeleteTopicsRequest((m.DeletableTopic(topic),), timeout_ms=0)
                return "delete", None, "delete_topics", gone
            case "configure":
                value = str(r.randrange(1, 1000) * 1000)
                resource = m.ConfigResource(
                    2, topic, (m.ConfigOperation("retention.ms", 0, value),)
                )
                return "configure", value, "alter_configs", m.AlterConfigsRequest((resource,))
        return self._draw_isr(topic, r)

    def _draw_isr(self, topic: str, r: Random) -> tuple[str, Any, str, Any] | None:
        """As its leader, who may be behind, proposes it."""
        broker = self.brokers[r.choice(BROKERS)]
        found = broker.image.topics_by_name.get(topic)
        if found is None:
            return None
        state = found.partitions[0]
        leader = self.brokers.get(state.leader)
        if leader is None:
            return None
        isr = (leader.node_id,) if len(state.isr) > 1 else BROKERS
        item = m.AlterPartitionItem(
            found.topic_id, 0, state.leader_epoch, state.partition_epoch,
            tuple(m.IsrMember(member) for member in isr),
        )  # fmt: skip
        request = m.AlterPartitionRequest(leader.node_id, leader.epoch, (item,))
        return "change ISR", (found.topic_id, state.partition_epoch), "alter_partition", request

    # -- faults

    def disturb(self) -> None:
        r = self.random
        for n in CONTROLLERS:
            if self.machines[n].loop is None and r.random() < 0.3:
                self.start_controller(n)
        roll, n = r.random(), r.choice(sorted(CONTROLLERS))
        leaders = [k for k, node in sorted(self.nodes.items()) if node.active]
        if leaders and r.random() < 0.5:
            n = r.choice(leaders)
        if roll < 0.03:
            self.end_controller(n, power=r.random() < 0.5)
        elif roll < 0.06:
            loop = self.machines[n].loop
            if loop is not None and not loop.paused:
                self.figures["pauses"] += 1
                loop.pause()
                self.scheduler.after(r.uniform(0.1, 3.0), lambda _: loop.resume())
        elif roll < 0.12:
            self.figures["cuts"] += 1
            others = [f"c{k}" for k in CONTROLLERS if k != n]
            pairs = [pair for other in others for pair in ((f"c{n}", other), (other, f"c{n}"))]
            chosen = pairs if r.random() < 0.6 else r.sample(pairs, r.randint(1, len(pairs)))
            until = r.uniform(0.2, 3.0)
            for source, target in chosen:
                self.network.cut(source, target)
                self.scheduler.after(until, lambda _, a=source, b=target: self.network.mend(a, b))

    def run(self, seconds: float = 12.0) -> list[Operation]:
        """The history, with a last read of each topic once everything has healed."""
        for n in CONTROLLERS:
            self.start_controller(n)
        for n in BROKERS:
            self.start_broker(n)
        self._until(lambda: all(b.unfenced for b in self.brokers.values()), "the brokers are up")
        for number in range(WORKERS):
            self.start_worker(number)
        end = self.scheduler.now + seconds
        while self.scheduler.now < end:
            if self.faults:
                self.disturb()
            self.scheduler.run_until(self.scheduler.now + 0.1)
        self.working = False
        self.scheduler.run_until(self.scheduler.now + 8.0)
        for n in CONTROLLERS:
            self.start_controller(n)
        self._until(lambda: any(n.active for n in self.nodes.values()), "a controller is active")
        self.scheduler.run_until(self.scheduler.now + 3.0)
        self._last_reads()
        for machine in self.machines.values():
            self.violations += machine.problems()
        return self.history

    def _until(self, condition: Any, what: str) -> None:
        end = self.scheduler.now + 30
        while not condition():
            if self.scheduler.now > end:
                raise AssertionError(f"not within 30 simulated seconds: {what}")
            self.scheduler.run_until(self.scheduler.now + 0.05)

    def _last_reads(self) -> None:
        image = next(node.image for node in self.nodes.values() if node.active)
        now = self.scheduler.now
        for topic in TOPICS:
            found = image.topics_by_name.get(topic)
            output = None
            if found is not None:
                value = dict(image.configs.get((2, topic), {})).get("retention.ms")
                output = Topic(found.topic_id, value, found.partitions[0].partition_epoch)
            self.history.append(Operation(f"end/{topic}", "read", None, output, now, now))
            for broker in self.brokers.values():
                if broker.image.index == image.index and broker.image != image:
                    self.violations.append(f"broker {broker.node_id} has other metadata")

    def close(self) -> None:
        bury(loop for machine in self.machines.values() for loop in machine.graveyard)
        self.scheduler.close()


def _output(name: str, body: list[object]) -> Any:
    """What the model calls the answer; raises RpcError where it is none of its outcomes."""
    match name:
        case "create" | "exists":
            response = m.CreateTopicsResponse.from_wire(body)
            result = response.topics[0]
            if result.error == ErrorCode.TOPIC_ALREADY_EXISTS:
                return None if name == "create" else True
            _expect(result.error, 0)
            return result.topic_id if name == "create" else False
        case "delete":
            error = m.DeleteTopicsResponse.from_wire(body).topics[0].error
            _expect(error, 0, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
            return error == 0
        case "configure":
            error = m.AlterConfigsResponse.from_wire(body).resources[0].error
            _expect(error, 0, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
            return error == 0
    result = m.AlterPartitionResponse.from_wire(body).partitions[0]
    _expect(
        result.error, 0, ErrorCode.INVALID_UPDATE_VERSION, ErrorCode.UNKNOWN_TOPIC_ID,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    )  # fmt: skip
    if result.error == 0:
        return result.partition_epoch
    return "conflict" if result.error == ErrorCode.INVALID_UPDATE_VERSION else "gone"


def _expect(error: int, *expected: int) -> None:
    if error not in expected:
        raise RpcRefusedError(error, "an outcome that the model does not know")
