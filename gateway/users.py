"""Who may come in over the network: a file of users with salted hashes, read whole or not at all.

One line each, fields apart by one space; `#` begins a comment:

    <name> <purposes, comma-separated: mqtt, kafka> scrypt:<n>:<r>:<p>:<salt, hex>:<hash, hex>

and behind it, for the purpose kafka, one field for each mechanism of SCRAM:

    <mechanism>:<iterations>:<salt, hex>:<stored key, hex>:<server key, hex>

A line `$decoy <hex>` keeps the key from which the salts of users that there are not are made (`gateway.scram`).

Each of these lines ends with a field `crc:` and its CRC-32C, and the file with the comment `# end`: a bit that flipped
is no other user, and a file that was cut short no smaller one. Lines may be removed by hand. A file without such a
field was written before there were any.

The file must belong to its reader alone (0600). A file that is readable for others, malformed or gone lets nobody
in: every function raises `UserError` naming file and line. Hashing blocks for tens of milliseconds and 16 MB: call
`matches` in a thread.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
from typing import NamedTuple

from crc32c import crc32c

from gateway import scram
from headwater.disk import RealDisk
from headwater.errors import UserError

PURPOSES = ("kafka", "mqtt")
ANONYMOUS = "ANONYMOUS"
"""The name of who came without a credential, as in Kafka; no user may have it."""
NAME_CHARACTERS_MAX = 64
PASSWORD_BYTES_MAX = 1_024
FILE_BYTES_MAX = 4 << 20

# RFC 7914's parameters for interactive use: 16 MB, a core for about 50 ms, on a Pi 200. Each line keeps its own.
_N, _R, _P = 1 << 14, 8, 1
_MEMORY_BYTES_MAX = 64 << 20
_SALT_BYTES, _HASH_BYTES = 16, 32
_DECOY = b"$decoy "
_SUM = re.compile(rb"(.*) crc:([0-9a-f]{8})")
_END = b"# end"
_ANEW = "Remove the file and make the users again: `headwater user add NAME`."
_ONE_ANEW = "Remove the line and make the user again: `headwater user add NAME`."


class User(NamedTuple):
    """One line of the file."""

    name: str
    purposes: frozenset[str]
    n: int
    r: int
    p: int
    salt: bytes
    digest: bytes
    scram: tuple[scram.Secret, ...] = ()


class Users(NamedTuple):
    """A whole file: its users by name, and the key of what unknown ones seem to have."""

    by_name: dict[str, User]
    decoy: bytes

    def secret(self, name: str, mechanism: str) -> scram.Secret:
        """What a user of Kafka proves to know; a decoy for whoever is none."""
        user = self.by_name.get(name)
        if user is not None and "kafka" in user.purposes:
            for secret in user.scram:
                if secret.mechanism == mechanism:
                    return secret
        return scram.decoy(mechanism, name, self.decoy)


def fit_user_name(name: str) -> bool:
    """Whether a name may be a user's: it stands in topic patterns, lines and logs, so nothing that means more there."""
    return (
        0 < len(name) <= NAME_CHARACTERS_MAX
        and name.isprintable()
        and name != ANONYMOUS
        and not set(name) & set(" */+#$%:,“”\"'\\")
    )


def read_users(path: str) -> dict[str, User]:
    """The users in a file, by name. Raises `UserError` for a file that is no good, and then there are none."""
    return read_file(path).by_name


