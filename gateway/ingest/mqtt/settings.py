"""Settings of the MQTT listener, `[mqtt]`."""

from __future__ import annotations

from typing import Annotated

import msgspec

from gateway.tls_settings import ServerTlsSettings


class AclRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where users may publish: one [[mqtt.acl]]. With any, what no rule allows is refused.

    users     their names; "*" is everyone who may come in
    publish   topic patterns as for a subscription; %u stands for the user's name, %c for the client id
    """

    users: tuple[str, ...] = ("*",)
    publish: tuple[str, ...]


class MqttTlsSettings(ServerTlsSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """MQTT over TLS, beside the plain listener: [mqtt.tls]. With client_ca_file a client's certificate is its user."""

    listen: str = "127.0.0.1:8883"
    """Address and port; off loopback only with client_ca_file, or once a user exists."""

    handshakes_max: Annotated[int, msgspec.Meta(ge=1)] = 100
    """TLS handshakes under way; one more ends the oldest of them."""


class MqttSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The MQTT listener.

    listen               address and port; off loopback only once a user exists: `headwater user add NAME --mqtt`
    users_file           users and hashes (0600), made by `headwater user add`; empty: `<data_dir>/node/users`. Set,
                         it must be there. Once it names a user, every client needs one
    tls                  a second listener, for MQTT over TLS
    acl                  where users may publish; without a rule anywhere
    packet_bytes_max     a larger packet closes its connection before a byte of it is stored
    connections_max      further connections are closed at once
    inflight_max         messages of one connection taken and not yet acknowledged; beyond, its reads pause
    sessions_max         persistent sessions remembered; the one unused longest makes room
    connect_timeout_ms   from accept to CONNECT
    connect_bytes_max    size of a CONNECT packet
    dup_horizon_ms       a re-sent message is a repeat when its PUBACK was written less than this before
                         its connection ended
    topic_aliases_max    topic aliases that a client of MQTT 5 may have on one connection
    keep_alive_max_s     a client of MQTT 5 that asks for a longer keep-alive, or for none, is told this one; 0: any
    """

    listen: str = "127.0.0.1:1883"
    users_file: str = ""
    tls: MqttTlsSettings | None = None
    acl: tuple[AclRule, ...] = ()
    packet_bytes_max: int = 262_144
    connections_max: int = 2_048
    inflight_max: int = 1_000
    sessions_max: int = 10_000
    connect_timeout_ms: int = 10_000
    connect_bytes_max: int = 16_384
    dup_horizon_ms: int = 5_000
    topic_aliases_max: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 16
    keep_alive_max_s: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 3_600
