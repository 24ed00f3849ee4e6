"""Produce (API 0): batches go from the socket to the file as they came; the answer waits for the fsync.

Versions 0-2 are advertised and refused: older librdkafka compresses only for a broker that offers them (KAFKA-18659).
`acks` 1 waits for the disk like `all`: one node has nothing weaker to offer that would still be an acknowledgement.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache, partial, reduce
from operator import or_
from typing import Any

from gateway.log.columns import decode_batch
from gateway.log.errors import (
    CorruptBatch,
    DuplicateSequence,
    InvalidProducerEpoch,
    InvalidTransactionState,
    LogFailed,
    MissingCodec,
    OutOfOrderSequence,
)
from gateway.log.layout import LENGTH_OFFSET, PRODUCED_RECORDS_MAX
from gateway.log.state import NO_PRODUCER
from gateway.wire.alike import Run
from gateway.wire.broker import Broker
from gateway.wire.errors import ErrorCode, error_name
from gateway.wire.internal_topics import INTERNAL_TOPICS
from gateway.wire.peer import Peer, Reply
from gateway.wire.schema import ApiKey
from gateway.wire.session import Request
from gateway.wire.waits import Wait
from headwater.errors import HeadwaterError, PeerError

# Positions in a record batch (v2); the attributes' low byte is the second one.
_LENGTH = struct.Struct(">i")
_COUNT = struct.Struct(">i")
_PRODUCER = struct.Struct(">qh")
_BATCH = struct.Struct(">8xi10xB20xq6xi")  # length, attributes, producer id, count
_LENGTH_AT, _MAGIC_AT, _ATTRIBUTES_AT, _PRODUCER_AT, _COUNT_AT, _HEADER_BYTES = 8, 16, 22, 43, 57, 61
_EQUAL_BYTES_MAX = 4 << 10  # the rows of longer ones are not worth a format
_TRANSACTIONAL, _CONTROL, _CODEC, _ZSTD = 0x10, 0x20, 0x07, 4
_ZSTD_VERSION = 7  # KIP-110
_RECORD_ERRORS_MAX = 100

_CODES: tuple[tuple[type[HeadwaterError], ErrorCode], ...] = (
    (OutOfOrderSequence, ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER),
    (DuplicateSequence, ErrorCode.DUPLICATE_SEQUENCE_NUMBER),
    (InvalidProducerEpoch, ErrorCode.INVALID_PRODUCER_EPOCH),
    (InvalidTransactionState, ErrorCode.INVALID_TXN_STATE),
    (CorruptBatch, ErrorCode.CORRUPT_MESSAGE),
    (LogFailed, ErrorCode.KAFKA_STORAGE_ERROR),
)


def code_of(error: HeadwaterError) -> ErrorCode:
    """Kafka's code for what the log refused with."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), ErrorCode.UNKNOWN_SERVER_ERROR)


def produce(broker: Broker, request: Request, peer: Peer, reply: Reply) -> None:
    """Append every batch of the request; answer once all of them are on disk."""
    body: dict[str, Any] = request.body or {}
    acks = body["acks"]
    now_ms = broker.clock.wall_ms()
    responses = []
    appended = []
    refused = 0
    seen = set()
    for topic in body["topic_data"]:
        answers = []
        for part in topic["partition_data"]:
            key = topic["name"], part["index"]
            code, log, base, end = (
                _append(broker, request, peer, topic["name"], part, now_ms) if key not in seen else _repeated(broker)
            )
            seen.add(key)
            answer = {"index": part["index"], "error_code": code, "base_offset": base}
            if code == ErrorCode.INVALID_RECORD:
                answer |= _record_errors(broker, topic["name"], part)
            if log is not None:
                appended.append((log, end, answer))
                answer["log_start_offset"] = log.log_start_offset
            else:
                refused = refused or code
            answers.append(answer)
        responses.append({"name": topic["name"], "partition_responses": answers})
    if acks == 0:
        if refused:
            # Nobody reads an answer: a closed connection is how Kafka tells (KafkaApis.handleProduceRequest).
            raise PeerError(f"a batch sent with acks 0 was refused: {error_name(refused)}")
        reply(None)
        return
    answered = {"responses": responses}
    if not appended:
        reply(answered)
        return
    wait = Wait(reply, answered, len(appended), broker.waits)
    for log, end, answer in appended:
        log.when_synced(end, wait, partial(wait.failed, answer))
    if wait.left:
        broker.waits.add(wait, body["timeout_ms"])


