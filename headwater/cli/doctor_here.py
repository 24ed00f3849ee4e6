"""The doctor's findings on this machine: data directory, clock, serial ports, users and certificates."""

from __future__ import annotations

import getpass
import grp
import os
import pwd
import shutil
import stat
import time
from collections.abc import Iterator

from gateway.log.catalog import read_node
from gateway.tls import WARN_DAYS, ServerTls
from gateway.tls_settings import ServerTlsSettings
from gateway.users import read_users
from headwater.app.status import DISK_LOW_BYTES, VERSION_DATE_MS, clock_trusted
from headwater.cli import words
from headwater.cli.findings import Finding
from headwater.disk import RealDisk
from headwater.errors import UserError
from headwater.net import is_loopback, parse_address
from headwater.settings.model import Settings

# A log needs fsync, rename and sparse files that survive a power cut.
_UNFIT = {
    "tmpfs": "is memory: a restart of the machine loses the log",
    "ramfs": "is memory: a restart of the machine loses the log",
    "overlay": "is a container's own layer: the log goes with the container",
    "vfat": "keeps no permissions and may lose renames at a power cut",
    "exfat": "keeps no permissions and may lose renames at a power cut",
    "nfs": "is over the network: an fsync there may say more than the disk has done",
    "nfs4": "is over the network: an fsync there may say more than the disk has done",
    "cifs": "is over the network: an fsync there may say more than the disk has done",
}


def look_here(settings: Settings) -> list[Finding]:
    """Everything that needs no connection."""
    return [*_data(settings), *_clock(), *_intake(settings), *_ports(settings), *_certificates(settings)]


# --- data directory


def _data(settings: Settings) -> Iterator[Finding]:
    path = settings.data_dir
    if not os.path.isdir(path):
        parent = os.path.dirname(path)
        while not os.path.isdir(parent):
            parent = os.path.dirname(parent)
        if os.access(parent, os.W_OK | os.X_OK):
            yield Finding("ok", "data", f"{path} is made at the first start")
        else:
            yield Finding("fail", "data", f"{path} is not there, and {_me()} may not write to {parent}",
                          f"sudo install -d -o {_me()} {path}")  # fmt: skip
        path = parent
    else:
        yield from _owner(path, settings.node)
    yield from _space(path, settings.log.free_floor_bytes)
    kind = filesystem(path)
    if kind in _UNFIT:
        yield Finding("warn", "data", f"{path} lies on {kind}, which {_UNFIT[kind]}",
                      "Set data_dir to a folder on a disk or a card (ext4, xfs, btrfs, f2fs).")  # fmt: skip
    elif kind:
        yield Finding("ok", "data", f"{path} lies on {kind}")


def _owner(path: str, node: str) -> Iterator[Finding]:
    found = os.stat(path)
    owner = _name(found.st_uid)
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        yield Finding("fail", "data", f"{path} belongs to {owner}, and {_me()} may not write there",
                      f"Run this as {owner} (sudo -u {owner} headwater doctor), or chown it.")  # fmt: skip
        return
    try:
        whose = read_node(RealDisk(), f"{path}/node")
    except UserError as error:
        yield Finding("fail", "data", error.what, error.hint)
        return
    except OSError as error:
        yield Finding("fail", "data", f"{path}/node cannot be read: {error.strerror}",
                      f"sudo chown -R {owner} {path}")  # fmt: skip
        return
    if whose is not None and whose != node:
        yield Finding("fail", "data", f"{path} belongs to node “{whose}”, and this node is “{node}”",
                      "Give each node a data_dir of its own, or set node to the directory's name.")  # fmt: skip
        return
    foreign = next(
        (entry.path for entry in _entries(path) if entry.stat(follow_symlinks=False).st_uid != found.st_uid), None
    )
    if foreign is not None:
        yield Finding("warn", "data", f"{foreign} does not belong to {owner} as {path} does",
                      f"sudo chown -R {owner} {path}")  # fmt: skip
    else:
        yield Finding("ok", "data", f"{path} belongs to {owner}")


def _entries(path: str) -> Iterator[os.DirEntry[str]]:
    for folder in (path, f"{path}/log", f"{path}/node"):
        if os.path.isdir(folder):
            with os.scandir(folder) as found:
                yield from found


