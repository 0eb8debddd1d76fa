"""One tree of errors, each with Kafka's code and whether a retry can help."""

from __future__ import annotations

from pegel.protocol.errors import ErrorCode


class PegelError(Exception):
    """Root of the tree.

    Attributes:
        code: Kafka's error code; ``UNKNOWN_SERVER_ERROR`` where no broker said it.
        retriable: the same call may succeed later without any change.
    """

    default_code = ErrorCode.UNKNOWN_SERVER_ERROR
    default_retriable: bool | None = None

    def __init__(
        self, message: str, code: ErrorCode | None = None, retriable: bool | None = None
    ) -> None:
        super().__init__(message)
        self.code = self.default_code if code is None else code
        chosen = self.default_retriable if retriable is None else retriable
        self.retriable = self.code.retriable if chosen is None else chosen


class ConnectionFailedError(PegelError):
    """No connection, or it broke before the answer came.

    Attributes:
        shut_out: the broker closed the connection at the first request; it may want credentials.
    """

    shut_out = False
    default_code = ErrorCode.NETWORK_EXCEPTION
    default_retriable = True


def is_shut_out(error: BaseException) -> bool:
    """Whether it says that the broker closed the connection at the first request."""
    return isinstance(error, ConnectionFailedError) and error.shut_out


class RequestTimeoutError(PegelError):
    """No answer in time; what was asked may still happen."""

    default_code = ErrorCode.REQUEST_TIMED_OUT
    default_retriable = True


class UnsupportedVersionError(PegelError):
    """The broker speaks no version of this API that this client speaks."""

    default_code = ErrorCode.UNSUPPORTED_VERSION
    default_retriable = False


class BrokerError(PegelError):
    """A broker answered with an error code."""


class TopicNotFoundError(BrokerError):
    """There is no such topic, or no such partition of it, or not yet."""

    default_code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


class TopicExistsError(BrokerError):
    """A topic of this name is there already."""

    default_code = ErrorCode.TOPIC_ALREADY_EXISTS


class OffsetOutOfRangeError(BrokerError):
    """The position is not in the log (any more), and no reset policy says where to go on."""

    default_code = ErrorCode.OFFSET_OUT_OF_RANGE


class LogTruncationError(BrokerError):
    """Records that were read are gone: an unclean election lost them (KIP-320)."""

    default_code = ErrorCode.OFFSET_OUT_OF_RANGE


class DeliveryTimeoutError(PegelError):
    """A record was not acknowledged within ``delivery_timeout``; it may have been written."""

    default_code = ErrorCode.REQUEST_TIMED_OUT
    default_retriable = False


class RecordTooLargeError(BrokerError):
    """One record is larger than the topic's ``max.message.bytes`` or a limit of this client."""

    default_code = ErrorCode.MESSAGE_TOO_LARGE


class InvalidTopicError(BrokerError):
    """The name is not legal for a topic."""

    default_code = ErrorCode.INVALID_TOPIC_EXCEPTION


class AuthorizationError(BrokerError):
    """The broker knows who asks and does not allow it."""

    default_code = ErrorCode.TOPIC_AUTHORIZATION_FAILED


class AuthenticationError(BrokerError):
    """The broker does not take the credentials, or cannot prove that it knows them."""

    default_code = ErrorCode.SASL_AUTHENTICATION_FAILED
    default_retriable = False


class CorruptResponseError(PegelError):
    """Records from a broker that fail their checksum or do not decode."""

    default_code = ErrorCode.CORRUPT_MESSAGE
    default_retriable = False


class UnsupportedFeatureError(PegelError):
    """This release cannot do that; the message says what can be done instead."""

    default_code = ErrorCode.INVALID_REQUEST
    default_retriable = False


class GroupError(BrokerError):
    """The group does not take this consumer, or not any more."""

    default_code = ErrorCode.UNKNOWN_MEMBER_ID


class CommitFailedError(GroupError):
    """Offsets were not committed: the group went on without this consumer.

    Another member may have read the same records; what was read since the last commit will be
    read again.
    """


class NoOffsetError(BrokerError):
    """The group has no offset for a partition, and ``offset_reset="none"`` allows no other."""

    default_code = ErrorCode.OFFSET_OUT_OF_RANGE


class GroupNotFoundError(GroupError):
    """There is no such group."""

    default_code = ErrorCode.GROUP_ID_NOT_FOUND


class GroupNotEmptyError(GroupError):
    """The group still has members."""

    default_code = ErrorCode.NON_EMPTY_GROUP


class ProducerFencedError(BrokerError):
    """A newer producer with the same identity took over."""

    default_code = ErrorCode.INVALID_PRODUCER_EPOCH


class BufferFullError(PegelError):
    """The producer's memory stayed full for as long as the call may wait."""

    default_code = ErrorCode.REQUEST_TIMED_OUT
    default_retriable = True


class ClosedError(PegelError):
    """The client was closed."""

    default_retriable = False


_BY_CODE: dict[int, type[BrokerError]] = {
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION: TopicNotFoundError,
    ErrorCode.UNKNOWN_TOPIC_ID: TopicNotFoundError,
    ErrorCode.TOPIC_ALREADY_EXISTS: TopicExistsError,
    ErrorCode.OFFSET_OUT_OF_RANGE: OffsetOutOfRangeError,
    ErrorCode.GROUP_ID_NOT_FOUND: GroupNotFoundError,
    ErrorCode.NON_EMPTY_GROUP: GroupNotEmptyError,
    ErrorCode.INVALID_PRODUCER_EPOCH: ProducerFencedError,
    ErrorCode.PRODUCER_FENCED: ProducerFencedError,
    ErrorCode.MESSAGE_TOO_LARGE: RecordTooLargeError,
    ErrorCode.RECORD_LIST_TOO_LARGE: RecordTooLargeError,
    ErrorCode.INVALID_TOPIC_EXCEPTION: InvalidTopicError,
    ErrorCode.SASL_AUTHENTICATION_FAILED: AuthenticationError,
    ErrorCode.UNSUPPORTED_SASL_MECHANISM: AuthenticationError,
    ErrorCode.ILLEGAL_SASL_STATE: AuthenticationError,
    ErrorCode.TOPIC_AUTHORIZATION_FAILED: AuthorizationError,
    ErrorCode.GROUP_AUTHORIZATION_FAILED: AuthorizationError,
    ErrorCode.CLUSTER_AUTHORIZATION_FAILED: AuthorizationError,
    ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: AuthorizationError,
}


def to_error_code(code: int) -> ErrorCode:
    """The member for a number from the wire; newer brokers may send codes unknown here."""
    try:
        return ErrorCode(code)
    except ValueError:
        return ErrorCode.UNKNOWN_SERVER_ERROR


def broker_error(code: int, what: str, detail: str | None = None) -> BrokerError:
    """The error for ``code``; ``what`` names the thing it is about, ``detail`` is the broker's."""
    known = to_error_code(code)
    text = detail or known.message
    return _BY_CODE.get(known, BrokerError)(f"{what}: {text} ({known.name})", known)
