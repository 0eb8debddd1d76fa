"""Logging in, on Pegel and on Apache Kafka: the same users, the same answers.

``PEGEL_TEST_LOGIN=user:password@host:port,…`` names a cluster of Apache Kafka that takes this user
by PLAIN, and others by SCRAM.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

import pegel
from pegel.credentials import Credentials
from pegel.testing import LocalCluster
from tests.client.suite.flavours import FLAVOURS, OPTIONS, connect

VARIABLE = "PEGEL_TEST_LOGIN"
SCRAM = [pegel.Scram256, pegel.Scram512]


@dataclass(frozen=True)
class Guarded:
    """A cluster that wants to know who asks, and its administrator."""

    bootstrap: str
    admin: Credentials


@pytest.fixture(scope="module", params=["pegel", "kafka"])
def guarded(request: pytest.FixtureRequest) -> Iterator[Guarded]:
    if request.param == "kafka":
        given = os.environ.get(VARIABLE, "")
        if not given:
            pytest.skip(f"{VARIABLE} names no cluster of Apache Kafka")
        login, _, bootstrap = given.rpartition("@")
        yield Guarded(bootstrap, pegel.Plain(*login.split(":", 1)))
        return
    with LocalCluster(brokers=1, sasl=True) as cluster:
        own = cluster.credentials
        yield Guarded(cluster.bootstrap, pegel.Plain(own.user, own.password))


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("kind", SCRAM)
def test_a_user_comes_logs_in_and_goes(flavour: str, guarded: Guarded, kind: type) -> None:
    user, topic = f"user-{uuid.uuid4().hex[:8]},=", f"t-{uuid.uuid4().hex[:8]}"
    options = replace(OPTIONS, topic_grace=5.0)
    with connect(flavour, guarded.bootstrap, guarded.admin) as admin:
        admin.create_topic(topic)
        admin.admin.set_user(user, "first password")
        (found,) = admin.admin.describe_users([user])
        assert [(c.mechanism, c.iterations) for c in found.credentials] == [
            ("SCRAM-SHA-256", 4096),
            ("SCRAM-SHA-512", 4096),
        ]
        right = kind(user, "first password")
        with connect(flavour, guarded.bootstrap, right, options) as client:
            client.send(topic, b"hello")
            with client.consumer(topic, offset_reset="earliest") as consumer:
                batch = consumer.next_batch(timeout=20.0)
                assert [bytes(value) for value in batch.values] == [b"hello"]
        admin.admin.set_user(user, "second password", iterations=8192)
        _refused(flavour, guarded.bootstrap, right)
        with connect(flavour, guarded.bootstrap, kind(user, "second password")) as client:
            client.admin.describe_cluster()
        admin.admin.delete_user(user)
        _refused(flavour, guarded.bootstrap, kind(user, "second password"))
        with pytest.raises(pegel.BrokerError) as raised:
            admin.admin.delete_user(user)
        assert raised.value.code is pegel.ErrorCode.RESOURCE_NOT_FOUND


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("kind", [pegel.Plain, *SCRAM])
def test_wrong_credentials_are_one_clear_error(flavour: str, guarded: Guarded, kind: type) -> None:
    for user in (guarded.admin.user, "nobody"):
        _refused(flavour, guarded.bootstrap, kind(user, "hunter2"))


def _refused(flavour: str, bootstrap: str, credentials: Credentials) -> None:
    with (
        connect(flavour, bootstrap, credentials) as client,
        pytest.raises(pegel.AuthenticationError) as raised,
    ):
        client.admin.describe_cluster()
    text = str(raised.value)
    assert raised.value.code is pegel.ErrorCode.SASL_AUTHENTICATION_FAILED
    assert not raised.value.retriable
    assert f"{bootstrap.split(',', maxsplit=1)[0].rpartition(':')[0]}:" in text
    assert f"user {credentials.user!r} ({credentials.mechanism})" in text
    assert credentials.password not in text


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_without_credentials_the_error_says_what_may_be_missing(
    flavour: str, guarded: Guarded
) -> None:
    options = replace(OPTIONS, request_timeout=1.0)
    with (
        connect(flavour, guarded.bootstrap, None, options) as client,
        pytest.raises(pegel.ConnectionFailedError, match="if it wants credentials, give them"),
    ):
        client.admin.describe_cluster()


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_credential_that_is_too_weak_is_refused(flavour: str, guarded: Guarded) -> None:
    with (
        connect(flavour, guarded.bootstrap, guarded.admin) as admin,
        pytest.raises(pegel.BrokerError) as raised,
    ):
        admin.admin.set_user("weak", "password", iterations=1000)
    assert raised.value.code is pegel.ErrorCode.UNACCEPTABLE_CREDENTIAL
