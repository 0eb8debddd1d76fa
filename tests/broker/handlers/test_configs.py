"""DescribeConfigs, IncrementalAlterConfigs and AlterConfigs on the wire."""

from __future__ import annotations

import asyncio

import pytest

from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages import alter_configs as full
from pegel.protocol.messages import incremental_alter_configs as incremental
from pegel.protocol.messages.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResourceResult,
    DescribeConfigsResponse,
    DescribeConfigsResult,
)
from tests.support.node import NodeUnderTest, RawClient, produce, records, run

TOPIC, BROKER = 2, 4
SET, DELETE, APPEND, SUBTRACT = range(4)
(TOPIC_CONFIG, BROKER_CONFIG, DEFAULT_BROKER_CONFIG, STATIC_CONFIG, DEFAULT_CONFIG) = range(1, 6)
LONG, LIST = 5, 7


async def _describe(
    client: RawClient, *resources: tuple[int, str], keys: list[str] | None = None, version: int = 4
) -> list[DescribeConfigsResult]:
    request = DescribeConfigsRequest(
        resources=[
            DescribeConfigsResource(resource_type=kind, resource_name=name, configuration_keys=keys)
            for kind, name in resources
        ],
        include_synonyms=True, include_documentation=True,
    )  # fmt: skip
    return (await client.ask(request, version, DescribeConfigsResponse)).results


async def _one(client: RawClient, kind: int, name: str, key: str) -> DescribeConfigsResourceResult:
    (result,) = await _describe(client, (kind, name), keys=[key])
    assert (result.error_code, result.error_message) == (0, "")
    return result.configs[0]


def _sources(entry: DescribeConfigsResourceResult) -> list[tuple[str, str | None, int]]:
    return [(s.name, s.value, s.source) for s in entry.synonyms]


async def _alter(
    client: RawClient,
    *resources: tuple[int, str, list[tuple[str, int, str | None]]],
    validate_only: bool = False,
) -> list[tuple[int, str | None]]:
    request = incremental.IncrementalAlterConfigsRequest(
        resources=[
            incremental.AlterConfigsResource(
                resource_type=kind, resource_name=name,
                configs=[
                    incremental.AlterableConfig(name=k, config_operation=op, value=v)
                    for k, op, v in operations
                ],
            )
            for kind, name, operations in resources
        ],
        validate_only=validate_only,
    )  # fmt: skip
    response = await client.ask(request, 1, incremental.IncrementalAlterConfigsResponse)
    return [(r.error_code, r.error_message) for r in response.responses]


async def _until(client: RawClient, topic: str, key: str, value: str) -> None:
    async with asyncio.timeout(20):
        while (await _one(client, TOPIC, topic, key)).value != value:
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("version", range(1, 5))
def test_every_key_of_a_topic_with_its_source(version: int) -> None:
    async def main(node: NodeUnderTest) -> None:
        await node.create("t", retention_ms=1_000)
        client = await node.connect()
        (result,) = await _describe(client, (TOPIC, "t"), version=version)
        entries = {c.name: c for c in result.configs}
        assert {"cleanup.policy", "min.insync.replicas", "segment.bytes"} <= set(entries)
        changed, untouched = entries["retention.ms"], entries["retention.bytes"]
        assert (changed.value, changed.config_source) == ("1000", TOPIC_CONFIG)
        assert (untouched.value, untouched.config_source) == ("-1", DEFAULT_CONFIG)
        assert _sources(changed) == [
            ("retention.ms", "1000", TOPIC_CONFIG),
            ("log.retention.ms", "604800000", DEFAULT_CONFIG),
        ]
        if version >= 3:
            assert untouched.config_type == LONG
            assert entries["cleanup.policy"].config_type == LIST
            assert all(c.documentation for c in result.configs)
        assert not any(c.read_only or c.is_sensitive for c in result.configs)

    run(main)


def test_chosen_keys_and_missing_resources() -> None:
    async def main(node: NodeUnderTest) -> None:
        await node.create("t")
        client = await node.connect()
        good, missing, stranger, kind = await _describe(
            client, (TOPIC, "t"), (TOPIC, "nope"), (BROKER, "99"), (77, "x"),
            keys=["retention.ms", "no.such.key"],
        )  # fmt: skip
        assert [c.name for c in good.configs] == ["retention.ms"]
        assert missing.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        assert stranger.error_code == ErrorCode.INVALID_REQUEST
        assert kind.error_code == ErrorCode.INVALID_REQUEST
        assert missing.error_message
        assert stranger.error_message

    run(main)


def test_what_a_broker_was_started_with_is_static_and_read_only() -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await node.connect()
        assert node.node.addresses.client is not None
        entry = await _one(client, BROKER, "1", "advertised.listeners")
        assert entry.value == "PLAINTEXT://{}:{}".format(*node.node.addresses.client)
        assert (entry.config_source, entry.read_only, entry.synonyms) == (STATIC_CONFIG, True, [])
        for key, value in (("node.id", "1"), ("log.dirs", "/node/log")):
            entry = await _one(client, BROKER, "1", key)
            assert (entry.value, entry.config_source) == (value, STATIC_CONFIG)
        entry = await _one(client, BROKER, "1", "num.partitions")
        assert (entry.value, entry.config_source) == ("3", STATIC_CONFIG)

    run(main, num_partitions=3)


