"""Other people's clients log in, by each mechanism; and are refused."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError as AioKafkaError
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)
from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError

import pegel
from pegel.testing import LocalCluster
from tests.support.kafka_jars import CLASSPATH, MISSING

pytestmark = [pytest.mark.interop, pytest.mark.process, pytest.mark.timeout(90)]
JAVA = shutil.which("java")
MECHANISMS = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
VALUES = [b"%d" % i for i in range(20)]


class Refused(Exception):
    """The client says that it was not let in."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(brokers=3, sasl=True) as cluster:
        yield cluster


@pytest.fixture
def topic(cluster: LocalCluster) -> str:
    name = f"t-{uuid.uuid4().hex[:8]}"
    with pegel.Client(cluster.bootstrap, credentials=cluster.credentials) as client:
        client.create_topic(name, partitions=1, replication=3)
    return name


def confluent(bootstrap: str, mechanism: str, user: str, password: str, topic: str) -> list[bytes]:
    errors: list[str] = []
    settings: dict[str, object] = {
        "bootstrap.servers": bootstrap, "security.protocol": "SASL_PLAINTEXT", "log_level": 0,
        "sasl.mechanism": mechanism, "sasl.username": user, "sasl.password": password,
        "error_cb": lambda error: errors.append(error.name()),
    }  # fmt: skip
    producer = Producer(settings)
    for value in VALUES:
        producer.produce(topic, value)
    while producer.flush(0.1):
        if "_AUTHENTICATION" in errors:
            producer.purge()
            raise Refused
    reader = Consumer({**settings, "group.id": "c-" + topic, "auto.offset.reset": "earliest"})
    reader.subscribe([topic])
    found: list[bytes] = []
    while len(found) < len(VALUES):
        message = reader.poll(30)
        assert message is not None
        assert message.error() is None, message.error()
        found.append(message.value())
    reader.close()
    return found


def kafka_python(
    bootstrap: str, mechanism: str, user: str, password: str, topic: str
) -> list[bytes]:
    settings = {
        "bootstrap_servers": bootstrap.split(","), "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": mechanism, "sasl_plain_username": user, "sasl_plain_password": password,
    }  # fmt: skip
    try:
        producer = KafkaProducer(**settings, bootstrap_timeout_ms=3_000, max_block_ms=3_000)
    except KafkaError as error:
        raise Refused from error
    try:
        for value in VALUES:
            producer.send(topic, value)
        producer.flush(timeout=30)
    except KafkaError as error:
        producer.close(timeout=0)
        raise Refused from error
    producer.close()
    reader = KafkaConsumer(
        topic, group_id="k-" + topic, auto_offset_reset="earliest", consumer_timeout_ms=30_000,
        **settings,
    )  # fmt: skip
    found = [record.value for _, record in zip(VALUES, reader, strict=False)]
    reader.close()
    return found


def aiokafka(bootstrap: str, mechanism: str, user: str, password: str, topic: str) -> list[bytes]:
    settings = {
        "bootstrap_servers": bootstrap, "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": mechanism, "sasl_plain_username": user, "sasl_plain_password": password,
    }  # fmt: skip

    async def main() -> list[bytes]:
        producer = AIOKafkaProducer(**settings)
        try:
            await producer.start()
        except AioKafkaError as error:
            await producer.stop()
            raise Refused from error
        for value in VALUES:
            await producer.send_and_wait(topic, value)
        await producer.stop()
        reader = AIOKafkaConsumer(
            topic, group_id="a-" + topic, auto_offset_reset="earliest", **settings
        )
        await reader.start()
        found = [(await asyncio.wait_for(reader.getone(), 30)).value for _ in VALUES]
        await reader.stop()
        return found

    return asyncio.run(main())


Play = Callable[[str, str, str, str, str], list[bytes]]
CLIENTS = [confluent, kafka_python, aiokafka]


@pytest.mark.parametrize("play", CLIENTS, ids=lambda play: play.__name__)
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_client_that_logs_in_writes_and_reads(
    cluster: LocalCluster, topic: str, play: Play, mechanism: str
) -> None:
    own = cluster.credentials
    assert play(cluster.bootstrap, mechanism, own.user, own.password, topic) == VALUES


@pytest.mark.parametrize("play", CLIENTS, ids=lambda play: play.__name__)
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_client_with_another_password_is_refused(
    cluster: LocalCluster, topic: str, play: Play, mechanism: str
) -> None:
    with pytest.raises(Refused):
        play(cluster.bootstrap, mechanism, "admin", "hunter2", topic)


def test_librdkafkas_admin_manages_users(cluster: LocalCluster, topic: str) -> None:
    own = cluster.credentials
    admin = AdminClient({
        "bootstrap.servers": cluster.bootstrap, "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "SCRAM-SHA-256", "sasl.username": own.user,
        "sasl.password": own.password,
    })  # fmt: skip
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 10_000)
    added = UserScramCredentialUpsertion("dora", info, b"a password", b"a salt that is long")
    admin.alter_user_scram_credentials([added])["dora"].result(20)
    assert confluent(cluster.bootstrap, "SCRAM-SHA-256", "dora", "a password", topic) == VALUES
    found = admin.describe_user_scram_credentials(["dora"])["dora"].result(20)
    assert [(i.mechanism, i.iterations) for i in found.scram_credential_infos] == [
        (ScramMechanism.SCRAM_SHA_256, 10_000)
    ]
    everybody = admin.describe_user_scram_credentials().result(20)
    assert {"admin", "dora"} <= set(everybody)
    gone = UserScramCredentialDeletion("dora", ScramMechanism.SCRAM_SHA_256)
    admin.alter_user_scram_credentials([gone])["dora"].result(20)
    with pytest.raises(KafkaException, match="does not exist"):
        admin.alter_user_scram_credentials([gone])["dora"].result(20)


@pytest.mark.java
@pytest.mark.skipif(not CLASSPATH or JAVA is None, reason=MISSING)
def test_kafkas_own_tools_log_in_and_manage_users(
    cluster: LocalCluster, topic: str, tmp_path: Path
) -> None:
    own = cluster.credentials

    def config(user: str, password: str) -> str:
        path = tmp_path / f"{user}.properties"
        path.write_text(
            "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=SCRAM-SHA-512\n"
            "sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required "
            f'username="{user}" password="{password}";\n'
        )
        return str(path)

    def java(tool: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(JAVA), "-Xmx128m", "-cp", CLASSPATH, tool,
             "--bootstrap-server", cluster.bootstrap, *arguments],
            input=stdin, capture_output=True, text=True, timeout=80, check=False,
        )  # fmt: skip

    done = java(
        "kafka.admin.ConfigCommand", "--command-config", config(own.user, own.password), "--alter",
        "--add-config", "SCRAM-SHA-512=[iterations=8192,password=p4ss]",
        "--entity-type", "users", "--entity-name", "erna",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    with pegel.Client(cluster.bootstrap, credentials=pegel.Scram512("erna", "p4ss")) as client:
        client.send_many(topic, VALUES)
        (erna,) = client.admin.describe_users(["erna"])
        assert [(c.mechanism, c.iterations) for c in erna.credentials] == [("SCRAM-SHA-512", 8192)]
    done = java(
        "org.apache.kafka.tools.GetOffsetShell", "--topic", topic,
        "--command-config", config("erna", "p4ss"),
    )  # fmt: skip
    assert f"{topic}:0:{len(VALUES)}" in done.stdout, done.stderr
