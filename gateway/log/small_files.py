"""The small files of a data directory that check themselves: whether each is whole, and what becomes of it if not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterator
from fnmatch import fnmatchcase
from typing import NamedTuple

from gateway.log import checkpoints, clean_stop
from gateway.log.aborted_sums import AbortedSums
from gateway.log.arrivals import decode_arrivals
from gateway.log.chain import decode_anchors
from gateway.log.faults import FILE, Fault
from gateway.log.rewritten import Rewritten
from headwater.disk import Disk, read_checked
from headwater.errors import UNREADABLE, HeadwaterError
from headwater.sealed import copy_of, mend_sealed, unseal

_FOLDERS = ("log", "node", "node/aborted", "node/chain", "node/rewritten")


class SmallFile(NamedTuple):
    """`pattern` is its path below the data directory; `check` raises `UNREADABLE` or one of our errors for damage.

    `then` is what a start makes of a damaged one, `twin` where the same lies again. `spare`: it is as good as none.
    """

    pattern: str
    check: Callable[[bytes], object]
    then: str
    twin: str = ""
    spare: bool = False


def twice(path: str, then: str) -> tuple[SmallFile, SmallFile]:
    """One that `headwater.sealed` keeps, and its copy."""
    return SmallFile(path, unseal, then, twin=copy_of(path)), SmallFile(copy_of(path), unseal, then, twin=path)


LOG_FILES = (
    *(
        SmallFile(f"log/{name}", checkpoints.decode_offsets, "a start makes it again")
        for name in (checkpoints.RECOVERY_POINTS, checkpoints.HIGH_WATERMARKS, checkpoints.LOG_STARTS)
    ),
    SmallFile(f"log/{checkpoints.CLEANED}", checkpoints.decode_offsets, "topics are compacted again"),
    SmallFile(f"log/{checkpoints.META_PROPERTIES}", checkpoints.decode_properties, "a start makes it again"),
    *twice("node/identity.json", "a start makes it again"),
    *twice("node/topics.json", "a start finds the topics again, without their settings"),
    *twice("node/expired.json", "what has expired is counted from 0 again"),
    SmallFile("node/aborted/*", AbortedSums.decode, "transaction indexes are taken as they are", spare=True),
    SmallFile("node/chain/*", decode_anchors, "the history before what is written next is not proven"),
    SmallFile("node/rewritten/*", Rewritten.decode, "compacted segments are taken as they are", spare=True),
    SmallFile(f"node/{clean_stop.FILE}", clean_stop.decode, "a start reads every log"),
    SmallFile("node/arrivals", decode_arrivals, "the age of segments begins anew", spare=True),
)


def check_files(disk: Disk, data_dir: str, kinds: Collection[SmallFile] = LOG_FILES) -> Iterator[Fault]:
    """A fault for each file that is damaged; one that is not there is none. Raises `OSError`."""
    bad = _damaged(disk, data_dir, kinds)
    for relative, (kind, what) in bad.items():
        then = "the other copy counts" if _has_twin(disk, data_dir, kind, bad) else kind.then
        yield Fault(FILE, f"{data_dir}/{relative}", -1, -1, -1, f"{what}; {then}")


def mend_files(disk: Disk, data_dir: str, kinds: Collection[SmallFile] = LOG_FILES) -> Iterator[str]:
    """On a node that is stopped: the good copy in the place of a bad one; what is as good as none is removed.

    Says what was done. Raises `OSError`.
    """
    bad = _damaged(disk, data_dir, kinds)
    for relative, (kind, what) in bad.items():
        if kind.spare:
            disk.remove(f"{data_dir}/{relative}")
            yield f"{data_dir}/{relative}: {what}: removed, {kind.then}"
        elif kind.check is unseal and _has_twin(disk, data_dir, kind, bad):
            good = f"{data_dir}/{kind.twin}"
            mend_sealed(disk, min(f"{data_dir}/{relative}", good, key=len), unseal(disk.read_file(good)))
            yield f"{data_dir}/{relative}: {what}: made again from the other copy"


def _damaged(disk: Disk, data_dir: str, kinds: Collection[SmallFile]) -> dict[str, tuple[SmallFile, str]]:
    """Path below the data directory -> its kind, and what is wrong with it."""
    bad = {}
    for folder in _FOLDERS:
        for name in disk.names(f"{data_dir}/{folder}"):
            relative = f"{folder}/{name}"
            kind = next((each for each in kinds if fnmatchcase(relative, each.pattern)), None)
            if kind is not None and not name.endswith(".tmp"):
                try:
                    kind.check(read_checked(disk, f"{data_dir}/{relative}"))
                except FileNotFoundError:
                    continue  # it has gone meanwhile
                except (*UNREADABLE, HeadwaterError) as error:
                    bad[relative] = kind, error.what if isinstance(error, HeadwaterError) else str(error)
    return bad


def _has_twin(disk: Disk, data_dir: str, kind: SmallFile, bad: Container[str]) -> bool:
    return bool(kind.twin) and kind.twin not in bad and disk.exists(f"{data_dir}/{kind.twin}")
