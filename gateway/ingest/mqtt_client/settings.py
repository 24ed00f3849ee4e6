"""Settings of the MQTT client, one `[[mqtt_client]]` for each broker that the node reads."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec

from gateway.ingest.mqtt.packets import check_filter
from gateway.ingest.mqtt.reasons import MqttError
from headwater.errors import UserError
from headwater.net import parse_address

PORT, TLS_PORT = 1883, 8883
SHARE = "$share/"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")

Qos = Literal[0, 1, 2]


class Subscription(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A topic filter with a quality of service of its own.

    filter   as MQTT writes it: “+” is one whole level, “#” the last; $share/GROUP/… shares it with others
    qos      0, 1 or 2
    """

    filter: str
    qos: Qos = 1


class MqttClientSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A broker that is already there, and what the node reads from it.

    name                what the node calls it (source `broker:<name>`); the address when left out
    address             host:port of the broker; the port may be left out
    topics              topic filters, each a text (QoS 1) or { filter = "…", qos = 2 }
    version             of MQTT: "5", "3.1.1", or "auto": 5 first, 3.1.1 when the broker knows no other
    client_id           the session's name at the broker; headwater-<node>-<name> when left out
    user                user name at the broker
    password            its password; better password_file, or "${NAME}" from the environment
    tls                 TLS 1.2 or newer, the broker's name verified; its usual port is then 8883
    tls_ca_file         authorities (PEM) whose brokers are trusted; empty: the system's
    tls_certificate_file  our own certificate (PEM, with its chain), where the broker asks for one
    tls_key_file        its private key (PEM, 0600, without a passphrase); empty: in tls_certificate_file
    session_expiry_s    how long the broker is to keep the session, and what comes for it, while the node is away
                        (MQTT 5; a 3.1.1 broker decides for itself)
    keep_alive_s        a broker from which no byte came for this long is taken for dead
    inflight_max        messages taken and not yet acknowledged: MQTT 5's receive maximum, and where reads pause
    packet_bytes_max    a larger message is acknowledged, counted and named, and not stored
    retained            "skip": copies that the broker kept are passed over; "store": those with a time of the device's
                        own are stored under it, flagged (hw-q: retained)
    dup_horizon_ms      a re-sent message is a repeat when its acknowledgement was written less than this before
                        the connection ended
    retry_max_ms        a broker that is not there is tried again at least this often
    connect_timeout_ms  from the first packet to the broker's answer
    sparkplug_rebirths  ask Sparkplug nodes behind the broker for their births (NCMD) when their data cannot be read
                        without; false where this user may publish nothing
    """

    address: str
    topics: tuple[str | Subscription, ...]
    name: str = ""
    version: Literal["auto", "5", "3.1.1"] = "auto"
    client_id: str = ""
    user: str | None = None
    password: str | None = None
    tls: bool = False
    tls_ca_file: str = ""
    tls_certificate_file: str = ""
    tls_key_file: str = ""
    session_expiry_s: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFF)] = 604_800
    keep_alive_s: Annotated[int, msgspec.Meta(ge=2, le=65_535)] = 20
    inflight_max: Annotated[int, msgspec.Meta(ge=1, le=65_535)] = 2_000
    packet_bytes_max: Annotated[int, msgspec.Meta(ge=128, le=16_777_216)] = 262_144
    retained: Literal["skip", "store"] = "skip"
    dup_horizon_ms: Annotated[int, msgspec.Meta(ge=0)] = 5_000
    retry_max_ms: Annotated[int, msgspec.Meta(ge=100)] = 30_000
    connect_timeout_ms: Annotated[int, msgspec.Meta(ge=100)] = 10_000
    sparkplug_rebirths: bool = True

    @property
    def source_name(self) -> str:
        """The broker's name in status and in its source id."""
        return self.name or self.address

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """`topics`, each in full."""
        return tuple(Subscription(filter=one) if isinstance(one, str) else one for one in self.topics)

    def where(self) -> tuple[str, int]:
        """Host and port. Raises `UserError`."""
        return parse_address(self.address, default_port=TLS_PORT if self.tls else PORT)

    def problem(self) -> tuple[str, str] | None:
        """(key, what is wrong with it) that no type can tell; None when it may be tried."""
        if self.name and not _NAME.fullmatch(self.name):
            return "name", "letters, digits, “.”, “_” and “-” only, 63 at most"
        try:
            self.where()
        except UserError as error:
            return "address", f"{error.what}; write host:port, for example 127.0.0.1:{PORT}"
        if self.password is not None and self.user is None:
            return "password", "a password needs a user: MQTT knows no password alone"
        if not self.tls and (self.tls_ca_file or self.tls_certificate_file):
            return "tls", "there are TLS files; write tls = true"
        if not self.topics:
            return "topics", 'name a topic filter, for example topics = ["site/#"]'
        for wanted in self.subscriptions:
            if (what := _filter_problem(wanted.filter)) is not None:
                return "topics", f"“{wanted.filter}”: {what}"
        filters = [wanted.filter for wanted in self.subscriptions]
        twice = next((each for each in filters if filters.count(each) > 1), None)
        return None if twice is None else ("topics", f"“{twice}” stands there twice")


def _filter_problem(text: str) -> str | None:
    if text.startswith(SHARE):
        group, _, rest = text.removeprefix(SHARE).partition("/")
        if not group or not rest or "+" in group or "#" in group:
            return "a shared subscription is $share/GROUP/FILTER"
        text = rest
    try:
        check_filter(text.encode())
    except MqttError as error:
        return error.what
    return "too long" if len(text.encode()) > 0xFFFF else None
