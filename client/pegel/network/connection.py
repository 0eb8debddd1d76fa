"""One connection to a broker: requests are pipelined, responses matched by correlation id."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from pegel.credentials import Credentials
from pegel.errors import ConnectionFailedError, RequestTimeoutError, UnsupportedVersionError
from pegel.protocol.api_keys import APIS, ApiKey
from pegel.protocol.codec import decode_response, encode_request, read_correlation_id
from pegel.protocol.errors import ErrorCode, ProtocolError
from pegel.protocol.framing import DEFAULT_MAX_FRAME_BYTES, FrameProtocol
from pegel.protocol.messages import RESPONSES
from pegel.protocol.messages.api_versions import ApiVersionsRequest, ApiVersionsResponse
from pegel.protocol.schema import Message
from pegel.seams import Clock, Network

M = TypeVar("M", bound=Message)

CLIENT_NAME = "pegel"
CLIENT_VERSION = "0.1.0"
# How long a broker may take for its side of a handshake unless the caller says otherwise.
DEFAULT_TIMEOUT = 30.0


# Brokers that want credentials close the connection of whoever asks for something without.
_PERHAPS_UNKNOWN = (
    " before it answered anything; if it wants credentials, give them (credentials=…, or --user)"
)


# Told of a response, or of why there will be none.
OnAnswer = Callable[[Message | ConnectionFailedError], None]


class _Pending:
    __slots__ = ("on_answer", "response_type", "version")

    def __init__(self, on_answer: OnAnswer, response_type: type[Message], version: int) -> None:
        self.on_answer = on_answer
        self.response_type = response_type
        self.version = version


class _Wire(FrameProtocol):
    """The transport's side of a ``Connection``."""

    def __init__(self, connection: Connection, max_frame_bytes: int) -> None:
        super().__init__(max_frame_bytes)
        self._connection = connection
        self._oversized: int | None = None

    def on_frame(self, frame: memoryview) -> None:
        self._connection._on_frame(frame)

    def on_oversized(self, size: int) -> None:
        self._oversized = size

    def on_disconnected(self, exc: Exception | None) -> None:
        if self._oversized is not None:
            self._connection._fail(f"sent a frame of {self._oversized} bytes")
        else:
            hint = "" if self._connection.admitted else _PERHAPS_UNKNOWN
            self._connection._fail(
                f"closed the connection{f': {exc}' if exc else ''}{hint}",
                shut_out=bool(hint and self._connection.versions),
            )


