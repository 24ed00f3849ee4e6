"""A broker over a disk in memory and a clock that moves when told; requests go through both ends of the codec."""

from __future__ import annotations

from typing import Any

from gateway.log.partition import PartitionLog
from gateway.log.records import NO_HEADERS, Compression, decode_batch, encode_batch, split_batches
from gateway.log.settings import LogSettings
from gateway.log.store import LogStore
from gateway.wire import apis
from gateway.wire.broker import Broker
from gateway.wire.compiler import decoder
from gateway.wire.peer import Peer
from gateway.wire.schema import BY_KEY, SERVED, ApiKey
from gateway.wire.session import ServerSession, encode_request, encode_response
from gateway.wire.settings import KafkaSettings
from headwater.clock import ManualClock
from headwater.disk import ForgetfulDisk

Body = dict[str, Any]
DATA = "/data"


class Asked:
    """A request that is under way; `body` is its answer, `answered` says whether it came."""

    def __init__(self, api: ApiKey, version: int) -> None:
        self.api = api
        self.version = version
        self.answered = False
        self.silent = False
        self._body: Body | None = None

    def __call__(self, body: Body | None) -> None:
        assert not self.answered, "answered twice"
        self.answered = True
        if body is None:
            self.silent = True
            return
        frame = encode_response(self.api, self.version, 7, body)
        flexible = BY_KEY[self.api].is_flexible(self.version) and self.api is not ApiKey.API_VERSIONS
        view = memoryview(frame)
        self._body, end = decoder(BY_KEY[self.api].name, self.version, response=True)(view, 9 if flexible else 8)
        assert end == len(frame)

    @property
    def body(self) -> Body:
        assert self._body is not None, f"{self.api.name} has no answer yet"
        return self._body


class World:
    def __init__(self, **settings: Any) -> None:
        self.disk = ForgetfulDisk()
        self.clock = ManualClock()
        self.settings = KafkaSettings(**settings)
        self.start()

    def start(self) -> None:
        self.store = LogStore.open(
            DATA,
            node="test",
            settings=LogSettings(fsync_interval_ms=0),
            disk=self.disk,
            clock=self.clock,
            call_in_loop=lambda action: action(),
            flusher="manual",
        )
        self.broker = Broker(self.store, self.clock, settings=self.settings)
        self.peer = Peer("test:1")

    def crash(self, *, keep_tail_bytes: int = 0) -> None:
        """A power cut and a new start."""
        self.disk.power_cut(keep_tail_bytes=keep_tail_bytes)
        self.start()

    def sync(self) -> None:
        """One group commit; what it sets off is appended and not synced."""
        self.store.flush_now()

    def sync_only(self, log: PartitionLog) -> None:
        """Make one log durable and no other; what that sets off is appended and not synced."""
        result = log.sync_round()
        assert result is not None
        log.complete(result)

    def settle(self) -> None:
        """Sync until nobody waits for the disk."""
        for _ in range(10):
            self.store.flush_now()

    def pass_time(self, ms: float) -> None:
        self.clock.advance(ms)
        self.broker.tick()

    def send(self, api: ApiKey, body: Body, *, version: int | None = None, peer: Peer | None = None) -> Asked:
        version = SERVED[api][1] if version is None else version
        asked = Asked(api, version)
        session = ServerSession()
        buffer = bytearray(encode_request(api, version, 7, "test", body))
        session.feed(buffer)
        request = session.next_request()
        assert request is not None
        apis.handle(self.broker, request, peer or self.peer, asked)
        buffer[:] = b"\xee" * len(buffer)  # as the next read overwrites the shared receive buffer
        return asked

    def call(self, api: ApiKey, body: Body, *, version: int | None = None, peer: Peer | None = None) -> Body:
        """Send and let the disk do what it must."""
        asked = self.send(api, body, version=version, peer=peer)
        self.settle()
        return asked.body

    # shorthand

    def create(self, name: str, partitions: int = 1) -> None:
        self.store.create_topic(name, partitions=partitions)

    def produce(self, topic: str, values: list[bytes], *, partition: int = 0, acks: int = -1, **batch: Any) -> Asked:
        transactional_id = batch.pop("transactional_id", None)
        version = batch.pop("version", None)
        peer = batch.pop("peer", None)
        data = batch.pop("data", None)
        if data is None:
            data = make_batch(values, self.clock.wall_ms(), **batch)
        part = {"index": partition, "records": data}
        topics = [{"name": topic, "partition_data": [part]}]
        body = {"transactional_id": transactional_id, "acks": acks, "timeout_ms": 5000, "topic_data": topics}
        return self.send(ApiKey.PRODUCE, body, version=version, peer=peer)

    def produced(self, topic: str, values: list[bytes], **options: Any) -> Body:
        asked = self.produce(topic, values, **options)
        self.settle()
        return answer_of(asked)

    def fetch(self, topic: str, offset: int = 0, **options: Any) -> Asked:
        version = options.pop("version", None)
        part = {
            "partition": options.pop("partition", 0),
            "fetch_offset": offset,
            "partition_max_bytes": options.pop("partition_max_bytes", 1 << 20),
            "current_leader_epoch": options.pop("leader_epoch", -1),
        }
        committed = options.pop("committed", False)
        body = {"max_wait_ms": 0, "min_bytes": 1, "isolation_level": int(committed), **options}
        body["topics"] = [{"topic": topic, "partitions": [part]}]
        return self.send(ApiKey.FETCH, body, version=version)

    def values(self, topic: str, *, committed: bool = True, partition: int = 0) -> list[bytes | None]:
        """What a consumer would be given, from the start."""
        part = self.fetch(topic, committed=committed, partition=partition).body["responses"][0]["partitions"][0]
        assert part["error_code"] == 0
        aborted = [(each["producer_id"], each["first_offset"]) for each in part["aborted_transactions"] or ()]
        return visible(part["records"], aborted)


def make_batch(values: list[bytes], now_ms: int = 1, **options: Any) -> bytes:
    records = [(now_ms, None, value, NO_HEADERS) for value in values]
    options.setdefault("compression", Compression.NONE)
    return bytes(encode_batch(records, **options))


def answer_of(asked: Asked) -> Body:
    answer: Body = asked.body["responses"][0]["partition_responses"][0]
    return answer


def visible(data: Any, aborted: list[tuple[int, int]]) -> list[bytes | None]:
    """A consumer's reading of fetched batches: no control records, no aborted transactions (KIP-98)."""
    from gateway.log.records import control_type, read_header

    ongoing: set[int] = set()
    pending = sorted(aborted, key=lambda each: each[1])
    found: list[bytes | None] = []
    for batch in split_batches(data):
        header = read_header(batch)
        while pending and pending[0][1] <= header.last_offset:
            ongoing.add(pending.pop(0)[0])
        if header.is_control:
            if not control_type(batch):
                ongoing.discard(header.producer_id)
        elif not (header.is_transactional and header.producer_id in ongoing):
            found += decode_batch(batch).values
    return found
