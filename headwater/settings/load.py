"""From files to `Settings`: merge, environment, secrets from files, types, then what only the whole can tell.

`load_settings` raises one `UserError` that names every mistake with its file and line.
"""

from __future__ import annotations

import difflib
import os
import re
import socket
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect

from headwater import resources
from headwater.errors import UserError
from headwater.net import parse_address
from headwater.settings.model import DEFAULTS, Settings
from headwater.toml.check import convert, item_at, shape_of, struct_at
from headwater.toml.places import Path, show_path
from headwater.toml.source import Source, read_source

NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
REFUSED_NAMES = ("raspberrypi", "localhost")
_PATH_KEYS = ("_file", "_dir", "_path")
_RULES = ("window", "alert", "processor")
_SECRET_KEY = re.compile(r"(password|secret|token|credential|passphrase|private_key)$")


class Loaded(NamedTuple):
    """A node's settings and where they came from."""

    settings: Settings
    file: str
    files: list[str]
    secrets: frozenset[Path]
    """Paths whose value was read from a file; never shown."""


def load_settings(file: str, *, environ: Mapping[str, str] = os.environ, host_name: str | None = None) -> Loaded:
    """Read, merge, check. `host_name` is the machine's own unless given. Raises UserError naming every mistake."""
    file = os.path.abspath(file)
    source = read_source(
        file, missing="Write one with `headwater init edge` or `headwater init central`, or name another with --config."
    )
    refuse_rules(source)
    source.expand(environ)
    shape = shape_of(Settings)
    secrets: set[Path] = set()
    read_secrets(source, source.table, shape, (), secrets)
    explicit_node = source.table.get("node")
    _apply_role(source)
    settings = convert(source, Settings)
    if settings is not None:
        settings = msgspec.structs.replace(settings, node=settings.node or _host(host_name))
        if ("node",) not in source.faulty:
            _check_node(source, settings.node, explicit=bool(explicit_node))
        settings = msgspec.convert(resolve_paths(msgspec.to_builtins(settings), os.path.dirname(file)), Settings)
        _check_addresses(source, settings, secrets)
        _check_brokers(source, settings, secrets)
        _check_files(source, settings)
    if settings is None or source.problems:
        raise _error(source)
    return Loaded(settings, file, source.files, frozenset(secrets))


def holds_rules(table: Mapping[str, Any]) -> bool:
    """Whether this is what a rule file says, and nothing else."""
    return bool(table) and all(key in _RULES and isinstance(value, (list, dict)) for key, value in table.items())


def refuse_rules(source: Source) -> None:
    """Raise UserError for a rule file in place of one that names rules."""
    if holds_rules(source.table):
        first = next(iter(source.table))
        raise UserError(
            f"{source.place((first, 0))}: [[{first}]] belongs into a rule file, and this one has nothing else",
            hint=f'Give the file that names it: rules = ["{os.path.basename(source.main)}"] stands in a node\'s file,'
            f" or in that of `headwater process`. `headwater config check {source.main}` checks the rules alone.",
        )


def masked(loaded: Loaded) -> dict[str, Any]:
    """The settings as plain values, secrets replaced by stars."""
    masked: dict[str, Any] = _mask(msgspec.to_builtins(loaded.settings), (), loaded.secrets)
    return masked


def fit_node_name(name: str) -> bool:
    """Whether a name may be a node's."""
    return NODE_NAME.fullmatch(name) is not None and name.lower() not in REFUSED_NAMES


def _host(host_name: str | None) -> str:
    return (host_name if host_name is not None else socket.gethostname()).split(".")[0]


def _apply_role(source: Source) -> None:
    role = source.table.get("role", "edge")
    for section, values in DEFAULTS.get(role, {}).items() if isinstance(role, str) else ():
        table = source.table.setdefault(section, {})
        if isinstance(table, dict):
            for key, value in values.items():
                table.setdefault(key, value)


def read_secrets(source: Source, table: Any, shape: inspect.Type, path: Path, secrets: set[Path]) -> None:
    """Put the content of `<key>_file` into `<key>`, for every text key that has no `<key>_file` of its own."""
    struct, item = struct_at(shape), item_at(shape)
    if item is not None and isinstance(table, list):
        for index, inner in enumerate(table):
            read_secrets(source, inner, item, (*path, index), secrets)
    if struct is None or not isinstance(table, dict):
        return
    fields = {field.encode_name: field.type for field in struct.fields}
    for key in list(table):
        base = key.removesuffix("_file")
        if key in fields:
            read_secrets(source, table[key], fields[key], (*path, key), secrets)
        elif base != key and _is_text(fields.get(base)):
            _take_secret(source, table, key, base, path, secrets)


def _take_secret(source: Source, table: dict[str, Any], key: str, base: str, path: Path, secrets: set[Path]) -> None:
    name = table.pop(key)
    here = (*path, key)
    if base in table:
        source.problem(here, f"both “{base}” and “{key}” are set; keep one")
        return
    file = os.path.join(os.path.dirname(source.main), str(name))
    try:
        with open(file, encoding="utf-8") as handle:
            table[base] = handle.read().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        source.problem(here, f"{show_path(here)}: cannot read {file}: {reason}")
    secrets.add((*path, base))
    source.places[(*path, base)] = source.place(here)


