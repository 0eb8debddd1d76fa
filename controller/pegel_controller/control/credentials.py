"""Users and what proves that they are who they say: AlterUserScramCredentials (KIP-554)."""

from collections import Counter

from pegel.protocol.errors import ErrorCode
from pegel.scram import (
    MAX_ITERATIONS,
    MAX_SALT_BYTES,
    MIN_ITERATIONS,
    MIN_SALT_BYTES,
    RESERVED_PREFIX,
    Mechanism,
)
from pegel_controller.control.tip import Tip
from pegel_controller.control.topics import TopicError
from pegel_controller.metadata.records import (
    InterBrokerSecretRecord,
    Record,
    ScramCredentialRecord,
    ScramCredentialRemovedRecord,
)
from pegel_controller.rpc.credential_messages import (
    AlterCredentialsRequest,
    CredentialChange,
    CredentialResult,
)

MAX_USER_BYTES = 255
# Changes in a request of a client: an entry of the log is planned and applied in one piece.
MAX_CHANGES = 100
TOO_MANY_CHANGES = f"More than {MAX_CHANGES} changes in a request: send several"


def plan_credentials(
    tip: Tip, request: AlterCredentialsRequest
) -> tuple[list[Record], list[CredentialResult]]:
    """Records, and a result for each user: all of a user's changes are made, or none.

    First users come all or not at all: whoever mends their file and starts again finds none.
    """
    records: list[Record] = []
    if request.inter_broker_secret and not tip.image.inter_broker_secret:
        records.append(InterBrokerSecretRecord(request.inter_broker_secret))
    if request.first_users and tip.image.credentials:
        return records, []
    changes: dict[str, list[CredentialChange]] = {}
    for change in request.changes:
        changes.setdefault(change.user, []).append(change)
    if len(request.changes) > MAX_CHANGES and not request.first_users:
        code = ErrorCode.INVALID_REQUEST
        return [], [CredentialResult(user, code, TOO_MANY_CHANGES) for user in changes]
    named = Counter((change.user, change.mechanism) for change in request.changes)
    results = []
    for user, own in changes.items():
        try:
            if any(named[user, change.mechanism] > 1 for change in own):
                message = "A user credential cannot be altered twice in the same request"
                raise TopicError(ErrorCode.DUPLICATE_RESOURCE, message)
            made = [_record(tip, change) for change in own]
        except TopicError as error:
            results.append(CredentialResult(user, error.code, error.message))
        else:
            records += made
            results.append(CredentialResult(user))
    if request.first_users and any(result.error for result in results):
        return [], results
    return records, results


def _record(tip: Tip, change: CredentialChange) -> Record:
    """Raises `TopicError` with Kafka's code."""
    user = change.user
    if change.mechanism not in set(Mechanism):
        raise TopicError(ErrorCode.UNSUPPORTED_SASL_MECHANISM, "Unknown SCRAM mechanism")
    if not change.iterations:
        if change.mechanism not in tip.image.credentials.get(user, {}):
            message = "Attempt to delete a user credential that does not exist"
            raise TopicError(ErrorCode.RESOURCE_NOT_FOUND, message)
        return ScramCredentialRemovedRecord(user, change.mechanism)
    why = _unacceptable(change)
    if why:
        raise TopicError(ErrorCode.UNACCEPTABLE_CREDENTIAL, why)
    return ScramCredentialRecord(
        user, change.mechanism, change.iterations, change.salt,
        change.stored_key, change.server_key,
    )  # fmt: skip


def _unacceptable(change: CredentialChange) -> str:
    if not change.user:
        return "Username must not be empty"
    if change.user.startswith(RESERVED_PREFIX):
        return f"Names that begin with {RESERVED_PREFIX} are the brokers' own"
    if len(change.user.encode()) > MAX_USER_BYTES:
        return f"Username is longer than {MAX_USER_BYTES} bytes"
    if change.iterations < MIN_ITERATIONS:
        return f"Too few iterations, at least {MIN_ITERATIONS}"
    if change.iterations > MAX_ITERATIONS:
        return f"Too many iterations, at most {MAX_ITERATIONS}"
    if len(change.salt) < MIN_SALT_BYTES:
        return f"Salt is too short, at least {MIN_SALT_BYTES} bytes"
    if len(change.salt) > MAX_SALT_BYTES:
        return f"Salt is too long, at most {MAX_SALT_BYTES} bytes"
    return ""