class Connection:
    """An open connection; make one with ``Connection.open``. Not for use from other threads."""

    def __init__(self, host: str, port: int, client_id: str, max_frame_bytes: int) -> None:
        self.host, self.port = host, port
        self.client_id = client_id
        self.closed = False
        # Seconds for which the broker takes what was proved to it; 0: for ever (KIP-368).
        self.session_lifetime = 0.0
        # The broker has answered something that it answers only to those it lets in.
        self.admitted = False
        self._retiring = False
        # API key -> lowest and highest version that both sides speak.
        self.versions: dict[int, tuple[int, int]] = {}
        self._wire = _Wire(self, max_frame_bytes)
        self._pending: dict[int, _Pending] = {}
        self._correlation_id = 0

    @classmethod
    async def open(
        cls,
        network: Network,
        clock: Clock,
        host: str,
        port: int,
        *,
        client_id: str = CLIENT_NAME,
        timeout: float = DEFAULT_TIMEOUT,
        negotiate: bool = True,
        max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
        credentials: Credentials | None = None,
    ) -> Connection:
        """Connect, agree on versions and log in, within ``timeout`` seconds.

        ``negotiate=False`` trusts that the peer is of this release (a replica fetcher's peer).

        Raises:
            ConnectionFailedError: refused, unreachable, or broken during the handshake.
            RequestTimeoutError: it took too long.
            UnsupportedVersionError: the peer speaks no common version of ApiVersions.
            AuthenticationError: the broker does not take the credentials.
        """
        connection = cls(host, port, client_id, max_frame_bytes)
        try:
            async with asyncio.timeout(timeout):
                await network.connect(lambda: connection._wire, host, port)
                if negotiate:
                    await connection._negotiate()
                else:
                    connection.versions = {
                        i.key: (i.min_version, i.max_version) for i in APIS.values()
                    }
                if credentials is not None:
                    from pegel.network.sasl import authenticate

                    await authenticate(connection, credentials)
        except TimeoutError:
            connection.close()
            raise RequestTimeoutError(f"{host}:{port} did not answer in {timeout} s") from None
        except OSError as error:
            connection.close()
            raise ConnectionFailedError(f"cannot connect to {host}:{port}: {error}") from error
        except BaseException:
            connection.close()
            raise
        return connection

    async def _negotiate(self) -> None:
        request = ApiVersionsRequest(
            client_software_name=CLIENT_NAME, client_software_version=CLIENT_VERSION
        )
        version = APIS[ApiKey.API_VERSIONS].max_version
        response = await self.send(request, version)
        assert isinstance(response, ApiVersionsResponse)
        if response.error_code == ErrorCode.UNSUPPORTED_VERSION:
            # An older broker answers in version 0 and names what it speaks (KIP-511).
            offered = {a.api_key: a.max_version for a in response.api_keys}
            version = min(version, offered.get(ApiKey.API_VERSIONS, 0))
            response = await self.send(request, version)
            assert isinstance(response, ApiVersionsResponse)
        if response.error_code:
            raise UnsupportedVersionError(
                f"{self.host}:{self.port} refused ApiVersions: {response.error_code}"
            )
        for api in response.api_keys:
            ours = APIS.get(api.api_key)
            if ours is not None:
                low = max(ours.min_version, api.min_version)
                high = min(ours.max_version, api.max_version)
                if low <= high:
                    self.versions[api.api_key] = (low, high)

    def version_for(self, api_key: int, max_version: int | None = None) -> int:
        """The highest version of the API that both sides speak, not above ``max_version``.

        Raises:
            UnsupportedVersionError: there is none.
        """
        low, high = self.versions.get(api_key, (0, -1))
        if max_version is not None:
            high = min(high, max_version)
        if high < low:
            name = APIS[api_key].name if api_key in APIS else str(api_key)
            raise UnsupportedVersionError(
                f"{self.host}:{self.port} speaks no version of {name} that this client speaks"
            )
        return high

    def send(self, message: Message, version: int | None = None) -> asyncio.Future[Message]:
        """Write a request; the future is its response. The caller bounds the wait.

        Raises:
            ConnectionFailedError: already closed.
        """
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self.send_to(partial(_settle, future), message, version)
        return future

    def send_to(self, on_answer: OnAnswer, message: Message, version: int | None = None) -> None:
        """Write a request; ``on_answer`` is called with the response in the turn of the event loop
        that brings it, or with the error once there will be none.

        Raises:
            ConnectionFailedError: already closed.
        """
        api_key = message.api_key
        if self.closed:
            raise ConnectionFailedError(f"the connection to {self.host}:{self.port} is closed")
        if version is None:
            version = self.version_for(api_key)
        self._correlation_id = correlation_id = (self._correlation_id + 1) & 0x7FFFFFFF
        buffers = encode_request(message, version, correlation_id, self.client_id)
        self._pending[correlation_id] = _Pending(on_answer, RESPONSES[api_key], version)
        self._wire.write(buffers)

    def send_no_response(self, message: Message, version: int | None = None) -> None:
        """Write a request that has no response (Produce with acks=0).

        Raises:
            ConnectionFailedError: already closed.
        """
        if self.closed:
            raise ConnectionFailedError(f"the connection to {self.host}:{self.port} is closed")
        if version is None:
            version = self.version_for(message.api_key)
        self._correlation_id = (self._correlation_id + 1) & 0x7FFFFFFF
        self._wire.write(encode_request(message, version, self._correlation_id, self.client_id))

    async def request(
        self,
        message: Message,
        *,
        version: int | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> Message:
        """Send and wait for the response, at most ``timeout`` seconds.

        Raises:
            RequestTimeoutError: a late response is dropped.
            ConnectionFailedError: the connection broke.
            UnsupportedVersionError: no common version.
        """
        if self._wire.paused:
            await self.drain()
        future = self.send(message, version)
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            raise RequestTimeoutError(
                f"{self.host}:{self.port} did not answer {type(message).__name__} in {timeout} s"
            ) from None

    async def drain(self) -> None:
        """Wait until the transport takes more. Raises ConnectionFailedError."""
        try:
            await self._wire.drain()
        except ConnectionResetError as error:
            raise ConnectionFailedError(f"{self.host}:{self.port}: {error}") from None

    @property
    def paused(self) -> bool:
        """Whether the transport has more to send than it should hold; see ``drain``."""
        return self._wire.paused

    @property
    def in_flight(self) -> int:
        """Requests whose response has not come."""
        return len(self._pending)

    def retire(self) -> None:
        """Close once everything that was asked has been answered; ask nothing more."""
        self._retiring = True
        if not self._pending:
            self.close()

    def close(self) -> None:
        """Close at once; what is pending fails with ConnectionFailedError."""
        if not self.closed:
            self._fail("was closed here")
        self._wire.close()

    def _on_frame(self, frame: memoryview) -> None:
        pending: _Pending | None = None
        try:
            pending = self._pending.pop(read_correlation_id(frame), None)
            if pending is None:
                raise ProtocolError("an answer that nobody asked for")
            version = pending.version
            if pending.response_type is ApiVersionsResponse:
                version = _api_versions_version(frame, version)
            response = decode_response(pending.response_type, version, frame)
        except ProtocolError as error:
            # What follows on this connection can no longer be trusted.
            reason = f"broke the protocol: {error}"
            self.closed = True
            if pending is not None:
                pending.on_answer(ConnectionFailedError(f"{self.host}:{self.port} {reason}"))
            self._fail(reason)
            self._wire.abort()
            return
        if pending.response_type is not ApiVersionsResponse:
            self.admitted = True
        pending.on_answer(response)
        if self._retiring and not self._pending:
            self.close()

    def _fail(self, reason: str, *, shut_out: bool = False) -> None:
        self.closed = True
        pending, self._pending = self._pending, {}
        for item in pending.values():
            error = ConnectionFailedError(f"{self.host}:{self.port} {reason}")
            error.shut_out = shut_out
            item.on_answer(error)


def _settle(future: asyncio.Future[Message], answer: Message | ConnectionFailedError) -> None:
    if future.done():  # its caller gave up
        return
    if isinstance(answer, ConnectionFailedError):
        future.set_exception(answer)
        future.exception()  # nobody waiting for it is no error
    else:
        future.set_result(answer)


def _api_versions_version(frame: memoryview, version: int) -> int:
    """A broker that does not speak ``version`` answers in version 0 (KIP-511)."""
    unsupported = int.from_bytes(frame[4:6], "big", signed=True) == ErrorCode.UNSUPPORTED_VERSION
    return 0 if unsupported else version