def test_a_cluster_default_shows_in_topics() -> None:
    async def main(node: NodeUnderTest) -> None:
        await node.create("t")
        client = await node.connect()
        assert await _alter(client, (BROKER, "", [("message.max.bytes", SET, "5000")])) == [
            (0, None)
        ]
        await _until(client, "t", "max.message.bytes", "5000")
        entry = await _one(client, TOPIC, "t", "max.message.bytes")
        assert entry.config_source == DEFAULT_BROKER_CONFIG
        assert _sources(entry) == [
            ("message.max.bytes", "5000", DEFAULT_BROKER_CONFIG),
            ("message.max.bytes", "1048588", DEFAULT_CONFIG),
        ]
        (default,) = await _describe(client, (BROKER, ""))
        # min.insync.replicas is a cluster default from the first on: ELR needs one (KIP-966).
        assert [(c.name, c.value) for c in default.configs] == [
            ("message.max.bytes", "5000"), ("min.insync.replicas", "1"),
        ]  # fmt: skip
        answer = await produce(client, "t", records(b"x" * 6_000))
        assert answer.error_code == ErrorCode.MESSAGE_TOO_LARGE

    run(main)


def test_set_delete_append_subtract() -> None:
    async def main(node: NodeUnderTest) -> None:
        await node.create("t")
        client = await node.connect()
        for operation, value, expected in (
            (APPEND, "compact", "delete,compact"),
            (APPEND, "compact", "delete,compact"),
            (SUBTRACT, "delete", "compact"),
            (SET, "delete", "delete"),
            (DELETE, None, "delete"),
        ):
            assert await _alter(client, (TOPIC, "t", [("cleanup.policy", operation, value)])) == [
                (0, None)
            ]
            await _until(client, "t", "cleanup.policy", expected)
        entry = await _one(client, TOPIC, "t", "cleanup.policy")
        assert entry.config_source == DEFAULT_CONFIG

    run(main)


def test_each_resource_fails_alone() -> None:
    async def main(node: NodeUnderTest) -> None:
        for name in ("a", "b", "c", "d", "e"):
            await node.create(name)
        client = await node.connect()
        told = await _alter(
            client,
            (TOPIC, "a", [("no.such.key", SET, "1")]),
            (TOPIC, "b", [("retention.ms", SET, "1234")]),
            (TOPIC, "c", [("retention.ms", SET, "soon")]),
            (TOPIC, "d", [("retention.ms", APPEND, "1")]),
            (TOPIC, "e", [("retention.ms", SET, "1"), ("retention.ms", SET, "2")]),
            (TOPIC, "nope", [("retention.ms", SET, "1")]),
            (BROKER, "1", [("node.id", SET, "7")]),
        )
        assert [error for error, _ in told] == [
            ErrorCode.INVALID_CONFIG, 0, ErrorCode.INVALID_CONFIG, ErrorCode.INVALID_CONFIG,
            ErrorCode.INVALID_REQUEST, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
            ErrorCode.INVALID_CONFIG,
        ]  # fmt: skip
        await _until(client, "b", "retention.ms", "1234")

    run(main)


def test_foreign_keys_of_brokers_are_taken() -> None:
    """Tests and tools written for Kafka set keys that have no meaning here."""

    async def main(node: NodeUnderTest) -> None:
        client = await node.connect()
        told = await _alter(client, (BROKER, "1", [("log.cleaner.threads", SET, "2")]))
        assert told == [(0, None)]
        told = await _alter(client, (BROKER, "1", [("node.id", SET, "7")]))
        assert told[0][0] == ErrorCode.INVALID_CONFIG
        told = await _alter(client, (BROKER, "7", [("log.cleaner.threads", SET, "2")]))
        assert told[0][0] != 0

    run(main)


def test_validate_only_changes_nothing() -> None:
    async def main(node: NodeUnderTest) -> None:
        await node.create("t")
        client = await node.connect()
        good: tuple[int, str, list[tuple[str, int, str | None]]]
        good = (TOPIC, "t", [("retention.ms", SET, "5")])
        assert await _alter(client, good, validate_only=True) == [(0, None)]
        bad: tuple[int, str, list[tuple[str, int, str | None]]]
        bad = (TOPIC, "t", [("retention.ms", SET, "x")])
        ((error, message),) = await _alter(client, bad, validate_only=True)
        assert error == ErrorCode.INVALID_CONFIG
        assert "retention.ms" in (message or "")
        assert (await _one(client, TOPIC, "t", "retention.ms")).config_source == DEFAULT_CONFIG

    run(main)


@pytest.mark.parametrize("version", range(3))
def test_the_older_form_replaces_everything(version: int) -> None:
    async def main(node: NodeUnderTest) -> None:
        await node.create("t", retention_ms=5, segment_bytes=1_000_000)
        client = await node.connect()
        request = full.AlterConfigsRequest(
            resources=[
                full.AlterConfigsResource(
                    resource_type=TOPIC, resource_name="t",
                    configs=[full.AlterableConfig(name="retention.ms", value="6")],
                )
            ]
        )  # fmt: skip
        response = await client.ask(request, version, full.AlterConfigsResponse)
        assert response.responses[0].error_code == 0
        await _until(client, "t", "retention.ms", "6")
        assert (await _one(client, TOPIC, "t", "segment.bytes")).config_source == DEFAULT_CONFIG

    run(main)
