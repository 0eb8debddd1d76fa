"""Small requests for large work: what a request may have the broker do is bounded, by name."""

from __future__ import annotations

import asyncio
import itertools
from random import Random

import pytest

from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.create_topics import (
    CreatableTopic,
    CreateTopicsRequest,
    CreateTopicsResponse,
)
from pegel.protocol.messages.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResponse,
)
from pegel.protocol.messages.describe_groups import (
    DescribeGroupsRequest,
    DescribeGroupsResponse,
)
from pegel.protocol.messages.metadata import (
    MetadataRequest,
    MetadataRequestTopic,
    MetadataResponse,
)
from pegel.protocol.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchResponse,
)
from pegel_broker.handlers import configs, metadata, topics
from pegel_broker.handlers.configs import RESOURCES_PER_TURN
from pegel_broker.handlers.topics import CREATED_PER_TURN
from pegel_controller.control.controller import Controller
from pegel_controller.metadata.image import RESOURCE_TOPIC, MetadataImage
from pegel_controller.rpc import messages as m
from tests.support.node import NodeUnderTest, run


def test_a_topic_that_is_named_often_is_told_of_once() -> None:
    """10,000 times the partitions of a wide topic held the loop for half a minute."""

    async def main(node: NodeUnderTest) -> None:
        await node.create("t", 3)
        client = await node.connect()
        for asked in (
            MetadataRequestTopic(name="t"),
            MetadataRequestTopic(name=None, topic_id=node.topic_id("t")),
        ):
            request = MetadataRequest(topics=[asked] * 50, allow_auto_topic_creation=False)
            (topic,) = (await client.ask(request, 12, MetadataResponse)).topics
            assert len(topic.partitions) == 3

    run(main)


def test_one_request_makes_a_bounded_number_of_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "AUTO_CREATED_TOPICS_MAX", 2)

    async def main(node: NodeUnderTest) -> None:
        client = await node.connect()
        names = [MetadataRequestTopic(name=f"new-{n}") for n in (0, 0, 1, 2, 3)]
        request = MetadataRequest(topics=names, allow_auto_topic_creation=True)
        missing = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        for known in (2, 4):  # who asks again has them all
            answer = await client.ask(request, 12, MetadataResponse)
            errors = [t.error_code for t in answer.topics]
            assert errors == [0] * known + [missing] * (4 - known)

    run(main)


def test_a_group_that_is_named_often_is_told_of_once() -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await node.connect()
        wanted = DescribeGroupsRequest(groups=["g", "h", "g"])
        described = await client.ask(wanted, 5, DescribeGroupsResponse)
        assert [g.group_id for g in described.groups] == ["g", "h"]
        groups = [OffsetFetchRequestGroup(group_id=g, topics=None) for g in ("g", "h", "g")]
        fetched = await client.ask(OffsetFetchRequest(groups=groups), 9, OffsetFetchResponse)
        assert [g.group_id for g in fetched.groups] == ["g", "h"]

    run(main)


def test_describing_many_resources_lets_others_have_their_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count = 3 * RESOURCES_PER_TURN
    described: list[str] = []
    turns: list[int] = []
    honest = configs._describe

    def describe(broker: object, resource: DescribeConfigsResource, message: object) -> object:
        if len(described) % RESOURCES_PER_TURN == 0:
            asyncio.get_running_loop().call_soon(lambda: turns.append(len(described)))
        described.append(resource.resource_name)
        return honest(broker, resource, message)  # type: ignore[arg-type]

    monkeypatch.setattr(configs, "_describe", describe)

    async def main(node: NodeUnderTest) -> None:
        client = await node.connect()
        names = [f"t{n}" for n in range(count)] * 2
        resources = [
            DescribeConfigsResource(resource_type=RESOURCE_TOPIC, resource_name=name)
            for name in names
        ]
        answer = await client.ask(
            DescribeConfigsRequest(resources=resources), 4, DescribeConfigsResponse
        )
        assert [r.resource_name for r in answer.results] == described == names[:count]

    run(main)
    assert turns == [RESOURCES_PER_TURN * n for n in (1, 2, 3)]


def test_telling_of_many_new_topics_lets_others_have_their_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each result has thirty settings in it."""
    count = 3 * CREATED_PER_TURN - 1
    told: list[str] = []
    turns: list[int] = []
    honest = topics._configs

    def configs_of(broker: object, topic: str) -> object:
        if len(told) % CREATED_PER_TURN == 0:
            asyncio.get_running_loop().call_soon(lambda: turns.append(len(told)))
        told.append(topic)
        return honest(broker, topic)  # type: ignore[arg-type]

    monkeypatch.setattr(topics, "_configs", configs_of)

    async def main(node: NodeUnderTest) -> None:
        client = await node.connect()
        names = [f"t{n}" for n in range(count)]
        wanted = [CreatableTopic(name=n, num_partitions=1, replication_factor=1) for n in names]
        answer = await client.ask(CreateTopicsRequest(topics=wanted), 7, CreateTopicsResponse)
        assert [t.name for t in answer.topics] == told == names

    run(main)
    assert max(b - a for a, b in itertools.pairwise([0, *turns])) <= CREATED_PER_TURN


class _Counted(str):
    """A name that counts how often it is compared."""

    __slots__ = ()
    compared = 0

    def __eq__(self, other: object) -> bool:
        _Counted.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_each_new_topic_is_not_compared_with_all_the_others() -> None:
    """100,000 topics in one request would have held the controller for minutes."""
    controller = Controller(Random(1))
    controller.on_leadership(0.0, MetadataImage())
    count = 300
    asked = m.CreateTopicsRequest(tuple(m.CreatableTopic(_Counted(f"t_{n}")) for n in range(count)))
    _Counted.compared = 0
    response = controller.create_topics(0.0, asked).response
    assert isinstance(response, m.CreateTopicsResponse)
    assert len(response.topics) == count
    assert _Counted.compared < 10 * count
