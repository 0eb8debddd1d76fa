"""A controller whose every proposal commits at once, with invariants checked each time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from uuid import UUID

from pegel_controller.control.controller import Controller
from pegel_controller.control.options import ControllerResult
from pegel_controller.metadata.delta import MetadataDelta
from pegel_controller.metadata.image import (
    RESOURCE_BROKER,
    RESOURCE_TOPIC,
    MetadataImage,
    PartitionState,
)
from pegel_controller.metadata.records import Record, decode_records, encode_records
from pegel_controller.rpc import messages as m
from pegel_controller.rpc.reassignment_messages import (
    AlterReassignmentsRequest,
    ReassignablePartition,
)
from pegel_controller.rpc.recovery_messages import LogEnd, ReportLogEndsRequest


class Harness:
    def __init__(self, seed: int = 1) -> None:
        self.random = Random(seed)
        self.controller = Controller(self.random)
        self.controller.on_leadership(0.0, MetadataImage())
        self.now = 0.0
        self.index = 0
        self.epochs: dict[int, int] = {}
        self.incarnation = 0
        self.message = ""
        self._lost = False
        self.commit(self.controller.bootstrap("cluster"))

    @property
    def image(self) -> MetadataImage:
        return self.controller.committed

    def commit(self, result: ControllerResult) -> ControllerResult:
        if result.records and not self._lost:
            old = self.image
            self.index += 1
            self.controller.replay(decode_records(encode_records(result.records)), self.index)
            assert replace(self.controller.tip.image, index=self.index) == self.image
            delta = MetadataDelta.between(old, self.image)
            for change in delta.topics_changed.values():
                for partition in change.partitions.values():
                    check(partition.old, partition.new, self.image)
        return result

    def register(
        self, broker: int, boot: str = "boot", clean: bool = False, rack=None, disk: int = 1
    ):
        self.incarnation += 1
        request = m.RegisterBrokerRequest(
            broker, UUID(int=self.incarnation), "h", 9000 + broker, rack, boot, clean,
            log_dirs=(UUID(int=disk),),
        )  # fmt: skip
        response = self.commit(self.controller.register_broker(self.now, request)).response
        if not response.error:
            self.epochs[broker] = response.broker_epoch
        return response

    def heartbeat(self, broker: int, **more):
        request = m.HeartbeatRequest(broker, self.epochs[broker], self.index, **more)
        return self.commit(self.controller.heartbeat(self.now, request)).response

    def answer(self, broker: int, offset: int, epoch: int = 0, only: int | None = None) -> int:
        """Its logs (or that of partition ``only``) end there; how many it was asked for."""
        wanted = self.heartbeat(broker).ends_wanted
        self.report(
            broker,
            *(LogEnd(*w, epoch, offset) for w in wanted if only is None or w[1] == only),
        )
        return len(wanted)

    def report(self, broker: int, *ends: LogEnd, broker_epoch: int | None = None) -> int:
        broker_epoch = self.epochs[broker] if broker_epoch is None else broker_epoch
        request = ReportLogEndsRequest(broker, broker_epoch, ends)
        return self.commit(self.controller.report_log_ends(self.now, request)).response.error

    def let_pass(self, seconds: float, *alive: int) -> None:
        """In steps of half a second, with heartbeats of those who live."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 0.5)
            for broker in alive:
                self.heartbeat(broker)
            self.commit(self.controller.tick(self.now))

    def start(self, *brokers: int, **more) -> None:
        for broker in brokers:
            assert not self.register(broker, **more).error
            assert not self.heartbeat(broker).fenced

    def resign(self, broker: int, partitions) -> None:
        request = m.ResignRequest(broker, self.epochs[broker], tuple(partitions))
        assert not self.commit(self.controller.resign(self.now, request)).response.error

    def move(self, target, topic: str = "t", number: int = 0, allow_change: bool = True) -> int:
        item = ReassignablePartition(topic, number, target)
        request = AlterReassignmentsRequest((item,), allow_change)
        result = self.commit(self.controller.alter_reassignments(self.now, request))
        answer = result.response.partitions[0]
        self.message = answer.message or ""
        return answer.error

    def cancel(self, topic: str = "t", number: int = 0) -> int:
        return self.move(None, topic, number)

    def configure(self, key: str, value: str, topic: str = "") -> None:
        """Set a broker key for all brokers, or a key of ``topic``."""
        change = m.ConfigOperation(key, 0, value)
        kind = RESOURCE_TOPIC if topic else RESOURCE_BROKER
        request = m.AlterConfigsRequest((m.ConfigResource(kind, topic, (change,)),))
        result = self.commit(self.controller.alter_configs(self.now, request))
        assert not result.response.resources[0].error

    def elect_away(self, number: int, topic: str = "t") -> None:
        """Another in-sync replica leads now."""
        state = self.partition(topic, number)
        others = [b for b in state.replicas if b != state.leader]
        self.move((*others, state.leader), topic, number)
        self.elect_preferred()

    def delete(self, topic: str) -> None:
        request = m.DeleteTopicsRequest((m.DeletableTopic(topic),))
        self.commit(self.controller.delete_topics(self.now, request))

    def elect_preferred(self) -> None:
        request = m.ElectLeadersRequest(0)
        self.commit(self.controller.elect_leaders(self.now, request))
        self.drain_handovers()

    def elect_uncleanly(self) -> None:
        """As an operator orders it."""
        request = m.ElectLeadersRequest(1)
        self.commit(self.controller.elect_leaders(self.now, request))

    def drain_handovers(self) -> None:
        """Every live leader does as it is asked by its next heartbeat."""
        for broker in sorted(self.epochs):
            state = self.image.brokers.get(broker)
            if state is not None and not state.fenced:
                asked = self.heartbeat(broker).hand_over
                if asked:
                    self.resign(broker, asked)

    def fail_logs(
        self, broker: int, *numbers: int, topic: str = "t", why: str = ""
    ) -> list[Record]:
        """The broker reports that these are all of its logs that failed; the records that made."""
        topic_id = self.image.topics_by_name[topic].topic_id
        request = m.UpdateOfflineReplicasRequest(
            broker, self.epochs[broker], (), tuple((topic_id, n) for n in numbers),
            tuple(why for _ in numbers),
        )  # fmt: skip
        result = self.commit(self.controller.update_offline_replicas(self.now, request))
        assert not result.response.error
        return list(result.records)

    @contextmanager
    def uncommitted(self) -> Iterator[None]:
        """What is proposed meanwhile is lost with its controller."""
        self._lost = True
        try:
            yield
        finally:
            self._lost = False

    def kill(self, broker: int) -> None:
        assert self.controller.on_broker_connection_lost(self.now, broker)
        self.commit(self.controller.on_probe_result(self.now, broker, refused=True))

    def create(self, name: str, count: int = 1, factor: int = 3, validate=False, **configs: str):
        keys = tuple((k.replace("_", "."), v) for k, v in configs.items())
        topic = m.CreatableTopic(name, count, factor, configs=keys)
        request = m.CreateTopicsRequest((topic,), validate)
        return self.commit(self.controller.create_topics(self.now, request)).response.topics[0]

    def partition(self, topic: str = "t", number: int = 0) -> PartitionState:
        return self.image.topics_by_name[topic].partitions[number]

    def alter(self, isr, topic: str = "t", number: int = 0, sender=None, **wrong):
        old = self.partition(topic, number)
        sender = old.leader if sender is None else sender
        item = m.AlterPartitionItem(
            self.image.topics_by_name[topic].topic_id, number, old.leader_epoch,
            old.partition_epoch, tuple(m.IsrMember(b, self.epochs[b]) for b in isr),
        )  # fmt: skip
        request = m.AlterPartitionRequest(sender, self.epochs[sender], (replace(item, **wrong),))
        response = self.commit(self.controller.alter_partition(self.now, request)).response
        return response.error or response.partitions[0].error


def check(old: PartitionState | None, new: PartitionState, image: MetadataImage) -> None:
    assert new.leader == -1 or new.leader in new.isr
    assert set(new.isr) <= set(new.replicas)
    assert set(new.elr) <= set(new.replicas)
    assert set(new.adding) | set(new.removing) <= set(new.replicas)
    assert not set(new.adding) & set(new.removing)
    assert new.original or not (new.adding or new.removing)
    assert not set(new.isr) & set(new.elr)
    assert new.isr or new.leader == -1
    assert all(image.brokers[b].eligible for b in new.isr)
    if old is not None:
        assert new.partition_epoch > old.partition_epoch
        assert new.leader_epoch >= old.leader_epoch
        assert new.leader_epoch > old.leader_epoch or new.leader == old.leader
        assert new.isr or new.elr or new.last_known_elr, "nobody may ever lead again"
        safe = {*old.isr, *old.elr}
        known = {*new.isr, *new.elr, *new.last_known_elr}
        kept = safe & known or {*old.last_known_elr} & {*new.last_known_elr}
        assert not safe or kept or new.leader_recovery_state, "an unclean election"