def append_run(broker: Broker, run: Run) -> bool:
    """Append the batches of requests that are alike at once, in one write; their answer waits for the disk.

    Returns whether; when not, nothing has happened, and they are to be handled one by one.
    """
    alike = run.alike
    log = broker.store.partition(alike.topic, alike.index)
    if log is None or alike.topic in INTERNAL_TOPICS or log.compacts:
        return False
    data = bytearray().join(run.records)
    counts = _counts(data, list(map(len, run.records)), broker.settings.batch_bytes_max, alike.version)
    if counts is None:
        return False
    try:
        done = log.append(data, now_ms=broker.clock.wall_ms())
    except HeadwaterError:
        return False  # one of them, or the log: each is told by itself
    broker.requests[ApiKey.PRODUCE] += len(counts)
    broker.produced_batches += len(counts)
    broker.produced_bytes += len(data)
    run.appended(log, counts, done.base_offset, done.next_offset)
    return True


def _counts(data: bytearray, sizes: list[int], bytes_max: int, version: int) -> Sequence[int] | None:
    """How many records each batch has; None when one is not what a run may hold. The log checks the rest."""
    if min(sizes) < _HEADER_BYTES or max(sizes) > bytes_max:
        return None
    refused = _CONTROL | _TRANSACTIONAL
    if version < _ZSTD_VERSION:
        refused |= _ZSTD  # a bit that no other codec has
    size = sizes[0]
    if size <= _EQUAL_BYTES_MAX and sizes.count(size) == len(sizes):
        return _equal_counts(data, size, refused)
    counts = []
    position = 0
    for size in sizes:
        length, attributes, producer_id, count = _BATCH.unpack_from(data, position)
        if (
            length + LENGTH_OFFSET != size
            or attributes & refused
            or producer_id != NO_PRODUCER
            or count > PRODUCED_RECORDS_MAX
        ):
            return None
        counts.append(count)
        position += size
    return counts


def _equal_counts(data: bytearray, size: int, refused: int) -> Sequence[int] | None:
    """The same for batches of one size, column by column."""
    lengths, attributes, producers, counts = zip(*_rows(size).iter_unpack(data), strict=True)
    if (
        not lengths.count(size - LENGTH_OFFSET) == producers.count(NO_PRODUCER) == len(counts)
        or reduce(or_, attributes) & refused
        or max(counts) > PRODUCED_RECORDS_MAX
    ):
        return None
    return counts


@lru_cache(16)
def _rows(size: int) -> struct.Struct:
    """`_BATCH` of each batch of this size."""
    return struct.Struct(f"{_BATCH.format}{size - _BATCH.size}x")


def _repeated(broker: Broker) -> tuple[int, Any, int, int]:
    """A partition named twice: the failure of a second batch could take the first one back, which nobody would hear."""
    broker.refused_batches += 1
    return ErrorCode.INVALID_REQUEST, None, -1, -1


