"""`headwater user`: credentials, which open the node's listeners to the network."""

from __future__ import annotations

import getpass
import os
import secrets
import sys

from gateway.users import PURPOSES, add_user, read_users, remove_user
from headwater.cli.find import config_file, find_node
from headwater.errors import UserError
from headwater.net import is_loopback, parse_address
from headwater.settings.load import load_settings


def users_files(config: str | None) -> dict[str, str]:
    """Where the node that a command means keeps its users, by purpose; raises `UserError` without such a node."""
    file = config_file(config)
    if file is None:
        return dict.fromkeys(PURPOSES, f"{find_node(config).data_dir}/node/users")
    settings = load_settings(file).settings
    own = {"kafka": settings.kafka.users_file, "mqtt": settings.mqtt.users_file if settings.mqtt is not None else ""}
    return {purpose: own[purpose] or f"{settings.data_dir}/node/users" for purpose in PURPOSES}


def add(name: str, config: str | None, purposes: frozenset[str], *, generate: bool, replace: bool) -> None:
    """Ask for a password (or make one) and write the user; prints what comes next."""
    files = users_files(config)
    password = secrets.token_urlsafe(18) if generate else _ask(name)
    paths = {files[purpose] for purpose in purposes}
    first = "mqtt" in purposes and not _takes_mqtt(files["mqtt"])
    for path in sorted(paths):
        here = frozenset(purpose for purpose in purposes if files[purpose] == path)
        add_user(path, name, password.encode(), here, replace=replace)
    print(f"User “{name}” may connect over {_words(purposes)}; written to {' and '.join(sorted(paths))}.")
    if generate:
        print(f"Its password, shown this once: {password}")
    print("A running node takes it within a second or two.")
    if first:
        print("From now on every MQTT client needs a user and password.")
        listen = _listens_beyond(config)
        if listen:
            print(f"The node listens to the network at {listen} then: nothing is to be started again.")
        else:
            print('To listen to the whole network: listen = ":1883" in [mqtt], then start the node again.')
    if "kafka" in purposes:
        print("It signs in with SASL PLAIN or SCRAM at a [[kafka.listeners]], and may do what an [[kafka.acl]] allows.")


def _listens_beyond(config: str | None) -> str:
    """Where the node's file has MQTT listen to more than this machine; "" where it does not, or there is no file."""
    file = config_file(config)
    mqtt = load_settings(file).settings.mqtt if file is not None else None
    return mqtt.listen if mqtt is not None and not is_loopback(parse_address(mqtt.listen, default_port=1883)[0]) else ""


def _takes_mqtt(path: str) -> bool:
    """Whether somebody may connect over MQTT already."""
    return os.path.lexists(path) and any("mqtt" in user.purposes for user in read_users(path).values())


def list_users(config: str | None) -> None:
    """Names and purposes; never a hash."""
    found: dict[str, set[str]] = {}
    paths = sorted({path for path in users_files(config).values() if os.path.lexists(path)})
    for path in paths:
        for user in read_users(path).values():
            found.setdefault(user.name, set()).update(user.purposes)
    for name in sorted(found):
        print(f"{name:<24} {_words(found[name])}")
    if not found:
        print("There is no user yet: `headwater user add NAME` makes one.")


def remove(name: str, config: str | None) -> None:
    """Take the user out of every file that has it."""
    holding = [path for path in sorted(set(users_files(config).values())) if os.path.lexists(path)]
    holding = [path for path in holding if name in read_users(path)]
    if not holding:
        raise UserError(f"there is no user “{name}”", hint="`headwater user list` names them.")
    for path in holding:
        remove_user(path, name)
    print(
        f"User “{name}” is gone from {' and '.join(holding)}. A running node closes its connections in a second or two."
    )


def _words(purposes: frozenset[str] | set[str]) -> str:
    names = {"kafka": "Kafka", "mqtt": "MQTT"}
    return " and ".join(names[purpose] for purpose in sorted(purposes))


def _ask(name: str) -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    password = getpass.getpass(f"Password for {name}: ")
    if getpass.getpass("Once more: ") != password:
        raise UserError("the two passwords differ", hint="Try again, or let one be made with --generate.")
    return password
