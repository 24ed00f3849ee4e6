"""`headwater user add`: a credential, which opens the node's listeners to the network."""

from __future__ import annotations

import getpass
import secrets
import sys

from gateway.users import add_user
from headwater.cli.find import config_file, find_node
from headwater.errors import UserError
from headwater.settings.load import load_settings


def users_file(config: str | None) -> str:
    """Where the node that a command means keeps its users; raises `UserError` when there is no such node."""
    file = config_file(config)
    if file is None:
        return f"{find_node(config).data_dir}/node/users"
    settings = load_settings(file).settings
    own = settings.mqtt.users_file if settings.mqtt is not None else ""
    return own or f"{settings.data_dir}/node/users"


def add(name: str, config: str | None, *, generate: bool, replace: bool) -> None:
    """Ask for a password (or make one) and write the user; prints what comes next."""
    path = users_file(config)
    password = secrets.token_urlsafe(18) if generate else _ask(name)
    add_user(path, name, password.encode(), frozenset({"mqtt"}), replace=replace)
    print(f"User “{name}” may connect over MQTT; written to {path}.")
    if generate:
        print(f"Its password, shown this once: {password}")
    print("A running node takes it within a second or two. From now on every MQTT client needs a user and password.")
    print('To listen to the whole network: listen = ":1883" in [mqtt], then start the node again.')


def _ask(name: str) -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    password = getpass.getpass(f"Password for {name}: ")
    if getpass.getpass("Once more: ") != password:
        raise UserError("the two passwords differ", hint="Try again, or let one be made with --generate.")
    return password
