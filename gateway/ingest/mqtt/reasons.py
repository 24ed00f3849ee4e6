"""Why a packet was answered as it was: reason codes of MQTT 5, CONNACK codes of 3.1.1, the error that carries one."""

from __future__ import annotations

from enum import IntEnum

from headwater.errors import PeerError


class ReasonCode(IntEnum):
    """MQTT 5, table 2-6; several names share 0x00 there, by packet."""

    SUCCESS = 0x00
    DISCONNECT_WITH_WILL = 0x04
    NO_SUBSCRIPTION_EXISTED = 0x11
    UNSPECIFIED_ERROR = 0x80
    MALFORMED_PACKET = 0x81
    PROTOCOL_ERROR = 0x82
    IMPLEMENTATION_SPECIFIC_ERROR = 0x83
    UNSUPPORTED_PROTOCOL_VERSION = 0x84
    CLIENT_IDENTIFIER_NOT_VALID = 0x85
    BAD_USER_NAME_OR_PASSWORD = 0x86
    NOT_AUTHORIZED = 0x87
    SERVER_UNAVAILABLE = 0x88
    SERVER_BUSY = 0x89
    SERVER_SHUTTING_DOWN = 0x8B
    BAD_AUTHENTICATION_METHOD = 0x8C
    KEEP_ALIVE_TIMEOUT = 0x8D
    SESSION_TAKEN_OVER = 0x8E
    TOPIC_NAME_INVALID = 0x90
    PACKET_IDENTIFIER_NOT_FOUND = 0x92
    RECEIVE_MAXIMUM_EXCEEDED = 0x93
    TOPIC_ALIAS_INVALID = 0x94
    PACKET_TOO_LARGE = 0x95
    MESSAGE_RATE_TOO_HIGH = 0x96
    QUOTA_EXCEEDED = 0x97
    ADMINISTRATIVE_ACTION = 0x98
    PAYLOAD_FORMAT_INVALID = 0x99
    SHARED_SUBSCRIPTIONS_NOT_SUPPORTED = 0x9E
    SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED = 0xA1


class ConnectCode(IntEnum):
    """MQTT 3.1.1, table 3.1: CONNACK return codes."""

    ACCEPTED = 0
    UNACCEPTABLE_VERSION = 1
    IDENTIFIER_REJECTED = 2
    UNAVAILABLE = 3
    BAD_CREDENTIALS = 4
    NOT_AUTHORIZED = 5


CONNECT_CODES = {
    ReasonCode.SUCCESS: ConnectCode.ACCEPTED,
    ReasonCode.UNSUPPORTED_PROTOCOL_VERSION: ConnectCode.UNACCEPTABLE_VERSION,
    ReasonCode.CLIENT_IDENTIFIER_NOT_VALID: ConnectCode.IDENTIFIER_REJECTED,
    ReasonCode.SERVER_UNAVAILABLE: ConnectCode.UNAVAILABLE,
    ReasonCode.SERVER_BUSY: ConnectCode.UNAVAILABLE,
    ReasonCode.BAD_USER_NAME_OR_PASSWORD: ConnectCode.BAD_CREDENTIALS,
    ReasonCode.NOT_AUTHORIZED: ConnectCode.NOT_AUTHORIZED,
}
"""What a 3.1.1 client is told for a reason; for others its connection is closed without a CONNACK."""


class MqttError(PeerError):
    """Bytes that break the protocol; `reason` is what an MQTT 5 client is told."""

    def __init__(self, what: str, reason: ReasonCode = ReasonCode.MALFORMED_PACKET) -> None:
        super().__init__(what)
        self.reason = reason
