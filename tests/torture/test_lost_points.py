"""Power cuts in a start that finds no recovery points and holes in logs: the start after it drops nothing either."""

from __future__ import annotations

from gateway.log.checkpoints import RECOVERY_POINTS
from tests.torture.crashes import each_cut
from tests.torture.damage import DATA, on, open_store, put, views_of
from tests.torture.simulated_os import Crash, SimulatedOs

TOPICS = ("a", "b")


def test_the_start_after_one_that_ended_halfway_serves_what_lies_behind_holes() -> None:
    broken = on(with_holes())
    whole = on(broken.files())
    wanted = views_of(open_store(whole.disk()))
    assert [[offset for offset, *_ in wanted[topic][0]] for topic in TOPICS] == [
        [*range(5), *range(6, 12), *range(16, 20)],
        [*range(4), *range(8, 20)],
    ]
    cuts = 0
    for cuts, (where, left) in enumerate(each_cut(lambda simulated: open_store(simulated.disk()), broken)):  # noqa: B007
        assert views_of(open_store(left.disk())) == wanted, where
    assert cuts > 100


def with_holes() -> dict[str, bytes]:
    """Two logs of five segments with four records each, on a node that was killed; a damaged batch, lost segments."""
    simulated = SimulatedOs()
    store = open_store(simulated.disk())
    for topic in TOPICS:
        log = store.create_topic(topic).partitions[0]
        for number in range(20):
            if number % 4 == 0:
                log.roll_now()
            put(log, b"%d" % number)
        store.flush_now()
    files = simulated.after_crash(Crash.KEEP).files()
    damaged = f"{DATA}/log/a-0/{4:020d}.log"
    data = bytearray(files[damaged])
    data[len(data) // 4 + 65] ^= 1
    files |= {damaged: bytes(data), f"{DATA}/log/{RECOVERY_POINTS}": b"0\n"}
    del files[f"{DATA}/log/a-0/{12:020d}.log"], files[f"{DATA}/log/b-0/{4:020d}.log"]
    return files
