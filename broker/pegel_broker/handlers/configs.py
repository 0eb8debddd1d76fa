"""DescribeConfigs, IncrementalAlterConfigs, AlterConfigs: topics (2) and brokers (4)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages import alter_configs as full
from pegel.protocol.messages import incremental_alter_configs as incremental
from pegel.protocol.messages.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResourceResult,
    DescribeConfigsResponse,
    DescribeConfigsResult,
    DescribeConfigsSynonym,
)
from pegel_broker.handlers.context import Broker, Request
from pegel_broker.handlers.registry import handles
from pegel_broker.handlers.topics import ask
from pegel_controller.config import (
    ConfigEntry,
    describe_broker_config,
    describe_topic_config,
)
from pegel_controller.metadata.image import RESOURCE_BROKER, RESOURCE_TOPIC
from pegel_controller.rpc import messages as m

ALTER_TIMEOUT_MS = 30_000
# Then the loop has its turn: all keys of a topic with their synonyms cost half a millisecond.
RESOURCES_PER_TURN = 20


@handles(ApiKey.DESCRIBE_CONFIGS)
async def describe_configs(request: Request) -> DescribeConfigsResponse:
    """Each resource once, however often it is named."""
    message = request.message
    assert isinstance(message, DescribeConfigsRequest)
    wanted = {(r.resource_type, r.resource_name): r for r in message.resources}
    results = []
    for number, resource in enumerate(wanted.values(), 1):
        results.append(_describe(request.broker, resource, message))
        if number % RESOURCES_PER_TURN == 0:
            await asyncio.sleep(0)
    return DescribeConfigsResponse(results=results)


def _describe(
    broker: Broker, resource: DescribeConfigsResource, message: DescribeConfigsRequest
) -> DescribeConfigsResult:
    kind, name = resource.resource_type, resource.resource_name
    result = DescribeConfigsResult(resource_type=kind, resource_name=name)
    entries: dict[str, ConfigEntry]
    if kind == RESOURCE_TOPIC:
        if name not in broker.image.topics_by_name:
            result.error_code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            result.error_message = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION.message
            return result
        entries = describe_topic_config(broker.image, name, broker.static_configs, broker.node_id)
    elif kind == RESOURCE_BROKER and name == str(broker.node_id):
        entries = describe_broker_config(broker.image, broker.node_id, broker.static_configs)
    elif kind == RESOURCE_BROKER and not name:
        dynamic = broker.image.configs.get((RESOURCE_BROKER, ""), {})
        every = describe_broker_config(broker.image, broker.node_id, broker.static_configs)
        entries = {key: entry for key, entry in every.items() if key in dynamic}
    else:
        result.error_code = ErrorCode.INVALID_REQUEST
        result.error_message = (
            f"Unexpected broker id, expected {broker.node_id} or empty string, but received {name}"
            if kind == RESOURCE_BROKER
            else f"Unsupported resource type: {kind}"
        )
        return result
    keys = resource.configuration_keys
    result.configs = [
        _entry(key, entry, message)
        for key, entry in sorted(entries.items())
        if keys is None or key in keys
    ]
    return result


def _entry(
    name: str, entry: ConfigEntry, message: DescribeConfigsRequest
) -> DescribeConfigsResourceResult:
    return DescribeConfigsResourceResult(
        name=name,
        value=entry.value,
        read_only=entry.read_only,
        config_source=entry.source,
        is_sensitive=False,
        synonyms=[
            DescribeConfigsSynonym(name=s.name, value=s.value, source=s.source)
            for s in entry.synonyms
        ]
        if message.include_synonyms
        else [],
        config_type=entry.key.type,
        documentation=entry.key.doc if message.include_documentation else None,
    )


async def _alter(
    broker: Broker, resources: Iterable[m.ConfigResource], *, validate_only: bool, replace: bool
) -> list[m.ConfigResourceResult]:
    wanted = tuple(resources)
    asked = m.AlterConfigsRequest(wanted, validate_only, replace)
    answer = await ask(broker, "alter_configs", asked, ALTER_TIMEOUT_MS, m.AlterConfigsResponse)
    if isinstance(answer, ErrorCode):
        return [
            m.ConfigResourceResult(r.resource_type, r.resource_name, answer, answer.message)
            for r in wanted
        ]
    return list(answer.resources)


@handles(ApiKey.INCREMENTAL_ALTER_CONFIGS)
async def incremental_alter_configs(
    request: Request,
) -> incremental.IncrementalAlterConfigsResponse:
    message = request.message
    assert isinstance(message, incremental.IncrementalAlterConfigsRequest)
    resources = (
        m.ConfigResource(
            r.resource_type,
            r.resource_name,
            tuple(m.ConfigOperation(c.name, c.config_operation, c.value) for c in r.configs),
        )
        for r in message.resources
    )
    results = await _alter(
        request.broker, resources, validate_only=message.validate_only, replace=False
    )
    return incremental.IncrementalAlterConfigsResponse(
        responses=[
            incremental.AlterConfigsResourceResponse(
                error_code=r.error,
                error_message=r.message or None,
                resource_type=r.resource_type,
                resource_name=r.resource_name,
            )
            for r in results
        ]
    )


@handles(ApiKey.ALTER_CONFIGS)
async def alter_configs(request: Request) -> full.AlterConfigsResponse:
    """The older form, which replaces everything that was set."""
    message = request.message
    assert isinstance(message, full.AlterConfigsRequest)
    resources = (
        m.ConfigResource(
            r.resource_type,
            r.resource_name,
            tuple(m.ConfigOperation(c.name, 0, c.value) for c in r.configs),
        )
        for r in message.resources
    )
    results = await _alter(
        request.broker, resources, validate_only=message.validate_only, replace=True
    )
    return full.AlterConfigsResponse(
        responses=[
            full.AlterConfigsResourceResponse(
                error_code=r.error,
                error_message=r.message or None,
                resource_type=r.resource_type,
                resource_name=r.resource_name,
            )
            for r in results
        ]
    )