def _append(
    broker: Broker, request: Request, peer: Peer, topic: str, part: dict[str, Any], now_ms: int
) -> tuple[int, Any, int, int]:
    """(error code, log or None, base offset, end offset) of one partition's batch."""
    records = part["records"]
    code = _check(broker, request, peer, topic, part["index"], records)
    if code == ErrorCode.NONE:
        log = broker.store.partition(topic, part["index"])
        if log is None:
            code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        else:
            try:
                if log.compacts and _without_key(records):
                    raise _KeyMissingError
                done = log.append(records, now_ms=now_ms)
            except _KeyMissingError:
                code = ErrorCode.INVALID_RECORD
            except HeadwaterError as error:
                code = code_of(error)
                if code is ErrorCode.UNKNOWN_SERVER_ERROR:
                    raise
            else:
                broker.produced_batches += 1
                broker.produced_bytes += len(records)
                return 0, log, done.base_offset, done.next_offset
    broker.refused_batches += 1
    if code in {ErrorCode.INVALID_PRODUCER_EPOCH, ErrorCode.PRODUCER_FENCED}:
        broker.transactions.fenced += 1
    return code, None, -1, -1


class _KeyMissingError(Exception):
    """A record for a compacted topic says not what it is about."""


def _without_key(records: memoryview) -> list[int]:
    """Which records of a batch have no key, by their place in it. Raises `CorruptBatch`."""
    try:
        return [place for place, key in enumerate(decode_batch(records).keys) if key is None]
    except MissingCodec:
        return []  # nothing can be said of them, and compaction leaves them alone


def _record_errors(broker: Broker, topic: str, part: dict[str, Any]) -> dict[str, Any]:
    """KIP-467: which records are at fault, where it is theirs and not their batch's."""
    log = broker.store.partition(topic, part["index"])
    records = part["records"]
    if log is None or not log.compacts or records[_ATTRIBUTES_AT] & _CONTROL:
        return {}
    try:
        places = _without_key(records)
    except CorruptBatch:
        return {}
    if not places:
        return {}
    what = f"Compacted topic cannot accept message without key in topic partition {topic}-{part['index']}."
    return {
        "record_errors": [{"batch_index": at, "batch_index_error_message": what} for at in places[:_RECORD_ERRORS_MAX]],
        "error_message": f"{len(places)} records of the batch have no key, and none of it is written",
    }


def _check(
    broker: Broker, request: Request, peer: Peer, topic: str, index: int, records: memoryview | None
) -> ErrorCode:
    """What can be told before the log is asked; it checks magic, length, count and CRC itself."""
    body: dict[str, Any] = request.body or {}
    if body["acks"] not in {-1, 0, 1}:
        return ErrorCode.INVALID_REQUIRED_ACKS
    if code := _check_batch(broker, records, request.version):
        return code
    assert records is not None  # noqa: S101 - else it had not passed
    attributes = records[_ATTRIBUTES_AT]
    if topic in INTERNAL_TOPICS:
        return ErrorCode.INVALID_TOPIC_EXCEPTION
    if attributes & (_CONTROL | _TRANSACTIONAL):
        if attributes & _CONTROL:
            return ErrorCode.INVALID_RECORD
        if not body["transactional_id"]:
            return ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
        producer_id, epoch = _PRODUCER.unpack_from(records, _PRODUCER_AT)
        return broker.transactions.check(body["transactional_id"], producer_id, epoch, (topic, index), peer)
    return ErrorCode.NONE


def _check_batch(broker: Broker, records: memoryview | None, version: int) -> ErrorCode:
    if records is None or len(records) < _HEADER_BYTES or records[_MAGIC_AT] != 2:
        return ErrorCode.CORRUPT_MESSAGE
    if _LENGTH.unpack_from(records, _LENGTH_AT)[0] + LENGTH_OFFSET != len(records):
        return ErrorCode.INVALID_RECORD  # Kafka takes exactly one batch per partition too
    if (
        len(records) > broker.settings.batch_bytes_max
        or _COUNT.unpack_from(records, _COUNT_AT)[0] > PRODUCED_RECORDS_MAX
    ):
        return ErrorCode.MESSAGE_TOO_LARGE
    if version < _ZSTD_VERSION and records[_ATTRIBUTES_AT] & _CODEC == _ZSTD:
        return ErrorCode.UNSUPPORTED_COMPRESSION_TYPE
    return ErrorCode.NONE
