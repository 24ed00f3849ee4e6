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
from gateway.wire.sasl import PLAIN
from gateway.wire.schema import ApiKey
from gateway.wire.settings import KafkaListenerSettings
from gateway.wire.sign_in import ClientSecurity
from headwater.cli import words
from headwater.cli.findings import Finding, Level
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
        found = [*_ports_taken(settings), _not_tested(settings)]
    else:
        found = []
        checks.append(_kafka(settings))
        if settings.mqtt is not None and settings.mqtt.tls is not None:
            told = _clients_go_to(settings.mqtt.tls.listen, None, 8883)
            checks.append(_reached("mqtt TLS", told, _connects("mqtt TLS", told, tls=True)))
        if settings.page is not None:
            told = _clients_go_to(settings.page.listen, None, 8080)
            checks.append(_reached("page", told, _connects("page", told, tls=False)))
    if settings.central is not None:
        checks += [_central(settings.central, address) for address in settings.central.addresses()]
    for findings in await asyncio.gather(*checks):
        found += findings
    return found


# --- a node that does not run: its ports must be free


def _ports_taken(settings: Settings) -> Iterator[Finding]:
    wanted = [("kafka", settings.kafka.listen, 9092)]
    wanted += [("kafka", listener.listen, 9093) for listener in settings.kafka.listeners]
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


def _not_tested(settings: Settings) -> Finding:
    kafka = settings.kafka
    told = [_clients_go_to(kafka.listen, kafka.advertised, 9092)]
    told += [_clients_go_to(listener.listen, listener.advertised, 9093) for listener in kafka.listeners]
    said = f"clients are told {', '.join(map(_text, told))}: that could not be tested, the node does not run"
    return Finding("warn", "kafka", said, "Start it, and ask again.")


async def _kafka(settings: Settings) -> list[Finding]:
    """Connect as clients do: ask where to go, go there, and see whether that is this node."""
    kafka = settings.kafka
    here = parse_address(kafka.listen, default_port=9092)
    own = None
    try:
        cluster = await _metadata(_nearest(here), None)
    except (OSError, HeadwaterError) as error:
        found = [_silent("kafka", kafka.listen, error)]
    else:
        own = cluster["id"]
        told = next(iter(cluster["brokers"]), _clients_go_to(kafka.listen, kafka.advertised, 9092))
        found = [Finding("ok", "kafka", f"{kafka.listen} answers")]
        found += await _reached("kafka", told, _same_cluster("kafka", told, own), here, too_narrow="fail")
    for findings in await asyncio.gather(*(_listener(listener, own) for listener in kafka.listeners)):
        found += findings
    return found


async def _listener(listener: KafkaListenerSettings, own: str | None) -> list[Finding]:
    """One of `[[kafka.listeners]]`; `own` is this node's cluster, None when it is not known."""
    about = f"kafka {listener.protocol}"
    here = parse_address(listener.listen, default_port=9093)
    told = _clients_go_to(listener.listen, listener.advertised, 9093)
    try:
        certificate = await _handshake(_nearest(here), tls=listener.protocol.endswith("SSL"))
    except (OSError, HeadwaterError) as error:
        return [_silent(about, listener.listen, error)]
    if listener.protocol == "PLAINTEXT":
        test = _same_cluster(about, told, own)
    elif certificate is not None:
        test = _same_certificate(about, told, certificate)
    else:
        test = _same_sign_in(about, told, here, listener.sasl_mechanisms)
    return await _reached(about, told, test, here)


async def _reached(
    about: str,
    told: Address,
    test: Awaitable[Finding],
    here: Address | None = None,
    *,
    too_narrow: Level = "warn",
) -> list[Finding]:
    """What a test of the address that clients are told finds, or why it could not be made.

    `here` is where the node listens: `too_narrow` is the level for one that the network reaches, and whose clients are
    sent to their own machines.
    """
    try:
        found = await test
    except socket.gaierror:
        then = "Set advertised to a name or an address that clients can resolve."
        return [Finding("fail", about, f"{_told(told)}, a name that this machine cannot resolve", then)]
    except HeadwaterError as error:
        return [_elsewhere(about, told, f"what answers there is not this listener: {_cause(error)}")]
    except OSError as error:
        then = "Set advertised to where this machine is reached, and open the port in its firewall."
        return [Finding("fail", about, f"{_told(told)}, and nothing answers there: {_cause(error)}", then)]
    if found.level == "fail" or here is None or not is_loopback(told[0]):
        return [found]
    if is_loopback(here[0]):
        return [found._replace(said=f"{found.said}; programs on this machine only")]
    said = f"{_told(told)}, which is their own machine: clients on other machines cannot use it"
    then = f'Set its advertised = "{socket.gethostname()}.local:{told[1]}", a name that clients can reach.'
    return [Finding(too_narrow, about, said, then)]


