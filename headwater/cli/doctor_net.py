"""The doctor's findings over the network: our own listeners, where clients are sent, and the central."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Iterator, Mapping
from typing import Any

from gateway.doors import advertised
from gateway.replicate.settings import UplinkSettings
from gateway.wire.channel import Channel
from gateway.wire.schema import ApiKey
from gateway.wire.sign_in import ClientSecurity
from headwater.cli import words
from headwater.cli.findings import Finding
from headwater.errors import HeadwaterError
from headwater.net import RealNet, is_loopback, parse_address, port_holder
from headwater.settings.model import Settings

TIMEOUT_MS = 3_000
Address = tuple[str, int]
# What the uplink cannot do without, at the versions that it speaks (KIP-98).
_NEEDED = (
    ApiKey.PRODUCE,
    ApiKey.FETCH,
    ApiKey.LIST_OFFSETS,
    ApiKey.METADATA,
    ApiKey.FIND_COORDINATOR,
    ApiKey.INIT_PRODUCER_ID,
    ApiKey.ADD_PARTITIONS_TO_TXN,
    ApiKey.END_TXN,
)


async def look_outside(settings: Settings, status: Mapping[str, Any] | None) -> list[Finding]:
    """`status` is what the running node says, None when it does not run."""
    checks: list[Awaitable[list[Finding]]] = []
    if status is None:
        found = list(_ports_taken(settings))
    else:
        found = []
        checks.append(_plain_kafka(settings))
        checks += [
            _reached(f"kafka {listener.protocol}", _clients_go_to(listener.listen, listener.advertised, 9092),
                     tls=listener.protocol.endswith("SSL"))
            for listener in settings.kafka.listeners
        ]  # fmt: skip
        if settings.mqtt is not None and settings.mqtt.tls is not None:
            checks.append(_reached("mqtt TLS", _clients_go_to(settings.mqtt.tls.listen, None, 8883), tls=True))
        if settings.page is not None:
            checks.append(_reached("page", _clients_go_to(settings.page.listen, None, 8080), tls=False))
    if settings.central is not None:
        checks += [_central(settings.central, address) for address in settings.central.addresses()]
    for findings in await asyncio.gather(*checks):
        found += findings
    return found


# --- a node that does not run: its ports must be free


def _ports_taken(settings: Settings) -> Iterator[Finding]:
    wanted = [("kafka", settings.kafka.listen, 9092)]
    wanted += [("kafka", listener.listen, 9092) for listener in settings.kafka.listeners]
    if settings.mqtt is not None:
        wanted.append(("mqtt", settings.mqtt.listen, 1883))
        if settings.mqtt.tls is not None:
            wanted.append(("mqtt", settings.mqtt.tls.listen, 8883))
    if settings.page is not None:
        wanted.append(("page", settings.page.listen, 8080))
    for about, text, port in wanted:
        host, number = parse_address(text, default_port=port)
        try:
            with socket.create_server((host, number), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
                pass
        except OSError as error:
            holder = port_holder(number)
            then = f"It is held by {holder}: end that, or choose another port." if holder else ""
            yield Finding("fail", about, f"cannot listen on {text}: {error.strerror or error}", then)


# --- our own listeners


def _clients_go_to(listen: str, setting: str | None, port: int) -> Address:
    return advertised(setting, parse_address(listen, default_port=port))


async def _plain_kafka(settings: Settings) -> list[Finding]:
    """Connect as a client does: ask where to go, and go there."""
    kafka = settings.kafka
    told = _clients_go_to(kafka.listen, kafka.advertised, 9092)
    host, port = parse_address(kafka.listen, default_port=9092)
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    try:
        cluster = await _metadata((local, port), None)
    except (OSError, HeadwaterError) as error:
        return [
            Finding("fail", "kafka", f"{kafka.listen} does not answer: {_cause(error)}", "`headwater status` says why.")
        ]
    found = [Finding("ok", "kafka", f"{kafka.listen} answers")]
    told = next(iter(cluster["brokers"]), told)
    if is_loopback(told[0]):
        if is_loopback(host):
            return [*found, Finding("ok", "kafka", f"clients are told {_text(told)}: programs on this machine only")]
        then = f'Set [kafka] advertised = "{socket.gethostname()}.local:{port}", a name that clients can reach.'
        return [*found, Finding("fail", "kafka", f"clients are told {_text(told)}, which is their own machine", then)]
    return found + await _reached("kafka", told, tls=False, again=True)


async def _reached(about: str, address: Address, *, tls: bool, again: bool = False) -> list[Finding]:
    """Whether the address that clients are told leads here."""
    told = f"clients are told {_text(address)}"
    try:
        if again:
            await _metadata(address, None)
        else:
            await _handshake(address, tls=tls)
    except socket.gaierror:
        then = "Set advertised to a name or an address that clients can resolve."
        return [Finding("fail", about, f"{told}, a name that this machine cannot resolve", then)]
    except (OSError, HeadwaterError) as error:
        then = "Set advertised to where this machine is reached, and open the port in its firewall."
        return [Finding("fail", about, f"{told}, and nothing answers there: {_cause(error)}", then)]
    return [Finding("ok", about, f"{told}: reached from here")]


async def _handshake(address: Address, *, tls: bool) -> None:
    """A connection, and TLS on it; whose certificate it is, its own finding says."""
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    async with asyncio.timeout(TIMEOUT_MS / 1000):
        _, writer = await asyncio.open_connection(*address, ssl=context)
    writer.transport.abort()


# --- the central


async def _central(settings: UplinkSettings, address: Address) -> list[Finding]:
    where = _text(address)
    try:
        security = ClientSecurity(settings, "[central]")
        cluster = await _metadata(address, security, list(settings.topics), settings.topic_prefix)
    except HeadwaterError as error:
        return [Finding("fail", "central", f"{where}: {error.what}", error.hint)]
    except OSError as error:
        then = "Is it on, is the address right, does a firewall stand between? The node keeps its readings meanwhile."
        return [Finding("fail", "central", f"{where} does not answer: {_cause(error)}", then)]
    missing = [api.name for api in _NEEDED if api not in cluster["versions"]]
    if missing:
        return [Finding("fail", "central", f"{where} does not speak {', '.join(missing)}",
                        "It must be a Headwater node or Apache Kafka 2.5 or newer.")]  # fmt: skip
    brokers = cluster["brokers"]
    found = [
        Finding("ok", "central", f"{where} answers: cluster {cluster['id']}, {words.count(len(brokers), 'broker')}")
    ]
    for broker in brokers:
        if broker == address:
            continue
        try:
            await _metadata(broker, security)
        except (OSError, HeadwaterError) as error:
            said = f"it sends us to {_text(broker)}, where nothing answers: {_cause(error)}"
            then = "That broker's advertised listener must be an address that this node reaches."
            found.append(Finding("fail", "central", said, then))
    found += _topics_fit(cluster)
    return found


def _topics_fit(cluster: Mapping[str, Any]) -> Iterator[Finding]:
    for name, (code, replicas, leaderless) in cluster["topics"].items():
        if code == 3:  # UNKNOWN_TOPIC_OR_PARTITION
            yield Finding("ok", "central", f"topic {name} is made with the first record")
        elif code:
            yield Finding(
                "fail", "central", f"topic {name}: error {code}", "May this node's user describe and write it?"
            )
        elif leaderless:
            yield Finding("fail", "central", f"topic {name}: {words.count(leaderless, 'partition')} without a leader",
                          "A broker of that cluster is down.")  # fmt: skip
        elif len(cluster["brokers"]) >= 3 and replicas < 2:
            yield Finding("warn", "central", f"topic {name} is on one broker alone, of {len(cluster['brokers'])}",
                          "Give it replicas: a lost broker would lose it.")  # fmt: skip


async def _metadata(
    address: Address, security: ClientSecurity | None, topics: list[str] | None = None, prefix: str = ""
) -> dict[str, Any]:
    """What a broker says of its cluster. Raises `OSError`, `HeadwaterError`."""
    channel = await Channel.connect(
        RealNet(), *address, client_id="headwater-doctor", request_timeout_ms=TIMEOUT_MS, security=security
    )
    try:
        asked = [{"name": prefix + name} for name in topics or ()]
        body = await channel.call(ApiKey.METADATA, {"topics": asked, "allow_auto_topic_creation": False})
        return {
            "id": body.get("cluster_id") or "unnamed",
            "brokers": [(broker["host"], broker["port"]) for broker in body["brokers"]],
            "versions": set(channel.versions),
            "topics": {
                topic["name"]: (
                    topic["error_code"],
                    min((len(part["replica_nodes"]) for part in topic["partitions"]), default=0),
                    sum(part["leader_id"] < 0 for part in topic["partitions"]),
                )
                for topic in body["topics"]
            },
        }
    finally:
        channel.close()


def _text(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _cause(error: Exception) -> str:
    if isinstance(error, HeadwaterError):
        return error.what
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT_MS // 1000} s"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