def read_file(path: str) -> Users:
    """The whole file. Raises `UserError` as `read_users` does."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with os.fdopen(handle, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode) or mode & 0o077:
                hint = f"Make it its owner's alone: chmod 600 {path}"
                raise UserError(f"the users file {path} is open to others (mode {stat.S_IMODE(mode):04o})", hint=hint)
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise UserError(
            f"the users file {path} cannot be read: {error.strerror}",
            hint="`headwater user add NAME` makes one. As long as it cannot be read, nobody may come in.",
        ) from None
    if len(data) > FILE_BYTES_MAX:
        raise UserError(f"the users file {path} is larger than {FILE_BYTES_MAX} bytes", hint="Is it another file?")
    return parse(path, data)


def parse(path: str, data: bytes) -> Users:
    """The bytes of the file at `path`. Raises `UserError` as `read_users` does."""
    users: dict[str, User] = {}
    key = b""
    summed = ended = False
    for number, whole in enumerate(data.splitlines(), 1):
        ended = whole == _END
        if not whole.strip() or whole.startswith(b"#"):
            continue
        line, has_sum = _without_sum(whole)
        summed |= has_sum
        if line.startswith(_DECOY) and not key and line.removeprefix(_DECOY).isalnum():
            key = line.removeprefix(_DECOY)
            continue
        user = _read_line(line)
        if user is None or user.name in users:
            what = "is no user" if user is None else "names a user twice"
            raise UserError(
                f"{path}:{number} {what}; nobody may come in until that is mended",
                hint=_ANEW if whole.startswith(_DECOY) else _ONE_ANEW,
            )
        users[user.name] = user
    if not data.endswith(b"\n") or not (key or users) or (summed and not (ended and key)):
        raise UserError(
            f"the users file {path} is not whole; nobody may come in until that is mended",
            hint=_ANEW,
        )
    return Users(users, key or hashlib.sha256(data).hexdigest().encode())


def _without_sum(line: bytes) -> tuple[bytes, bool]:
    """A line without its checksum, and whether it had one; b"" when that is wrong, which is no user."""
    found = _SUM.fullmatch(line)
    if found is None:
        return line, False
    return (found[1] if found[2] == b"%08x" % crc32c(found[1]) else b""), True


def _with_sum(line: str) -> str:
    return f"{line} crc:{crc32c(line.encode()):08x}"


def _read_line(line: bytes) -> User | None:
    try:
        name, purposes, secret, *more = line.decode().split(" ")
        scheme, n, r, p, salt, digest = secret.split(":")
        user = User(
            name,
            frozenset(purposes.split(",")),
            int(n),
            int(r),
            int(p),
            bytes.fromhex(salt),
            bytes.fromhex(digest),
            tuple(_read_secret(field) for field in more),
        )
    except ValueError:
        return None
    good_work = user.n > 1 and not user.n & (user.n - 1) and user.r > 0 and 0 < user.p <= 16
    if scheme != "scrypt" or not good_work or 128 * user.n * user.r > _MEMORY_BYTES_MAX:
        return None
    if len(user.salt) < _SALT_BYTES or len(user.digest) != _HASH_BYTES:
        return None
    if ("kafka" in user.purposes) != bool(user.scram):
        return None
    return user if fit_user_name(name) and user.purposes <= set(PURPOSES) else None


def _read_secret(field: str) -> scram.Secret:
    """Raises `ValueError`."""
    mechanism, iterations, salt, stored, server = field.split(":")
    secret = scram.Secret(mechanism, int(iterations), bytes.fromhex(salt), bytes.fromhex(stored), bytes.fromhex(server))
    size = hashlib.new(scram.HASHES.get(mechanism, "none")).digest_size
    good = scram.ITERATIONS_MIN <= secret.iterations <= scram.ITERATIONS_MAX and len(secret.salt) >= _SALT_BYTES
    if not good or not len(secret.stored_key) == len(secret.server_key) == size:
        raise ValueError("no credential")
    return secret


def matches(user: User | None, password: bytes) -> bool:
    """Whether a password is a user's; for a user that there is not it takes as long. Blocks: call it in a thread."""
    of = user if user is not None else _NOBODY
    given = _scrypt(password[:PASSWORD_BYTES_MAX], of.salt, of.n, of.r, of.p)
    return hmac.compare_digest(given, of.digest) and user is not None and len(password) <= PASSWORD_BYTES_MAX


def _scrypt(password: bytes, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, maxmem=2 * _MEMORY_BYTES_MAX, dklen=_HASH_BYTES)


_NOBODY = User("", frozenset(), _N, _R, _P, bytes(_SALT_BYTES), bytes(_HASH_BYTES))


def add_user(path: str, name: str, password: bytes, purposes: frozenset[str], *, replace: bool = False) -> None:
    """Write a user into the file, which is made (0600) when there is none. Raises `UserError`."""
    if not fit_user_name(name):
        raise UserError(
            f"“{name}” cannot name a user",
            hint=f"At most {NAME_CHARACTERS_MAX} printable characters without spaces, quotes and * / + # $ % : , \\",
        )
    if not 0 < len(password) <= PASSWORD_BYTES_MAX or b"\n" in password or b"\0" in password:
        raise UserError(
            "that is no password", hint=f"Give 1 to {PASSWORD_BYTES_MAX} bytes in one line, or use --generate."
        )
    users = read_file(path) if os.path.lexists(path) else Users({}, secrets.token_bytes(32).hex().encode())
    if name in users.by_name and not replace:
        raise UserError(f"there is a user “{name}” already", hint="Give a new password with --replace.")
    salt = secrets.token_bytes(_SALT_BYTES)
    proofs = (
        tuple(scram.make_secret(mechanism, password, secrets.token_bytes(_SALT_BYTES)) for mechanism in scram.HASHES)
        if "kafka" in purposes
        else ()
    )
    users.by_name[name] = User(name, purposes, _N, _R, _P, salt, _scrypt(password, salt, _N, _R, _P), proofs)
    _write(path, users)


def remove_user(path: str, name: str) -> None:
    """Take a user out of the file. Raises `UserError`."""
    users = read_file(path)
    if users.by_name.pop(name, None) is None:
        raise UserError(f"there is no user “{name}”", hint="`headwater user list` names them.")
    _write(path, users)


def _line(user: User) -> str:
    fields = [user.name, ",".join(sorted(user.purposes))]
    fields.append(f"scrypt:{user.n}:{user.r}:{user.p}:{user.salt.hex()}:{user.digest.hex()}")
    fields += [
        f"{each.mechanism}:{each.iterations}:{each.salt.hex()}:{each.stored_key.hex()}:{each.server_key.hex()}"
        for each in user.scram
    ]
    return " ".join(fields)


def _write(path: str, users: Users) -> None:
    lines = ["# Made by `headwater user add`. A user's line may be removed; hashes cannot be edited."]
    lines += map(_with_sum, [(_DECOY + users.decoy).decode(), *map(_line, users.by_name.values())])
    lines.append(_END.decode())
    folder = os.path.dirname(os.path.abspath(path))
    temporary = f"{path}.{os.getpid()}.new"
    try:
        os.makedirs(folder, exist_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
            if os.geteuid() == 0:  # an administrator adds a user for a service: the service must read it
                owner = os.stat(folder)
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        RealDisk().sync_directory(folder)
    except OSError as error:
        raise UserError(
            f"the users file {path} cannot be written: {error.strerror}", hint="Try it with sudo."
        ) from None
