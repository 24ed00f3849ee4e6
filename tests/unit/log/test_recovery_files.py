"""Recovery of what lies beside the batches: indexes, the chain, leader epochs, the small files of the node."""

from __future__ import annotations

import pytest

from gateway.log.recovery import Outcome
from headwater.disk import ForgetfulDisk
from tests.support.damaged_logs import bases, filled, outcomes
from tests.support.logs import DATA, append, open_log, overwrite, read_all, segment_path


@pytest.mark.parametrize("suffix", [".index", ".timeindex"])
@pytest.mark.parametrize("damage", ["missing", "cut", "nonsense"])
def test_an_index_that_is_missing_or_damaged_is_rebuilt_to_the_same_bytes(suffix: str, damage: str) -> None:
    disk = ForgetfulDisk()
    _, log = filled(disk)
    expected = read_all(log)
    path = segment_path(bases(disk)[1], suffix)
    before = disk.read_file(path)
    assert before
    if damage == "missing":
        disk.remove(path)
        disk.sync_directory(f"{DATA}/log/t-0")
    else:
        overwrite(disk, path, before[:-1] if damage == "cut" else before[::-1])
    store, log = open_log(disk)
    assert outcomes(store) == [Outcome.INDEX_REBUILT]
    assert disk.read_file(path) == before
    assert read_all(log) == expected


def test_the_chain_survives_restarts_rolls_and_a_lost_chain_file() -> None:
    disk = ForgetfulDisk()
    _, log = filled(disk)
    expected = {offset: log.chain_at(offset) for offset in range(0, 121, 2)}
    assert None not in expected.values()
    disk.power_cut()
    _, log = open_log(disk)
    assert {offset: log.chain_at(offset) for offset in expected} == expected
    disk.remove(f"{DATA}/node/chain/t-0")
    disk.sync_directory(f"{DATA}/node/chain")
    _, log = open_log(disk)
    assert log.chain_at(120) == expected[120]


@pytest.mark.parametrize("text", [b"0\nxx\n0 00\n", b"0\n1\n0 10000000000000000\n", b"0\n1\n0 -1\n", b"0\n1\n-5 1\n"])
def test_a_damaged_chain_file_stops_no_start(text: bytes) -> None:
    disk = ForgetfulDisk()
    filled(disk, 2, close=True)
    overwrite(disk, f"{DATA}/node/chain/t-0", text)
    _, log = open_log(disk)
    append(log, b"goes on")


@pytest.mark.parametrize(
    "name",
    [
        "log/recovery-point-offset-checkpoint",
        "log/log-start-offset-checkpoint",
        "log/meta.properties",
        "log/t-0/leader-epoch-checkpoint",
        "log/t-0/partition.metadata",
        "node/chain/t-0",
        "node/identity.json",
        "node/topics.json",
    ],
)
def test_a_small_file_on_a_bad_sector_stops_no_start(name: str) -> None:
    disk = ForgetfulDisk()
    _, log = filled(disk, close=True)
    expected = read_all(open_log(disk)[1])
    disk.power_cut()
    assert disk.exists(f"{DATA}/{name}")
    disk.bad_files.add(f"{DATA}/{name}")
    store, log = open_log(disk)
    assert read_all(log) == expected
    append(log, b"goes on")
    store.flush_now()
    store.close()


@pytest.mark.parametrize("text", [b"", b"0\n1\n", b"0\n2\n0 0\n0 1\n", b"\xff"])
def test_lost_leader_epochs_are_told_by_the_batches_and_never_go_back(text: bytes) -> None:
    disk = ForgetfulDisk()
    store, log = open_log(disk)
    for epoch in (1, 2):
        append(log, b"old")
        assert log.begin_epoch() == epoch
    append(log, b"new")
    store.flush_now()
    store.close()
    overwrite(disk, f"{DATA}/log/t-0/leader-epoch-checkpoint", text)
    _, log = open_log(disk)
    assert log.epochs == [(0, 0), (1, 1), (2, 2), (3, 3)]
