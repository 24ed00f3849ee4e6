"""Numbers of the record batch header that several modules share (Kafka's DefaultRecordBatch)."""

from __future__ import annotations

import struct

MAGIC = 2
HEADER_BYTES = 61
# base offset, length, leader epoch, magic, CRC, attributes, last offset delta, base timestamp, max timestamp,
# producer id, producer epoch, base sequence, count
HEADER_STRUCT = struct.Struct(">qiibIhiqqqhii")
LENGTH_OFFSET = 12  # base offset and the length itself: what `length` does not count

# Its length, attributes, both deltas, the lengths of key and value, the number of headers: a byte each.
RECORD_BYTES_MIN = 7

# A compressed batch of a few kilobytes can hold millions of records. More than the first number in one is not taken
# from clients, whose own limits lie far below; more than the second is never decoded, nor appended.
PRODUCED_RECORDS_MAX = 100_000
DECODED_RECORDS_MAX = 1 << 20

CODEC_MASK = 0x07
ATTRIBUTE_LOG_APPEND_TIME = 0x08
ATTRIBUTE_TRANSACTIONAL = 0x10
ATTRIBUTE_CONTROL = 0x20
ATTRIBUTE_DELETE_HORIZON = 0x40  # the base timestamp says when tombstones may go (KIP-534)
