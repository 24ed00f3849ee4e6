"""`headwater log`: look at a data directory's files, check them, mend them."""

from __future__ import annotations

import os
import sys
from typing import Any

from headwater.cli import words
from headwater.errors import UserError

GOOD, FAULTY = 0, 1


def verify(folder: str | None, config: str | None, *, as_json: bool) -> int:
    """Print what `gateway.log.verify` finds; returns 0 when nothing is damaged, 1 when something is."""
    import msgspec

    from gateway.log.faults import TAIL
    from gateway.log.small_files import check_files
    from gateway.log.verify import verify_data
    from headwater.cli.log_files import NODE_FILES
    from headwater.disk import RealDisk

    faulty = False
    batches = size = 0
    disk, folder = RealDisk(), data_dir(folder, config)
    for one in verify_data(disk, folder):
        faulty = faulty or one.damaged
        batches, size = batches + one.batches, size + one.bytes
        if as_json:
            _print(msgspec.json.encode(one._asdict() | {"faults": [each._asdict() for each in one.faults]}).decode())
            continue
        verdict = "DAMAGED" if one.damaged else "good"
        segments = words.count(one.segments, "segment")
        _print(
            f"{verdict:8}{one.topic}-{one.partition}  {one.start:,} to {one.end:,}, {segments}, {words.size(one.bytes)}"
        )
        for fault in one.faults:
            mark = " " if fault.kind == TAIL else "!"
            _print(f"  {mark} {fault.path}: {_where(fault)}: {fault.detail}")
    for fault in check_files(disk, folder, NODE_FILES):
        faulty = True
        _print(
            msgspec.json.encode({"faults": [fault._asdict()]}).decode()
            if as_json
            else f"DAMAGED {fault.path}: {_where(fault)}: {fault.detail}"
        )
    if not as_json:
        _print(f"{words.count(batches, 'batch', 'batches')} checked, {words.size(size)}")
        if faulty:
            _print("`headwater log repair` puts damage into quarantine and serves the rest; stop the node first.")
    return FAULTY if faulty else GOOD


def _where(fault: Any) -> str:
    text = str(fault.kind)
    if 0 <= fault.first < fault.end:
        text += f", offsets {fault.first:,} to {fault.end - 1:,}"
    if fault.position >= 0:
        text += f", byte {fault.position:,}"
    return text


def dump(path: str, *, records: bool, as_json: bool) -> int:
    """Print a file's rows; returns 0 when all could be read, 1 when something in it is bad."""
    import msgspec

    from gateway.log.dump import dump_file
    from headwater.disk import RealDisk

    bad = False
    try:
        for row in dump_file(RealDisk(), path, records=records):
            bad = bad or "bad" in row
            if as_json:
                _print(msgspec.json.encode(row).decode())
            else:
                indent = "    " if "key" in row else ""
                _print(indent + "  ".join(f"{name} {_show(value)}" for name, value in row.items()))
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"cannot read {path}: {what}") from None
    return FAULTY if bad else GOOD


def _show(value: Any) -> str:
    return "yes" if value is True else "null" if value is None else str(value)


def repair(folder: str | None, config: str | None) -> int:
    """Mend what verify finds; returns 0 when all is well after it, 1 when something is left."""
    from gateway.log.faults import TAIL
    from gateway.log.lock import DirectoryLock
    from gateway.log.repair import repair as mend
    from gateway.log.small_files import check_files, mend_files
    from gateway.log.verify import verify_data
    from headwater.cli.log_files import NODE_FILES
    from headwater.clock import SystemClock
    from headwater.disk import RealDisk

    disk, folder = RealDisk(), data_dir(folder, config)
    found = list(verify_data(disk, folder))
    small = list(check_files(disk, folder, NODE_FILES))
    mended = mend(disk, folder, found, clock=SystemClock())
    done = []
    for one in mended:
        offsets = (
            f", offsets {one.first_offset:,} to {one.end_offset - 1:,}" if one.end_offset > one.first_offset else ""
        )
        done.append(f"{one.topic}-{one.partition}: {one.outcome.value}{offsets}: {one.detail}")
    still = {fault.path for fault in check_files(disk, folder, NODE_FILES)}
    done += [
        f"{fault.path}: {fault.detail.partition(';')[0]}: made again" for fault in small if fault.path not in still
    ]
    with DirectoryLock(os.path.join(folder, "node", "lock")):
        done += mend_files(disk, folder, NODE_FILES)
    touched = {(one.topic, one.partition) for one in mended}
    touched |= {(one.topic, one.partition) for one in found if one.damaged}
    again = verify_data(disk, folder, touched)
    faults = [fault for one in again for fault in one.faults if fault.kind != TAIL]
    faults += check_files(disk, folder, NODE_FILES)
    rest = [f"left as it is: {fault.path}: {_where(fault)}: {fault.detail}" for fault in faults]
    for line in [*done, *rest] or ["nothing to mend"]:
        _print(line)
    return FAULTY if rest else GOOD


def data_dir(folder: str | None, config: str | None) -> str:
    """The data directory that a command means, absolute. Raises `UserError`."""
    if folder is None:
        from headwater.cli.find import find_node

        folder = find_node(config).data_dir
    folder = os.path.abspath(folder)
    if not os.path.isdir(os.path.join(folder, "log")):
        raise UserError(f"{folder} is no data directory: it has no folder “log”", hint="Name what data_dir is set to.")
    return folder


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
