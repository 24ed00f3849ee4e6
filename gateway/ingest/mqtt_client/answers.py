"""What a broker's codes mean for the operator: the cause in words, and what to do next. Sans-IO."""

from __future__ import annotations

from typing import NamedTuple


class Refusal(NamedTuple):
    """Why a broker ended the connection or refused a filter, and the next step."""

    what: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.hint}" if self.hint else self.what


_SIGN_IN = "set user and password_file in [[mqtt_client]] as the broker knows them, then start the node again"
_CLIENT_ID = "set another client_id in [[mqtt_client]]"
_WAIT = "it is tried again"

# MQTT 3.1.1, table 3.1, and MQTT 5, table 3-1
_CONNECT = {
    0x01: Refusal("it does not speak this version of MQTT", 'set version = "3.1.1" in [[mqtt_client]]'),
    0x02: Refusal("it does not take the client id", _CLIENT_ID),
    0x03: Refusal("it says that it is not available", _WAIT),
    0x04: Refusal("it does not know the user and password", _SIGN_IN),
    0x05: Refusal("it does not let this client in", _SIGN_IN),
    0x80: Refusal("it gives no reason", "its log says more"),
    0x81: Refusal("it could not read CONNECT"),
    0x82: Refusal("it found an error in CONNECT"),
    0x84: Refusal("it does not speak this version of MQTT", 'set version = "3.1.1" in [[mqtt_client]]'),
    0x85: Refusal("it does not take the client id", _CLIENT_ID),
    0x86: Refusal("it does not know the user and password", _SIGN_IN),
    0x87: Refusal("it does not let this client in", _SIGN_IN),
    0x88: Refusal("it says that it is not available", _WAIT),
    0x89: Refusal("it is busy", _WAIT),
    0x8A: Refusal("it has banned this client", "its administrator can lift that"),
    0x8C: Refusal("it wants another way of authentication, and this client knows user and password"),
    0x95: Refusal("CONNECT is too large for it"),
    0x97: Refusal("a quota of it is used up", "its administrator can raise that"),
    0x9C: Refusal("it names another broker to use", "set its address in [[mqtt_client]]"),
    0x9D: Refusal("it has moved to another address", "set that address in [[mqtt_client]]"),
    0x9F: Refusal("too many connections at once for it", _WAIT),
}

# MQTT 5, table 3-8; 3.1.1 knows 0x80 only
_RIGHTS = "let its user read that topic in the broker's access list, or take it out of topics"
_FILTER = {
    0x80: Refusal("refused", _RIGHTS),
    0x83: Refusal("refused for a reason of its own", "the broker's log says more"),
    0x87: Refusal("not allowed", _RIGHTS),
    0x8F: Refusal("no topic filter that it takes", "mend it in topics"),
    0x91: Refusal("its packet identifier was in use", _WAIT),
    0x97: Refusal("a quota of it is used up", "its administrator can raise that"),
    0x9E: Refusal("it knows no shared subscriptions", "write the filter without $share/GROUP/"),
    0xA1: Refusal("it knows no subscription identifiers"),
    0xA2: Refusal("it takes no wildcards", "name each topic in full"),
}

# MQTT 5, table 3-10: what ended a connection from the broker's side
_END = {
    0x00: Refusal("it said good-bye"),
    0x81: Refusal("it could not read a packet of ours"),
    0x82: Refusal("it found an error in a packet of ours"),
    0x87: Refusal("it does not let this client stay", _SIGN_IN),
    0x89: Refusal("it is busy", _WAIT),
    0x8B: Refusal("it shuts down", _WAIT),
    0x8D: Refusal("it did not hear from us in time"),
    0x8E: Refusal("another client took over its session", f"two have the same client id: {_CLIENT_ID}"),
    0x93: Refusal("it says that we sent more than it takes"),
    0x97: Refusal("a quota of it is used up", "its administrator can raise that"),
    0x98: Refusal("its administrator closed the connection"),
    0x9C: Refusal("it names another broker to use", "set its address in [[mqtt_client]]"),
    0x9D: Refusal("it has moved to another address", "set that address in [[mqtt_client]]"),
}

BAD_VERSION = frozenset({0x01, 0x84})


def connect_refusal(code: int, text: str, elsewhere: str) -> Refusal:
    """CONNACK's code, with the broker's own words."""
    return _with(_CONNECT.get(code, Refusal(f"it refuses the connection with code 0x{code:02x}")), text, elsewhere)


def filter_refusal(code: int) -> Refusal:
    """A code of SUBACK, 0x80 or above."""
    return _FILTER.get(code, Refusal(f"refused with code 0x{code:02x}", "the broker's log says more"))


def farewell(code: int, text: str, elsewhere: str) -> Refusal:
    """DISCONNECT's code, with the broker's own words."""
    return _with(_END.get(code, Refusal(f"it closed the connection with code 0x{code:02x}")), text, elsewhere)


def _with(found: Refusal, text: str, elsewhere: str) -> Refusal:
    what = found.what
    if text:
        what += f" (“{text:.120}”)"
    if elsewhere:
        what += f" ({elsewhere:.120})"
    return Refusal(what, found.hint)