def _is_text(shape: inspect.Type | None) -> bool:
    if isinstance(shape, inspect.UnionType):
        return any(isinstance(inner, inspect.StrType) for inner in shape.types)
    return isinstance(shape, inspect.StrType)


def _check_node(source: Source, name: str, *, explicit: bool) -> None:
    if fit_node_name(name):
        return
    cure = 'write node = "a-name-of-its-own", such as the place where it stands'
    if name.lower() in REFUSED_NAMES:
        whose = "the node's name" if explicit else "the host name, which names the node when nothing else does,"
        reason = f"{whose} is “{name}”, as on thousands of machines, and nodes are told apart by name"
    else:
        reason = f"“{name}” cannot name a node: letters, digits, “.”, “_” and “-” only, 63 at most"
    source.problem(("node",) if explicit else (), f"{reason}; {cure}")


def resolve_paths(value: Any, folder: str, key: str = "") -> Any:
    """Plain values with the paths in them made absolute: relative ones stand against `folder`."""
    if isinstance(value, dict):
        return {name: resolve_paths(inner, folder, name) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [resolve_paths(inner, folder, key) for inner in value]
    if isinstance(value, str) and value:
        is_file = key in ("profiles", "profile", "rules") and value.endswith(".toml")
        if is_file or key.endswith(_PATH_KEYS):
            return os.path.normpath(os.path.join(folder, os.path.expanduser(value)))
    return value


def _listening(settings: Settings) -> Iterator[tuple[Path, str, str]]:
    """Path, address and an example of one, for everything that listens."""
    for section in ("kafka", "mqtt", "page"):
        part = getattr(settings, section)
        if part is not None:
            yield (section, "listen"), part.listen, type(part)().listen
    for index, door in enumerate(settings.kafka.listeners):
        yield ("kafka", "listeners", index, "listen"), door.listen, ":9093"
    if settings.mqtt is not None and settings.mqtt.tls is not None:
        yield ("mqtt", "tls", "listen"), settings.mqtt.tls.listen, ":8883"


def _check_addresses(source: Source, settings: Settings, secrets: set[Path]) -> None:
    taken: dict[int, str] = {}
    for path, listen, example in _listening(settings):
        name = show_path(path)
        if path in source.faulty:
            continue
        try:
            _, port = parse_address(listen)
        except UserError as error:
            what = "what its file says is no address" if path in secrets else error.what
            source.problem(path, f"{name}: {what}; write host:port, for example {example}")
            continue
        if port and port in taken:
            source.problem(path, f"{name} and {taken[port]} are both port {port}; choose another")
        taken[port] = name
    path = ("central", "bootstrap_servers")
    if settings.central is not None and path not in source.faulty:
        try:
            settings.central.addresses()
        except UserError as error:
            what = "what its file says is no address" if path in secrets else error.what
            hint = error.hint[:1].lower() + error.hint[1:]
            source.problem(path, f"central.bootstrap_servers: {what}; {hint}")


def _check_files(source: Source, settings: Settings) -> None:
    for key, names in (("profiles", settings.profiles), ("rules", settings.rules)):
        shipped = resources.config_names(key)
        for index, name in enumerate(names):
            path: Path = (key, index)
            if name.endswith(".toml"):
                if not os.path.isfile(name):
                    source.problem(path, f"{key}: there is no file {name}")
            elif name not in shipped:
                near = difflib.get_close_matches(name, shipped, n=1, cutoff=0.3)
                meant = f"did you mean “{near[0]}”?" if near else f"shipped are: {', '.join(shipped) or 'none'}"
                source.problem(path, f"{key}: “{name}” is not shipped with Headwater; {meant} (a path ends in .toml)")
    for section, what, called in (
        ("serial", "serial ports", [port.source_name for port in settings.serial]),
        ("modbus", "Modbus buses", [bus.bus_name for bus in settings.modbus]),
    ):
        for index, name in enumerate(called):
            if name in called[:index]:
                source.problem((section, index), f"two {what} are called “{name}”; give one a name of its own")


def _check_brokers(source: Source, settings: Settings, secrets: set[Path]) -> None:
    names = [broker.source_name for broker in settings.mqtt_client]
    for index, broker in enumerate(settings.mqtt_client):
        if (found := broker.problem()) is not None:
            key, what = found
            path: Path = ("mqtt_client", index, key)
            what = "what its file says will not do" if path in secrets else what
            source.problem(path, f"{show_path(path)}: {what}")
        if names[index] in names[:index]:
            path = ("mqtt_client", index)
            source.problem(path, f"two brokers are called “{names[index]}”; give one a name of its own")


def _error(source: Source) -> UserError:
    command = f"headwater config check {source.main}"
    return UserError("\n".join(source.problems), hint=f"Mend the above, then try `{command}`.")


def _mask(value: Any, path: Path, secrets: frozenset[Path]) -> Any:
    if isinstance(value, dict):
        return {key: _mask(inner, (*path, key), secrets) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_mask(inner, (*path, index), secrets) for index, inner in enumerate(value)]
    secret = path in secrets or (bool(path) and isinstance(path[-1], str) and _SECRET_KEY.search(path[-1]) is not None)
    return "********" if secret and isinstance(value, str) and value else value
