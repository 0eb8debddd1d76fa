"""One node of a cluster: controller, broker or both, assembled and run."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial

import pegel_broker.handlers  # noqa: F401 (registers every handler)
from pegel.logs import Event
from pegel.metrics.http import HttpServer
from pegel.metrics.listener import ListenerCounters
from pegel.protocol.errors import ErrorCode
from pegel.seams import World
from pegel.seams.disk import Lock, LockedError
from pegel_broker.advice import advise
from pegel_broker.config import (
    LOOPBACK_HOSTS,
    ROLE_BROKER,
    ROLE_CONTROLLER,
    NodeConfig,
    NodeConfigError,
)
from pegel_broker.coordinator.service import Coordinators
from pegel_broker.group.options import GroupOptions
from pegel_broker.handlers.context import Broker
from pegel_broker.heartbeat import BrokerSession
from pegel_broker.http.server import last_page, new_server
from pegel_broker.known_controllers import read_controllers, write_controllers
from pegel_broker.log.checkpoints import (
    META_PROPERTIES_FILE,
    CheckpointError,
    decode_properties,
    encode_uuid,
)
from pegel_broker.log.cleaner import Cleaner
from pegel_broker.log.errors import LogDirectoryError
from pegel_broker.log.manager import LogManager
from pegel_broker.metrics.group_lag import GroupLag
from pegel_broker.metrics.vitals import Vitals
from pegel_broker.network.listener import ClientListener
from pegel_broker.offline import OfflineReport, on_metadata_log_failed
from pegel_broker.producer_ids import ProducerIds
from pegel_broker.replication.fetch_session import FetchSessionCache
from pegel_broker.replication.log_ends import log_ends
from pegel_broker.replication.manager import ReplicaManager, ReplicationOptions
from pegel_broker.users import new_door, prepare_users
from pegel_controller.control.options import ControllerOptions
from pegel_controller.metadata import MetadataDelta, MetadataImage
from pegel_controller.node import ControllerNode, Controllers, merge_controllers
from pegel_controller.raft.errors import RaftError
from pegel_controller.rpc import messages as m
from pegel_controller.rpc.channel import ControllerChannel
from pegel_controller.rpc.framing import RpcRefusedError
from pegel_controller.rpc.messages import AlterPartitionRequest, AlterPartitionResponse

_log = logging.getLogger("pegel.broker")

BOOT_ID_PATH = "/proc/sys/kernel/random/boot_id"
BOOT_ID_FILE = "boot-id"
LOCK_FILE = "node.lock"
# SIGTERM asks the controller to move the leaders away first; it may have gone as well.
CONTROLLED_SHUTDOWN_TIMEOUT = 1.0
RPC_TIMEOUT = 5.0
_OPEN = "without authentication: whoever reaches it can read, write and delete everything"


class NodeError(Exception):
    """The node cannot start, or cannot go on; the text is one line for people."""


@dataclass(slots=True)
class NodeAddresses:
    """What was bound; None for a listener that this node's roles do not have."""

    client: tuple[str, int] | None = None
    controller: tuple[str, int] | None = None
    http: tuple[str, int] | None = None


