"""What else is spoken to an MQTT port by mistake, told by its first bytes, so that the log names the cure. Sans-IO."""

from __future__ import annotations

import re

_CURES = (
    # RFC 8446, section 5.1: a handshake record (22), legacy version 3.x
    (re.compile(rb"\x16\x03[\x00-\x04]"), "TLS", "turn TLS off in the client, or put a TLS proxy before this port"),
    # RFC 9112, section 3: also how MQTT over WebSockets begins
    (re.compile(rb"(GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH|CONNECT|PRI) "), "HTTP", "use MQTT over TCP, no WebSockets"),
    # RFC 4253, section 4.2
    (re.compile(rb"SSH-"), "SSH", "choose another port"),
    # the PROXY protocol, sections 2.1 and 2.2
    (re.compile(rb"PROXY |\r\n\r\n\0\r\nQUIT\n"), "the PROXY protocol", "turn that off in the load balancer"),
)


def name_foreign(first: bytes) -> str | None:
    """One sentence about the protocol that a client's first bytes are of; None when they may be anything."""
    for pattern, name, cure in _CURES:
        if pattern.match(first):
            return f"it speaks {name}, and this port plain MQTT: {cure}"
    return None
