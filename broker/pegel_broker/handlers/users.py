"""DescribeUserScramCredentials, AlterUserScramCredentials: who may log in (KIP-554)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.alter_user_scram_credentials import (
    AlterUserScramCredentialsRequest,
    AlterUserScramCredentialsResponse,
    AlterUserScramCredentialsResult,
    ScramCredentialUpsertion,
)
from pegel.protocol.messages.describe_user_scram_credentials import (
    CredentialInfo,
    DescribeUserScramCredentialsRequest,
    DescribeUserScramCredentialsResponse,
    DescribeUserScramCredentialsResult,
)
from pegel.scram import MAX_SALT_BYTES, Mechanism, derive_keys
from pegel_broker.handlers.context import Broker, Request
from pegel_broker.handlers.registry import handles
from pegel_broker.handlers.topics import ask
from pegel_controller.control.credentials import MAX_CHANGES, TOO_MANY_CHANGES
from pegel_controller.rpc.credential_messages import (
    AlterCredentialsRequest,
    AlterCredentialsResponse,
    CredentialChange,
)

_ALTER_TIMEOUT_MS = 30_000


@handles(ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS)
def describe_users(request: Request) -> DescribeUserScramCredentialsResponse:
    message = request.message
    assert isinstance(message, DescribeUserScramCredentialsRequest)
    named = Counter(user.name for user in message.users or ())
    users = named or sorted(request.broker.image.credentials)
    return DescribeUserScramCredentialsResponse(
        results=[_described(request.broker, user, named[user]) for user in users]
    )


def _described(broker: Broker, user: str, times: int) -> DescribeUserScramCredentialsResult:
    own = broker.image.credentials.get(user, {})
    code, message = 0, None
    if times > 1:
        code = ErrorCode.DUPLICATE_RESOURCE
        message = (
            f"Cannot describe SCRAM credentials for the same user twice in a single request: {user}"
        )
    elif not own:
        code = ErrorCode.RESOURCE_NOT_FOUND
        message = f"Attempt to describe a user credential that does not exist: {user}"
    return DescribeUserScramCredentialsResult(
        user=user,
        error_code=code,
        error_message=message,
        credential_infos=[]
        if code
        else [
            CredentialInfo(mechanism=mechanism, iterations=own[mechanism].iterations)
            for mechanism in sorted(own)
        ],
    )


@handles(ApiKey.ALTER_USER_SCRAM_CREDENTIALS)
async def alter_users(request: Request) -> AlterUserScramCredentialsResponse:
    message = request.message
    assert isinstance(message, AlterUserScramCredentialsRequest)
    if len(message.deletions) + len(message.upsertions) > MAX_CHANGES:
        # The controller would refuse it as well, after much hashing here.
        named = dict.fromkeys([d.name for d in message.deletions])
        named |= dict.fromkeys([u.name for u in message.upsertions])
        return _answer([(user, ErrorCode.INVALID_REQUEST, TOO_MANY_CHANGES) for user in named])
    changes = [CredentialChange(d.name, d.mechanism) for d in message.deletions]
    changes += [_change(u) for u in message.upsertions]
    if not changes:
        return AlterUserScramCredentialsResponse()
    asked = AlterCredentialsRequest(tuple(changes))
    answer = await ask(
        request.broker, "alter_credentials", asked, _ALTER_TIMEOUT_MS, AlterCredentialsResponse
    )
    if isinstance(answer, ErrorCode):
        users = dict.fromkeys(change.user for change in changes)
        results = [(user, int(answer), answer.message) for user in users]
    else:
        results = [(r.user, r.error, r.message or "") for r in answer.results]
    return _answer(results)


def _answer(results: Sequence[tuple[str, int, str]]) -> AlterUserScramCredentialsResponse:
    return AlterUserScramCredentialsResponse(
        results=[
            AlterUserScramCredentialsResult(user=user, error_code=code, error_message=text or None)
            for user, code, text in results
        ]
    )


def _change(wanted: ScramCredentialUpsertion) -> CredentialChange:
    """Only what cannot be used to log in leaves this broker; the controller judges the rest."""
    mechanism = wanted.mechanism
    keys = (
        derive_keys(Mechanism(mechanism), bytes(wanted.salted_password))
        if mechanism in set(Mechanism)
        else (b"", b"")
    )
    # No iterations would mean a deletion.
    iterations = wanted.iterations or -1
    # Of a salt that is too long, as much as shows that: it may be most of the largest request.
    salt = bytes(wanted.salt[: MAX_SALT_BYTES + 1])
    return CredentialChange(wanted.name, mechanism, iterations, salt, *keys)
