"""Both ends of a Kafka connection, sans-IO: bytes in, requests or responses out, and the other way round.

Request header 1 or 2 (KIP-482): API key, version, correlation id, client id, and tags when the version is flexible.
Response header 0 or 1: correlation id, and tags likewise; ApiVersions always answers with header 0, so that a
client that asked in a version unknown here can read the answer (KIP-511).
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from gateway.wire.alike import Alike, Run, learn
from gateway.wire.compiler import Body, decoder, encoder
from gateway.wire.errors import ErrorCode
from gateway.wire.framing import Buffer, FrameReader, join_frame
from gateway.wire.primitives import MalformedError, skip_tags
from gateway.wire.rooms import Rooms
from gateway.wire.schema import BY_KEY, SERVED, ApiKey, Versions
from headwater.errors import LimitError, PeerError

FRAME_BYTES_MAX = 32 << 20
SMALL_FRAME_BYTES_MAX = 1 << 20  # every request but Produce
PENDING_MAX = 1000
BARE = -1  # the version of a SaslAuthenticate that came as a frame without a header (KIP-43)

_HEADER = struct.Struct(">hhih")
_REQUEST = struct.Struct(">hhi")
_CORRELATION = struct.Struct(">i")
# By number: to look an ApiKey up takes as long as to decode a small request.
_APIS: dict[int, ApiKey] = {int(key): key for key in ApiKey}
_NAMES = {key: BY_KEY[key].name for key in ApiKey}
_FLEXIBLE = {key: BY_KEY[key].flexible for key in ApiKey}


class Request(NamedTuple):
    """One request as a server got it; a `body` of None is an ApiVersions in a version that is not served."""

    api: ApiKey
    version: int
    correlation_id: int
    client_id: str | None
    body: Body | None


class Response(NamedTuple):
    """One answer as a client got it."""

    correlation_id: int
    api: ApiKey
    body: Body


def _client_id(view: memoryview, length: int) -> tuple[str | None, int]:
    if length < 0:
        return None, _HEADER.size
    end = _HEADER.size + length
    if end > len(view):
        raise MalformedError("request header: the client id does not fit")
    try:
        return str(view[_HEADER.size : end], "utf-8"), end
    except UnicodeDecodeError:
        raise MalformedError("request header: the client id is no UTF-8") from None


class ServerSession:
    """The server's end of one connection.

    `feed` bytes, call `next_request` until it gives None, then `keep`. `records` in a body are views of what was
    fed: use them up before `keep`, or the memory that was fed may change under them.
    Raises `PeerError` (close the connection): no frame, an API or a version that is not served.
    """

    def __init__(
        self,
        *,
        frame_bytes_max: int = FRAME_BYTES_MAX,
        served: Mapping[ApiKey, Versions] = SERVED,
        rooms: Rooms | None = None,
    ) -> None:
        self._frames = FrameReader(frame_bytes_max=frame_bytes_max, rooms=rooms)
        self._served = served
        self.bare = False  # frames without a header: tokens, after SaslHandshake version 0
        self.alike: Alike | None = None  # what the last Produce has in common with those that `next_alike` finds
        self.feed = self._frames.feed
        self.room = self._frames.room
        self.received = self._frames.received
        self.keep = self._frames.keep
        self.forget = self._frames.forget

    @property
    def unread_bytes(self) -> int:
        return self._frames.unread_bytes

    def limit(self, frame_bytes_max: int) -> None:
        """From the next frame on, none may be longer."""
        self._frames.frame_bytes_max = frame_bytes_max

    def next_request(self) -> Request | None:
        """The next whole request, or None."""
        length = self._frames.peek_length()
        if length is None:
            return None
        if length > SMALL_FRAME_BYTES_MAX:
            key = self._frames.peek_key()
            if key is not None and key != ApiKey.PRODUCE:
                raise LimitError(
                    f"a request of {length} bytes that is no Produce; the limit is {SMALL_FRAME_BYTES_MAX}"
                )
        frame = self._frames.take(length)
        if frame is None:
            return None
        if self.bare:
            return Request(ApiKey.SASL_AUTHENTICATE, BARE, 0, None, {"auth_bytes": bytes(frame)})
        return self._decode(frame)

    def next_alike(self, count_max: int) -> Run | None:
        """The next whole requests that are like the last Produce; call `next_request` when there are none."""
        if self.alike is None:
            return None
        run = self._frames.take_run(self.alike.cut, count_max)
        return run if run.records else None

    def one_by_one(self, run: Run) -> list[Request]:
        """Those of a run as `next_request` would have given them."""
        alike = run.alike
        return [
            Request(ApiKey.PRODUCE, alike.version, correlation_id, alike.client_id, alike.whole(records))
            for correlation_id, records in zip(run.correlation_ids, run.records, strict=True)
        ]

    def _decode(self, frame: memoryview) -> Request:
        if len(frame) < _HEADER.size:
            raise MalformedError(f"a request of {len(frame)} bytes has no header")
        key, version, correlation_id, length = _HEADER.unpack_from(frame)
        versions = self._served.get(key)
        if versions is None:
            raise PeerError(f"API {key} is not served here")
        api = _APIS[key]
        client_id, position = _client_id(frame, length)
        if not versions[0] <= version <= versions[1]:
            if api is ApiKey.API_VERSIONS:
                return Request(api, version, correlation_id, client_id, None)
            raise PeerError(f"{_NAMES[api]} version {version} is not served here")
        if version >= _FLEXIBLE[key]:
            try:
                position = skip_tags(frame, position)
            except IndexError:
                raise MalformedError("request header: cut short") from None
        body, _ = decoder(_NAMES[key], version)(frame, position)
        if api is ApiKey.PRODUCE:
            self.alike = learn(frame, version, client_id, body)
        return Request(api, version, correlation_id, client_id, body)


def encode_response(api: ApiKey, version: int, correlation_id: int, body: Body) -> bytes:
    """The frame of an answer. ApiVersions in a version that is not served is answered in version 0."""
    if version == BARE:
        return join_frame([b"", body["auth_bytes"]])
    parts = [b"", _CORRELATION.pack(correlation_id)]
    if api is not ApiKey.API_VERSIONS and version >= _FLEXIBLE[api]:
        parts.append(b"\x00")
    encoder(_NAMES[api], version, response=True)(body, parts.append)
    return join_frame(parts)


def encode_request(api: ApiKey, version: int, correlation_id: int, client_id: str, body: Body) -> bytes:
    """The frame of a request."""
    name = client_id.encode()
    parts = [b"", _REQUEST.pack(api, version, correlation_id), len(name).to_bytes(2, "big"), name]
    if version >= _FLEXIBLE[api]:
        parts.append(b"\x00")
    encoder(_NAMES[api], version)(body, parts.append)
    return join_frame(parts)


class _Waiting(NamedTuple):
    correlation_id: int
    api: ApiKey
    version: int


class ClientSession:
    """The client's end of one connection to one broker.

    It asks for the broker's versions first and uses the highest that both know; requests sent before wait in order.
    The caller drains `out` (bytes to send) and `responses`; bodies alias the memory that was fed, so feed `bytes`
    that nobody changes. Every failure is a `PeerError` and ends the connection.
    """

    def __init__(
        self,
        *,
        client_id: str,
        software: str = "headwater",
        software_version: str = "0",
        frame_bytes_max: int = 128 << 20,
    ) -> None:
        self.client_id = client_id
        self.out: list[bytes] = []
        self.responses: list[Response] = []
        self.versions: dict[ApiKey, int] = {}
        self.negotiated = False
        self._software = (software, software_version)
        self._frames = FrameReader(frame_bytes_max=frame_bytes_max)
        self._correlation_id = 0
        self._waiting: deque[_Waiting] = deque()
        self._unsent: list[tuple[int, ApiKey, Body]] = []
        self._ask_versions(SERVED[ApiKey.API_VERSIONS][1] - 1)  # 3: the first flexible one, known since 2.4

    @property
    def waiting(self) -> int:
        """Requests that have no answer yet."""
        return len(self._waiting) + len(self._unsent)

    def send(self, api: ApiKey, body: Body) -> int:
        """Queue a request; returns its correlation id. A Produce with `acks` 0 gets no answer.

        Raises `PeerError` when the broker does not speak that API, `LimitError` past PENDING_MAX unanswered ones.
        """
        if self.waiting >= PENDING_MAX:
            raise LimitError(f"{PENDING_MAX} requests are without an answer")
        self._correlation_id += 1
        if self.negotiated:
            self._write(self._correlation_id, api, body)
        else:
            self._unsent.append((self._correlation_id, api, body))
        return self._correlation_id

    def feed(self, data: Buffer) -> None:
        """Take bytes from the broker; answers go to `responses`."""
        self._frames.feed(data)
        while (frame := self._frames.next()) is not None:
            self._take(frame)
        self._frames.keep()

    def _write(self, correlation_id: int, api: ApiKey, body: Body) -> None:
        version = self.versions.get(api)
        if version is None:
            raise PeerError(f"the broker does not speak {_NAMES[api]} in a version that Headwater knows")
        self.out.append(encode_request(api, version, correlation_id, self.client_id, body))
        if api is not ApiKey.PRODUCE or body["acks"] != 0:
            self._waiting.append(_Waiting(correlation_id, api, version))

    def _ask_versions(self, version: int) -> None:
        self._correlation_id += 1
        body = {"client_software_name": self._software[0], "client_software_version": self._software[1]}
        self.out.append(encode_request(ApiKey.API_VERSIONS, version, self._correlation_id, self.client_id, body))
        self._waiting.append(_Waiting(self._correlation_id, ApiKey.API_VERSIONS, version))

    def _take(self, frame: memoryview) -> None:
        if len(frame) < 4:
            raise MalformedError(f"an answer of {len(frame)} bytes")
        (correlation_id,) = _CORRELATION.unpack_from(frame)
        if not self._waiting or self._waiting[0].correlation_id != correlation_id:
            expected = self._waiting[0].correlation_id if self._waiting else "none"
            raise PeerError(f"an answer to request {correlation_id}, where {expected} is due")
        asked = self._waiting.popleft()
        if asked.api is ApiKey.API_VERSIONS:
            self._take_versions(frame, asked)
            return
        position = 4
        if asked.version >= _FLEXIBLE[asked.api]:
            try:
                position = skip_tags(frame, position)
            except IndexError:
                raise MalformedError("response header: cut short") from None
        body, _ = decoder(_NAMES[asked.api], asked.version, response=True)(frame, position)
        self.responses.append(Response(correlation_id, asked.api, body))

    def _take_versions(self, frame: memoryview, asked: _Waiting) -> None:
        code = int.from_bytes(frame[4:6], "big", signed=True)
        unsupported = code == ErrorCode.UNSUPPORTED_VERSION
        body, _ = decoder("ApiVersions", 0 if unsupported else asked.version, response=True)(frame, 4)
        if unsupported and asked.version > 0:
            self._ask_versions(0)
            return
        if code:
            raise PeerError(f"the broker refused ApiVersions with error {code}")
        self._negotiate(body)
        unsent, self._unsent = self._unsent, []
        for correlation_id, api, request in unsent:
            self._write(correlation_id, api, request)

    def _negotiate(self, body: Body) -> None:
        for offered in body["api_keys"]:
            ours = SERVED.get(offered["api_key"])
            if ours is not None:
                version = min(offered["max_version"], ours[1])
                if version >= max(offered["min_version"], ours[0]):
                    self.versions[ApiKey(offered["api_key"])] = version
        self.negotiated = True