def _space(path: str, floor_bytes: int) -> Iterator[Finding]:
    disk = shutil.disk_usage(path)
    said = f"{words.size(disk.free)} of {words.size(disk.total)} free"
    floor = min(floor_bytes, disk.total // 20)
    if disk.free < max(floor, min(DISK_LOW_BYTES, disk.total // 20)):
        yield Finding("fail", "data", f"{said}: below the floor of {words.size(floor)} the oldest readings go",
                      "Make room, or set [log] retention_bytes.")  # fmt: skip
    elif disk.free < 4 * floor:
        yield Finding("warn", "data", f"{said}: at {words.size(floor)} the oldest readings go", "Make room.")
    else:
        yield Finding("ok", "data", said)


def filesystem(path: str) -> str:
    """The kind of file system that a path lies on, as the kernel names it; "" where it cannot be told."""
    path, best, kind = os.path.realpath(path), "", ""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            rows = [line.split(" - ") for line in file]
    except OSError:
        return ""
    for before, after in rows:
        mount = before.split(" ")[4].replace("\\040", " ")
        inside = path == mount or path.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, after.split(" ")[0]
    return kind


# --- clock


def _clock() -> Iterator[Finding]:
    now = time.time() * 1000
    if now < VERSION_DATE_MS:
        day = time.strftime("%Y-%m-%d", time.gmtime(now / 1000))
        then = "Set it, and let NTP keep it: sudo timedatectl set-ntp true"
        yield Finding("fail", "clock", f"the clock says {day}, which is past", then)
        return
    trusted = clock_trusted()
    if trusted is None:
        yield Finding("warn", "clock", "the kernel does not say whether the clock is synchronised")
    elif trusted:
        yield Finding("ok", "clock", "synchronised")
    else:
        said = "not synchronised: a step of it puts readings into the wrong windows"
        yield Finding("warn", "clock", said, "sudo timedatectl set-ntp true, or add a clock module.")


# --- what comes in


def _intake(settings: Settings) -> Iterator[Finding]:
    mqtt = settings.mqtt
    if mqtt is None:
        if settings.role == "edge" and not settings.reads_elsewhere:
            said = "this edge takes nothing in: there is no [mqtt], [[mqtt_client]], [[serial]] or [[modbus]]"
            yield Finding("warn", "mqtt", said, 'Add [mqtt] with listen = "0.0.0.0:1883".')
        return
    try:
        users = read_users(mqtt.users_file or f"{settings.data_dir}/node/users")
    except UserError as error:
        missing = not mqtt.users_file and not os.path.exists(f"{settings.data_dir}/node/users")
        if not missing:
            yield Finding("fail", "mqtt", error.what, error.hint)
            return
        users = {}
    names = sorted(name for name, user in users.items() if "mqtt" in user.purposes)
    host = parse_address(mqtt.listen, default_port=1883)[0]
    if is_loopback(host):
        yield Finding("ok", "mqtt", f"{mqtt.listen}: programs on this machine only",
                      'For devices: listen = "0.0.0.0:1883", then `headwater user add NAME --mqtt`.')  # fmt: skip
    elif names:
        yield Finding("ok", "mqtt", f"{mqtt.listen}, for {words.count(len(names), 'user')}")
    else:
        said = f"listen = “{mqtt.listen}”, but it stays on loopback until there is a user: anybody could publish"
        yield Finding("warn", "mqtt", said, "headwater user add NAME --mqtt --generate")


# --- serial ports


def _ports(settings: Settings) -> Iterator[Finding]:
    for port in [*(line.port for line in settings.serial), *(bus.port for bus in settings.modbus if bus.port)]:
        yield _port(port)


def _port(path: str) -> Finding:
    try:
        found = os.stat(path)
    except OSError as error:
        there = sorted(os.listdir("/dev/serial/by-id")) if os.path.isdir("/dev/serial/by-id") else []
        then = f"Ports that are here: {', '.join(there)} (in /dev/serial/by-id)." if there else "Is it plugged in?"
        return Finding("fail", "serial", f"{path}: {error.strerror}", then)
    if not stat.S_ISCHR(found.st_mode):
        return Finding("fail", "serial", f"{path} is no device", "Name a port, best one in /dev/serial/by-id.")
    if not os.access(path, os.R_OK | os.W_OK):
        group = _group(found.st_gid)
        said = f"{path} belongs to {_name(found.st_uid)}:{group}, and {_me()} may not open it"
        then = f"sudo usermod -aG {group} {_me()}, then sign in again (or restart the service)."
        return Finding("fail", "serial", said, then)
    if path.startswith(("/dev/ttyUSB", "/dev/ttyACM")):
        return Finding("warn", "serial", f"{path} may be another port after the next start",
                       "Name it by its link in /dev/serial/by-id.")  # fmt: skip
    return Finding("ok", "serial", path)


# --- certificates


def _certificates(settings: Settings) -> Iterator[Finding]:
    if settings.mqtt is not None and settings.mqtt.tls is not None:
        yield from _certificate(settings.mqtt.tls, "[mqtt.tls]", ask=bool(settings.mqtt.tls.client_ca_file))
    for number, listener in enumerate(settings.kafka.listeners, 1):
        if listener.protocol.endswith("SSL"):
            where = f"[[kafka.listeners]] number {number}"
            yield from _certificate(listener, where, ask=listener.protocol == "SSL")


def _certificate(settings: ServerTlsSettings, where: str, *, ask: bool) -> Iterator[Finding]:
    tls = ServerTls(settings, where, ask=ask)
    tls.refresh()
    if tls.problem is not None:
        yield Finding("fail", "certificate", tls.problem, "docs/security.md shows how to make one.")
        return
    for warning in tls.warnings:
        yield Finding("warn", "certificate", warning)
    left = tls.days_left()
    if left is not None and left < 0:
        yield Finding("fail", "certificate", f"{where}: it ended {-left} days ago", "Put a new one in its place.")
    elif left is not None and left < WARN_DAYS:
        yield Finding("warn", "certificate", f"{where}: it ends in {words.count(left, 'day')}",
                      "Put a new one in its place; it is read without a restart.")  # fmt: skip
    elif left is not None:
        yield Finding("ok", "certificate", f"{where}: good for {words.count(left, 'day')}")


# --- names


def _me() -> str:
    return getpass.getuser()


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