class Node:
    """``await start()``, then ``await ready.wait()``; ``failed`` gets an error if it must stop."""

    def __init__(self, world: World, config: NodeConfig) -> None:
        self.world = world
        self.config = config
        self.addresses = NodeAddresses()
        self.ready = asyncio.Event()
        self.failed: asyncio.Future[NodeError] = asyncio.get_running_loop().create_future()
        self.controller: ControllerNode | None = None
        self.broker: Broker | None = None
        self.session: BrokerSession | None = None
        self.replicas: ReplicaManager | None = None
        self.coordinators: Coordinators | None = None
        self.listener: ClientListener | None = None
        self.logs: LogManager | None = None
        self.channel: ControllerChannel | None = None
        self.offline: OfflineReport | None = None
        self.vitals = Vitals(world)
        self.http_counters = ListenerCounters()
        self.group_lag: GroupLag | None = None
        self._http: HttpServer | None = None
        self._cleaner: Cleaner | None = None
        self._lock: Lock | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.stopping = False
        self.hurried = False  # told to stop, whatever it is doing
        # Controllers that joined or left while the cluster ran, as the metadata log told.
        self._known: Controllers = {}

    # -- start

    async def start(self) -> None:
        """Start every part. A broker serves once ``ready`` is set.

        Raises:
            NodeError: with the reason in one line; nothing is left running.
        """
        try:
            await self._start()
        except BaseException as error:
            await self.stop(controlled=False)
            if isinstance(error, OSError):
                raise NodeError(advise(error)) from error
            if isinstance(error, LogDirectoryError | RaftError):
                raise NodeError(str(error)) from error
            raise

    async def _start(self) -> None:
        config, disk = self.config, self.world.disk
        disk.make_directories(config.data_dir)
        try:
            self._lock = disk.lock(f"{config.data_dir}/{LOCK_FILE}")
        except LockedError as error:
            raise NodeError(
                f"the data directory {config.data_dir} is used by {error.advice}, or use another "
                "directory (--data-dir)"
            ) from None
        cluster_id = self._known_cluster_id()
        self._known = read_controllers(disk, config.data_dir)
        if config.http is not None:
            self.vitals.start()  # nobody would read them without this listener
            self._http = new_server(self)
            self.addresses.http = await self._bind(self._http.start(*config.http), config.http)
        if ROLE_CONTROLLER in config.roles:
            await self._start_controller(cluster_id)
        if ROLE_BROKER in config.roles:
            await self._start_broker(cluster_id)
        else:
            self._tasks.append(asyncio.create_task(self._controller_ready(), name="ready"))

    async def _bind(
        self, starting: Coroutine[None, None, tuple[str, int]], address: tuple[str, int]
    ) -> tuple[str, int]:
        host, port = address
        if host not in LOOPBACK_HOSTS:
            if address == self.config.listen and self.config.mechanisms:
                warning = "without encryption: whoever listens in reads what is sent"
            else:
                warning = _OPEN
            _log.warning("listening on %s:%d %s", host, port, warning)
        try:
            return await starting
        except OSError as error:
            raise NodeError(
                f"cannot listen on {host}:{port}: {error.strerror or error}; choose another port"
            ) from error

    def _known_cluster_id(self) -> str:
        """From the data directory, else from the configuration. Raises NodeError if they differ."""
        config, disk = self.config, self.world.disk
        path = f"{self._log_dir}/{META_PROPERTIES_FILE}"
        if not disk.exists(path):
            return config.cluster_id
        try:
            meta = decode_properties(disk.read_file(path))
        except CheckpointError as error:
            raise NodeError(f"{path}: {error}; {self._identity_help()}") from error
        found, node_id = meta.get("cluster.id", ""), meta.get("node.id", "")
        if config.cluster_id and found != config.cluster_id:
            raise NodeError(
                f"{config.data_dir} belongs to cluster {found}, not to {config.cluster_id}: "
                "use another data directory"
            )
        if node_id != str(config.node_id):
            raise NodeError(f"{config.data_dir} belongs to node {node_id}, not {config.node_id}")
        return found

    def _identity_help(self) -> str:
        """What to do where the file that says whose the data are does not say it any more."""
        cluster = self.config.cluster_id or "ID (`pegel cluster describe` on another node tells it)"
        directory = encode_uuid(uuid.UUID(int=self.world.random.getrandbits(128), version=4))
        return (
            "restore it from a copy, or write it anew, a line each: version=1 "
            f"cluster.id={cluster} node.id={self.config.node_id} directory.id={directory}"
        )

    @property
    def _log_dir(self) -> str:
        return f"{self.config.data_dir}/log"

    async def _start_controller(self, cluster_id: str) -> None:
        config = self.config
        options = ControllerOptions(
            lease=config.number("broker.lease.ms") / 1000,
            session_timeout=config.number("broker.session.timeout.ms") / 1000,
            recovery_timeout=config.number("unclean.recovery.timeout.ms") / 1000,
            balance_interval=config.number("leader.imbalance.check.interval.seconds"),
            static_configs=config.settings,
        )
        self.controller = ControllerNode(
            self.world,
            config.node_id,
            f"{config.data_dir}/raft",
            config.controllers,
            cluster_id=cluster_id,
            options=options,
            address=config.controller_listen,
            known=self._known,
            on_controllers=self._on_controllers,
            on_fatal=partial(on_metadata_log_failed, self.vitals, self._fail, config.data_dir),
        )
        address = self.controller.controllers[config.node_id]
        if address[0] not in LOOPBACK_HOSTS:
            _log.warning("the controller listens on %s:%d %s; let nobody reach it but the nodes",
                         *address, _OPEN)  # fmt: skip
        try:
            await self.controller.start()
        except OSError as error:
            raise NodeError(
                f"cannot listen on {address[0]}:{address[1]}: {error.strerror or error}; "
                "choose another port"
            ) from error
        self.addresses.controller = address

    async def _start_broker(self, cluster_id: str) -> None:
        config, world = self.config, self.world
        self.channel = ControllerChannel(
            world, config.node_id, merge_controllers(config.controllers, self._known),
            lambda: cluster_id,
            on_connected=self._on_controller, on_refused_hello=self._on_refused,
        )  # fmt: skip
        self.channel.start()
        if not cluster_id:
            await self._or_failure(self.channel.wait_connected())
            cluster_id = self.channel.cluster_id
        boot_id, page_cache_lost = self._boot_id()
        self.logs = LogManager(world, [self._log_dir])
        self.logs.on_directory_offline = self._on_directory_offline
        await self.logs.start(cluster_id, config.node_id, page_cache_lost=page_cache_lost)
        self.vitals.watch(self.logs)
        world.disk.write_file(f"{config.data_dir}/{BOOT_ID_FILE}", boot_id.encode())
        self._assemble_broker()
        assert self.listener is not None
        self.addresses.client = await self._bind(self.listener.start(*config.listen), config.listen)
        host, port = config.advertise or self.addresses.client
        port = port or self.addresses.client[1]
        assert self.broker is not None
        self.broker.static_configs = config.described(
            self.addresses.client, (host, port), self._log_dir
        )
        registration = m.RegisterBrokerRequest(
            config.node_id,
            uuid.UUID(int=world.random.getrandbits(128), version=4),
            host,
            port,
            config.rack,
            boot_id,
            self.logs.was_clean and self.logs.last_broker_epoch >= 0,
            cluster_id,
            tuple(sorted(self.logs.directory_ids.values())),
            self.addresses.http[1] if self.addresses.http else -1,
        )
        assert self.replicas is not None
        assert self.offline is not None
        self.session = BrokerSession(
            world, self.channel, registration,
            config.number("broker.heartbeat.interval.ms") / 1000,
            self._on_metadata, self.replicas.on_lease, self.replicas.resign,
            self.replicas.hand_over, self.logs.stalled_seconds, self.offline.pending,
            self.replicas.arrivals.pending, partial(log_ends, self.replicas),
        )  # fmt: skip
        self.replicas.arrivals.on_all_here = self.session.wake
        self.session.start()
        self.session.on_failed = self._fail
        self._tasks.append(asyncio.create_task(self._broker_ready(), name="ready"))
        self._tasks.append(asyncio.create_task(self._apply_retention(), name="retention"))
        if config.value("log.cleaner.enable"):
            interval = config.number("log.cleaner.backoff.ms") / 1000
            self._cleaner = Cleaner(world, self.logs, interval)
            self._tasks.append(asyncio.create_task(self._cleaner.run(), name="compaction"))
        if self._http is not None:
            self._watch_groups()

    def _assemble_broker(self) -> None:
        config, world = self.config, self.world
        assert self.logs is not None
        assert self.channel is not None
        offline = self.offline = OfflineReport(
            config.node_id, self.channel, self._broker_epoch,
            lambda: self.replicas.offline if self.replicas is not None else {},
        )  # fmt: skip
        self._tasks.append(asyncio.create_task(offline.run(), name="offline-report"))
        self.replicas = ReplicaManager(
            world,
            config.node_id,
            self.logs,
            ReplicationOptions(
                lag_time_max=config.number("replica.lag.time.max.ms") / 1000,
                fetch_wait_max_ms=config.number("replica.fetch.wait.max.ms"),
                fetch_max_bytes=config.number("replica.fetch.max.bytes"),
                static_configs=config.settings,
            ),
            self._alter_partition,
            self._broker_epoch,
            offline.wake,
        )
        self.coordinators = Coordinators(
            world,
            self.replicas,
            GroupOptions.from_numbers(config.number),
            commit_timeout=config.number("offsets.commit.timeout.ms") / 1000,
        )
        self.broker = Broker(
            world, config.node_id, MetadataImage(), self.replicas, self.channel,
            FetchSessionCache(world.random), ProducerIds(self._allocate_producer_ids),
            config.settings, self.coordinators,
        )  # fmt: skip
        self.listener = ClientListener(
            world, self.broker, max_request_bytes=config.number("socket.request.max.bytes"),
            slow_after=config.number("request.slow.log.ms") / 1000,
            max_receiving_bytes=config.number("queued.max.request.bytes"),
            door=new_door(config, world, self.broker),
        )  # fmt: skip

    def _watch_groups(self) -> None:
        assert self.replicas is not None
        assert self.coordinators is not None
        self.group_lag = GroupLag(
            self.world, self.replicas, self.coordinators, lambda: self.addresses.client or ("", 0)
        )
        self._tasks.append(asyncio.create_task(self.group_lag.run(), name="group-lag"))

    def _boot_id(self) -> tuple[str, bool]:
        """The host's boot, and whether it may be another one than at the last run."""
        disk = self.world.disk
        try:
            boot_id = disk.read_file(BOOT_ID_PATH).strip()
        except OSError:
            return "", True  # not Linux: an unclean end then counts as a lost page cache
        path = f"{self.config.data_dir}/{BOOT_ID_FILE}"
        before = disk.read_file(path).strip() if disk.exists(path) else boot_id
        return boot_id.decode(), before != boot_id

    async def _or_failure(self, waiting: Coroutine[None, None, None]) -> None:
        """Wait for ``waiting``, or raise the error that this node failed with."""
        task = asyncio.create_task(waiting)
        await asyncio.wait({task, self.failed}, return_when=asyncio.FIRST_COMPLETED)  # type: ignore[type-var]
        if not task.done():
            task.cancel()
            raise self.failed.result()
        await task

    async def _broker_ready(self) -> None:
        assert self.session is not None
        assert self.listener is not None
        assert self.broker is not None
        await self.session.caught_up.wait()
        try:
            await prepare_users(self.config, self.world, self.broker)
        except NodeConfigError as error:
            self._fail(str(error))
            return
        self.listener.begin_serving()
        await self.session.unfenced.wait()
        host, port = self.addresses.client or ("", -1)
        _log.info(Event("serves", listener=f"{host}:{port}"))
        self.ready.set()

    async def _controller_ready(self) -> None:
        assert self.controller is not None
        await self.controller.leader_known.wait()
        self.ready.set()

    async def _apply_retention(self) -> None:
        assert self.logs is not None
        interval = self.config.number("log.retention.check.interval.ms") / 1000
        while True:
            await asyncio.sleep(interval)
            self.logs.retention(self.world.clock.wall_ms())

    # -- callbacks

    def _on_controller(self) -> None:
        if self.session is not None:
            self.session.wake()

    def _on_refused(self, error: RpcRefusedError) -> None:
        if error.code == ErrorCode.INCONSISTENT_CLUSTER_ID:
            self._fail(f"{self.config.data_dir}: {error.message}")
        else:
            _log.warning("a controller refuses this node: %s", error.message)

    def _on_controllers(self, joined: Controllers) -> None:
        """Remember who joined and who left: configuration files need not be right for ever."""
        if joined == self._known:
            return
        try:
            write_controllers(self.world.disk, self.config.data_dir, joined)
            self._known = joined
        except OSError as error:  # tried again with the next change of the metadata
            _log.error("cannot remember which controllers there are: %s", advise(error))
        if self.channel is not None:
            self.channel.set_controllers(merge_controllers(self.config.controllers, joined))

    def _broker_epoch(self) -> int:
        return self.session.broker_epoch if self.session is not None else -1

    def _on_metadata(self, delta: MetadataDelta, image: MetadataImage) -> None:
        assert self.broker is not None
        assert self.replicas is not None
        assert self.offline is not None
        assert self.coordinators is not None
        self.broker.on_metadata(delta, image)
        self._on_controllers(image.controllers)
        self.replicas.apply(delta, image)
        self.offline.on_metadata(image)
        self.coordinators.apply(delta, image)

    async def _alter_partition(self, request: AlterPartitionRequest) -> AlterPartitionResponse:
        assert self.channel is not None
        response = await self.channel.call("alter_partition", request, RPC_TIMEOUT)
        assert isinstance(response, AlterPartitionResponse)
        return response

    async def _allocate_producer_ids(self) -> tuple[int, int]:
        assert self.channel is not None
        assert self.session is not None
        request = m.AllocateProducerIdsRequest(self.config.node_id, self.session.broker_epoch)
        response = await self.channel.call("allocate_producer_ids", request, RPC_TIMEOUT)
        assert isinstance(response, m.AllocateProducerIdsResponse)
        if response.error:
            raise RpcRefusedError(response.error, "no producer ids")
        return response.first_producer_id, response.count

    def _on_directory_offline(self, path: str, reason: str) -> None:
        _log.error(Event("log_directory_offline", dir=path, reason=reason))
        assert self.logs is not None
        if all(d.offline is not None for d in self.logs.directories):
            self._fail(f"no log directory is left: {path}: {reason}")

    def _fail(self, reason: str) -> None:
        if not self.failed.done():
            _log.critical("%s", reason)
            self.failed.set_result(NodeError(reason))

    # -- stop

    async def stop(self, *, controlled: bool = True) -> None:
        """End cleanly; ``controlled`` moves the leaders away first. Safe to call twice."""
        if self.stopping:
            return
        self.stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.replicas is not None:
            self.replicas.retire()
        if controlled and self.session is not None and not self.session.fenced:
            moved = await self.session.shut_down(CONTROLLED_SHUTDOWN_TIMEOUT)
            _log.info("leaders moved away" if moved else "the controller did not answer in time")
        broker_epoch = self.session.broker_epoch if self.session is not None else -1
        if self.listener is not None:
            self.listener.stop_accepting()
        if self.coordinators is not None:
            await self.coordinators.close()
        if self.replicas is not None:
            await self.replicas.close()
        if self.listener is not None:
            await self.listener.close()
        if self.session is not None:
            await self.session.close()
        self.vitals.close()  # it asks the disks, whose queues end with the logs
        if self._cleaner is not None:
            self._cleaner.close()
        if self.logs is not None:
            await self.logs.close(broker_epoch=broker_epoch)
        if self.channel is not None:
            await self.channel.close()
        if self.controller is not None:
            await self.controller.close()
        if self._http is not None:
            await last_page(self)
            await self._http.close()
        if self._lock is not None:
            self._lock.close()