async def _connects(about: str, told: Address, *, tls: bool) -> Finding:
    await _handshake(told, tls=tls)
    return Finding("ok", about, f"{_told(told)}: reached from here")


async def _same_cluster(about: str, told: Address, own: str | None) -> Finding:
    there = (await _metadata(told, None))["id"]
    if own is not None and there != own:
        return _elsewhere(about, told, f"that is another node: cluster {there}, and this node's is {own}")
    return Finding("ok", about, f"{_told(told)}: reached from here")


async def _same_certificate(about: str, told: Address, own: bytes) -> Finding:
    """Without a credential the certificate is all that a listener shows of itself."""
    if await _handshake(told, tls=True) != own:
        return _elsewhere(about, told, "what answers there has another certificate: another node, or a proxy")
    said = f"{_told(told)}: reached from here, with this listener's certificate; {_NO_CREDENTIAL}"
    return Finding("ok", about, said)


async def _same_sign_in(about: str, told: Address, here: Address, mechanisms: tuple[str, ...]) -> Finding:
    """A sign-in is begun and left: an answer to that is no failed sign-in, and nothing else is answered before it."""
    mechanism = next(each for each in mechanisms if each != PLAIN)  # not served without TLS
    channel = await Channel.connect(RealNet(), *told, client_id="headwater-doctor", request_timeout_ms=TIMEOUT_MS)
    try:
        answer = await channel.call(ApiKey.SASL_HANDSHAKE, {"mechanism": mechanism})
    finally:
        channel.close()
    if answer["error_code"]:
        return _elsewhere(about, told, f"what answers there takes no sign-in by {mechanism}: it is another listener")
    if await _is_same(told, here):
        return Finding("ok", about, f"{_told(told)}: reached from here; {_NO_CREDENTIAL}")
    said = f"{_told(told)}: a listener answers there, and whether it is this node's is not known; {_NO_CREDENTIAL}"
    return Finding(
        "warn", about, said, "Sign in there with a Kafka client, and see whether this node's topics are there."
    )


_NO_CREDENTIAL = "signing in was not tested, no credential is at hand"
_WILD = {"0.0.0.0": "127.0.0.1", "::": "::1"}


async def _is_same(told: Address, here: Address) -> bool:
    """Whether it is plainly where this machine listens; behind a forwarded port it may lead there all the same."""
    if told[1] != here[1]:
        return False
    rows = await asyncio.get_running_loop().getaddrinfo(*told, type=socket.SOCK_STREAM)
    hosts = {str(row[4][0]) for row in rows}
    return all(map(_is_of_this_machine, hosts)) if here[0] in _WILD else told[0] == here[0] or here[0] in hosts


def _is_of_this_machine(host: str) -> bool:
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True


def _nearest(listening: Address) -> Address:
    return _WILD.get(listening[0], listening[0]), listening[1]


def _silent(about: str, listen: str, error: Exception) -> Finding:
    return Finding("fail", about, f"{listen} does not answer: {_cause(error)}", "`headwater status` says why.")


def _told(address: Address) -> str:
    return f"clients are told {_text(address)}"


def _elsewhere(about: str, told: Address, why: str) -> Finding:
    then = "Set advertised to an address that leads to this listener."
    return Finding("fail", about, f"{_told(told)}, and {why}", then)


async def _handshake(address: Address, *, tls: bool) -> bytes | None:
    """A connection, and TLS on it: the certificate, which its own finding judges."""
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    async with asyncio.timeout(TIMEOUT_MS / 1000):
        _, writer = await asyncio.open_connection(*address, ssl=context)
    session: ssl.SSLObject | None = writer.get_extra_info("ssl_object")
    certificate = session.getpeercert(binary_form=True) if session is not None else None
    writer.transport.abort()
    return certificate


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
