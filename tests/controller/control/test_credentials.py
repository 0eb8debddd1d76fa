"""Who may log in, as the controller decides and keeps it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType

import pytest

from pegel.protocol.errors import ErrorCode
from pegel_controller.control.credentials import MAX_CHANGES
from pegel_controller.metadata import decode_snapshot, encode_snapshot
from pegel_controller.metadata.image import ScramCredential
from pegel_controller.rpc.credential_messages import (
    AlterCredentialsRequest,
    AlterCredentialsResponse,
    CredentialChange,
    CredentialResult,
)
from tests.controller.control.harness import Harness

SALT = b"a salt of some length"


def change(user: str = "alice", mechanism: int = 1, **more: object) -> CredentialChange:
    values = {"iterations": 4096, "salt": SALT, "stored_key": b"s" * 32, "server_key": b"v" * 32}
    return CredentialChange(user, mechanism, **{**values, **more})  # type: ignore[arg-type]


def alter(h: Harness, *changes: CredentialChange, **more: object) -> tuple[CredentialResult, ...]:
    request = AlterCredentialsRequest(changes, **more)  # type: ignore[arg-type]
    response = h.commit(h.controller.alter_credentials(h.now, request)).response
    assert isinstance(response, AlterCredentialsResponse)
    return response.results


def test_credentials_come_change_and_go() -> None:
    h = Harness()
    assert alter(h, change(), change(mechanism=2), change("bob")) == (
        CredentialResult("alice"),
        CredentialResult("bob"),
    )
    assert h.image.credentials == {
        "alice": {
            1: ScramCredential(1, 4096, SALT, b"s" * 32, b"v" * 32),
            2: ScramCredential(2, 4096, SALT, b"s" * 32, b"v" * 32),
        },
        "bob": {1: ScramCredential(1, 4096, SALT, b"s" * 32, b"v" * 32)},
    }
    alter(h, change(iterations=8192), CredentialChange("bob", 1))
    assert h.image.credentials["alice"][1].iterations == 8192
    assert "bob" not in h.image.credentials


@pytest.mark.parametrize(
    ("wrong", "code", "why"),
    [
        (change(""), ErrorCode.UNACCEPTABLE_CREDENTIAL, "Username must not be empty"),
        (change("__broker"), ErrorCode.UNACCEPTABLE_CREDENTIAL, "brokers' own"),
        (change("ä" * 128), ErrorCode.UNACCEPTABLE_CREDENTIAL, "longer than 255 bytes"),
        (change(iterations=4095), ErrorCode.UNACCEPTABLE_CREDENTIAL, "Too few iterations"),
        (change(iterations=-1), ErrorCode.UNACCEPTABLE_CREDENTIAL, "Too few iterations"),
        (change(iterations=16_385), ErrorCode.UNACCEPTABLE_CREDENTIAL, "Too many iterations"),
        (change(salt=b"short"), ErrorCode.UNACCEPTABLE_CREDENTIAL, "at least 12 bytes"),
        (change(salt=b"s" * 256), ErrorCode.UNACCEPTABLE_CREDENTIAL, "at most 255 bytes"),
        (change(mechanism=0), ErrorCode.UNSUPPORTED_SASL_MECHANISM, "Unknown SCRAM mechanism"),
        (CredentialChange("bob", 1), ErrorCode.RESOURCE_NOT_FOUND, "does not exist"),
    ],
)
def test_what_cannot_be_is_refused_and_others_are_not(
    wrong: CredentialChange, code: ErrorCode, why: str
) -> None:
    h = Harness()
    right = change("carol")
    results = {r.user: r for r in alter(h, right, wrong)}
    assert results["carol"].error == 0
    assert results[wrong.user].error == code
    assert why in (results[wrong.user].message or "")
    assert set(h.image.credentials) == {"carol"}


def test_a_user_that_is_named_twice_is_left_alone() -> None:
    h = Harness()
    (result,) = alter(h, change(), change(mechanism=2), CredentialChange("alice", 1))
    assert result.error == ErrorCode.DUPLICATE_RESOURCE
    assert not h.image.credentials


def test_many_changes_at_a_time_are_refused_and_change_nothing() -> None:
    h = Harness()
    most = [change(f"u{i}", mechanism) for i in range(MAX_CHANGES // 2) for mechanism in (1, 2)]
    results = alter(h, *most, change("one too many"))
    assert {r.error for r in results} == {ErrorCode.INVALID_REQUEST}
    assert len(results) == MAX_CHANGES // 2 + 1
    assert not h.image.credentials
    assert not any(r.error for r in alter(h, *most))
    assert len(h.image.credentials) == MAX_CHANGES // 2


def test_what_users_cost_grows_as_their_number() -> None:
    """In lines of Python that run: the controller plans and applies an entry in one piece."""

    def lines(users: int) -> int:
        h = Harness()
        changes = [change(f"u{i}", mechanism) for i in range(users) for mechanism in (1, 2)]
        count = 0

        def trace(frame: FrameType, event: str, argument: object) -> Callable[..., object]:
            nonlocal count
            count += event == "line"
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            alter(h, *changes, first_users=True)
        finally:
            sys.settrace(before)
        assert len(h.image.credentials) == users
        return count

    assert lines(400) < 3 * lines(200)


def test_first_users_come_all_or_not_at_all() -> None:
    """A node whose file names a user that cannot be ends; once mended it makes all of them."""
    h = Harness()
    results = {
        r.user: r.error
        for r in alter(h, change("alice"), change("__bob"), first_users=True,
                       inter_broker_secret=b"one")
    }  # fmt: skip
    assert results == {"alice": 0, "__bob": ErrorCode.UNACCEPTABLE_CREDENTIAL}
    assert not h.image.credentials
    alter(h, change("alice"), change("bob"), first_users=True, inter_broker_secret=b"two")
    assert set(h.image.credentials) == {"alice", "bob"}
    assert h.image.inter_broker_secret == b"two"


def test_first_users_and_the_secret_are_taken_once() -> None:
    """Three brokers start at a time; and later one starts that still has the old file."""
    h = Harness()
    alter(h, change("alice"), first_users=True, inter_broker_secret=b"one")
    assert alter(h, change("alice", iterations=5000), first_users=True) == ()
    alter(h, change("mallory"), first_users=True, inter_broker_secret=b"two")
    assert set(h.image.credentials) == {"alice"}
    assert h.image.credentials["alice"][1].iterations == 4096
    assert h.image.inter_broker_secret == b"one"


def test_they_survive_a_snapshot_and_are_not_printed() -> None:
    h = Harness()
    alter(h, change("alice"), change("bob", 2), inter_broker_secret=b"hidden")
    again = decode_snapshot(encode_snapshot(h.image))
    assert again == h.image
    assert encode_snapshot(again) == encode_snapshot(h.image)
    for shown in (repr(h.image), repr(change()), repr(AlterCredentialsRequest((change(),)))):
        assert "hidden" not in shown
        assert "ssss" not in shown
        assert "vvvv" not in shown
