"""What is asked of which broker, and what becomes of the answers."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.consume.batches import Block, Fetched, no_records
from gateway.consume.fetching import ANSWER_BYTES_MIN, READY_MAX, Ask, Fetching, LostPlaceError
from gateway.log.records import NO_HEADERS, Record, encode_batch, encode_control
from gateway.wire.errors import ErrorCode, KafkaError
from gateway.wire.schema import ApiKey
from headwater.errors import PeerError

BOOTSTRAP, ONE, TWO = ("first", 9092), ("one", 9092), ("two", 9092)


def batch(offset: int, count: int, *, epoch: int = 3, producer: int = -1) -> bytes:
    records: list[Record] = [(1_000, b"k", b"%d" % (offset + row), NO_HEADERS) for row in range(count)]
    who: dict[str, Any] = {} if producer < 0 else {"producer_id": producer, "producer_epoch": 0, "transactional": True}
    return bytes(encode_batch(records, base_offset=offset, leader_epoch=epoch, base_sequence=0, **who))


def cluster(leaders: dict[int, tuple[int, int]], *, error: int = 0) -> dict[str, Any]:
    """An answer to Metadata: partition to (node, epoch)."""
    partitions = [
        {"partition_index": part, "leader_id": leader, "leader_epoch": epoch, "error_code": 0}
        for part, (leader, epoch) in leaders.items()
    ]
    brokers = [{"node_id": 1, "host": ONE[0], "port": ONE[1]}, {"node_id": 2, "host": TWO[0], "port": TWO[1]}]
    return {"brokers": brokers, "topics": [{"name": "t", "error_code": error, "partitions": partitions}]}


def records(part: int, data: bytes = b"", *, error: int = 0, aborted: Any = None) -> dict[str, Any]:
    one = {
        "partition_index": part,
        "error_code": error,
        "high_watermark": 99,
        "aborted_transactions": aborted,
        "records": memoryview(data),
    }
    return {"error_code": 0, "responses": [{"topic": "t", "partitions": [one]}]}


def epochs(part: int, epoch: int, end: int) -> dict[str, Any]:
    one = {"partition": part, "error_code": 0, "leader_epoch": epoch, "end_offset": end}
    return {"topics": [{"topic": "t", "partitions": [one]}]}


def begun(positions: dict[int, int], leaders: dict[int, tuple[int, int]], *, bytes_max: int = 1 << 20) -> Fetching:
    core = Fetching([BOOTSTRAP], bytes_max=bytes_max)
    core.assign({("t", part): at for part, at in positions.items()})
    [look] = core.asks(0.0)
    assert (look.address, look.api, look.body["topics"]) == (BOOTSTRAP, ApiKey.METADATA, [{"name": "t"}])
    assert look.body["allow_auto_topic_creation"] is False
    assert core.asks(0.0) == []
    core.answered(look, cluster(leaders), 0.0)
    return core


def fetches(core: Fetching, now: float) -> dict[tuple[str, int], Ask]:
    return {ask.address: ask for ask in core.asks(now) if ask.api is ApiKey.FETCH}


def asked(ask: Ask) -> dict[int, int]:
    [topic] = ask.body["topics"]
    return {part["partition"]: part["fetch_offset"] for part in topic["partitions"]}


def values(blocks: list[Block]) -> list[str]:
    return [(value or b"").decode() for block in blocks for value in block.values]


def test_each_leader_is_asked_for_its_partitions_from_their_positions() -> None:
    core = begun({0: 5, 1: 7, 2: 0}, {0: (1, 3), 1: (2, 3), 2: (1, 4)})
    found = fetches(core, 1.0)
    assert {address: asked(ask) for address, ask in found.items()} == {ONE: {0: 5, 2: 0}, TWO: {1: 7}}
    assert found[ONE].body["isolation_level"] == 1
    assert [part["current_leader_epoch"] for part in found[ONE].body["topics"][0]["partitions"]] == [3, 4]
    assert core.asks(1.0) == core.asks(5_000.0) == []  # one thing at a time, and nobody asks who leads for nothing


def test_the_next_fetch_leaves_before_the_last_is_taken_and_goes_on_behind_it() -> None:
    core = begun({0: 1}, {0: (1, 3)})
    core.answered(fetches(core, 1.0)[ONE], records(0, batch(0, 3) + batch(3, 2)), 2.0)
    second = fetches(core, 2.0)[ONE]
    assert asked(second) == {0: 5}
    core.answered(second, records(0, batch(5, 1)), 3.0)
    assert fetches(core, 3.0) == {}  # READY_MAX wait to be taken
    assert READY_MAX == 2
    assert values(core.take(2)) == ["1", "2"]  # whole batches, from the position on
    [block] = core.take(100)
    assert (values([block]), block.next_offset, core.ready_bytes) == (["3", "4", "5"], 6, 0)
    assert asked(fetches(core, 3.0)[ONE]) == {0: 6}
    assert core.ends == {("t", 0): 99}


def test_what_is_asked_for_and_what_lies_ready_stay_within_the_limit() -> None:
    core = begun({0: 0, 1: 0}, {0: (1, 3), 1: (2, 3)}, bytes_max=ANSWER_BYTES_MIN + 100)
    [(address, first)] = fetches(core, 1.0).items()
    assert (address, first.body["max_bytes"]) == (ONE, ANSWER_BYTES_MIN)
    core.answered(first, records(0, batch(0, 20)), 2.0)
    assert core.asks(2.0) == []  # what is left is too little to ask for
    assert len(values(core.take(100))) == 20
    assert len(fetches(core, 2.0)) == 1


def test_what_comes_for_a_partition_that_was_taken_away_is_dropped_though_it_is_back() -> None:
    core = begun({0: 0, 1: 0}, {0: (1, 3), 1: (2, 3)})
    late = fetches(core, 1.0)
    core.answered(late[TWO], records(1, batch(0, 2)), 2.0)
    core.drop([("t", 0), ("t", 1)])
    assert (core.take(100), core.ready_bytes) == ([], 0)
    core.assign({("t", 0): 50})
    core.answered(late[ONE], records(0, batch(0, 4)), 3.0)
    assert (core.take(100), core.ready_bytes, core.ends) == ([], 0, {})
    [look] = core.asks(200.0)
    core.answered(look, cluster({0: (1, 3), 1: (2, 3)}), 201.0)
    assert {address: asked(ask) for address, ask in fetches(core, 201.0).items()} == {ONE: {0: 50}}


@pytest.mark.parametrize(
    "code", [ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.UNKNOWN_LEADER_EPOCH, ErrorCode.FENCED_LEADER_EPOCH,
             ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.KAFKA_STORAGE_ERROR],
)  # fmt: skip
def test_a_broker_that_does_not_lead_any_more_is_left_for_the_one_that_does(code: ErrorCode) -> None:
    core = begun({0: 4}, {0: (1, 3)})
    core.answered(fetches(core, 1.0)[ONE], records(0, error=code), 2.0)
    assert f"reading t/0 at offset 4: {code.name}" in core.trouble
    assert core.asks(50.0) == []  # not at once again
    assert core.next_ms(50.0) == 100.0
    [look] = core.asks(101.0)
    core.answered(look, cluster({0: (1, 2)}), 102.0)  # of somebody who has not heard of the last election either
    assert fetches(core, 150.0) == {}
    [look] = core.asks(250.0)
    core.answered(look, cluster({0: (2, 4)}), 251.0)
    [(address, ask)] = fetches(core, 251.0).items()
    assert (address, asked(ask)) == (TWO, {0: 4})
    core.answered(ask, records(0, batch(4, 1, epoch=4)), 252.0)
    assert (values(core.take(9)), core.trouble) == (["4"], "")


def test_a_broker_that_is_gone_is_tried_again_with_growing_pauses_while_it_is_said_to_lead() -> None:
    core = begun({0: 0}, {0: (1, 3)})
    now, pauses = 1.0, []
    ask = fetches(core, now)[ONE]
    for _ in range(6):
        core.failed(ask, "one:9092: refused", now)
        assert core.trouble == "one:9092: refused"
        before, found = now, list[Ask]()
        while not found:
            now = core.next_ms(now)
            for look in (asks := core.asks(now)):
                if look.api is ApiKey.METADATA:
                    core.answered(look, cluster({0: (1, 3)}), now)
            found = [*(ask for ask in asks if ask.api is ApiKey.FETCH), *core.asks(now)]
        [ask] = found
        pauses.append(now - before)
    assert pauses == [100.0, 200.0, 400.0, 800.0, 1000.0, 1000.0]
    core.answered(ask, records(0), now)
    assert core.trouble == ""


def test_brokers_take_turns_at_being_asked_who_leads() -> None:
    core = Fetching([BOOTSTRAP, TWO], bytes_max=1 << 20)
    core.assign({("t", 0): 0})
    now, tried = 0.0, []
    for _ in range(4):
        [look] = core.asks(now)
        tried.append(look.address)
        core.failed(look, "refused", now)
        assert core.asks(now) == []
        now = core.next_ms(now)
    assert tried == [BOOTSTRAP, TWO, BOOTSTRAP, TWO]
    assert now == 100.0 + 200.0 + 400.0 + 800.0
    assert core.trouble == "refused"


def test_with_a_new_epoch_the_log_is_asked_where_the_one_that_was_read_ended() -> None:
    for end, kept in ((3, True), (9, True), (2, False)):
        core = begun({0: 0}, {0: (1, 3)})
        core.answered(fetches(core, 1.0)[ONE], records(0, batch(0, 3)), 2.0)
        core.answered(fetches(core, 2.0)[ONE], records(0, error=ErrorCode.NOT_LEADER_OR_FOLLOWER), 3.0)
        [look] = core.asks(200.0)
        core.answered(look, cluster({0: (2, 5)}), 201.0)
        [ask] = core.asks(201.0)
        assert (ask.address, ask.api) == (TWO, ApiKey.OFFSET_FOR_LEADER_EPOCH)
        [part] = ask.body["topics"][0]["partitions"]
        assert (part["current_leader_epoch"], part["leader_epoch"]) == (5, 3)
        if kept:
            core.answered(ask, epochs(0, 3, end), 202.0)
            assert asked(fetches(core, 202.0)[TWO]) == {0: 3}
        else:
            with pytest.raises(LostPlaceError, match=r"reading t/0 at offset 3, where the log was cut at 2") as caught:
                core.answered(ask, epochs(0, 3, end), 202.0)
            assert (caught.value.where, caught.value.position, caught.value.end) == (("t", 0), 3, 2)


def test_a_position_outside_the_log_and_what_no_time_mends_are_raised() -> None:
    core = begun({0: 4}, {0: (1, 3)})
    with pytest.raises(LostPlaceError) as caught:
        core.answered(fetches(core, 1.0)[ONE], records(0, error=ErrorCode.OFFSET_OUT_OF_RANGE), 2.0)
    assert caught.value.end is None
    for code in (ErrorCode.TOPIC_AUTHORIZATION_FAILED, ErrorCode.UNSUPPORTED_COMPRESSION_TYPE):
        core = begun({0: 4}, {0: (1, 3)})
        with pytest.raises(KafkaError, match=rf"reading t/0 at offset 4: {code.name}"):
            core.answered(fetches(core, 1.0)[ONE], records(0, error=code), 2.0)
    core = Fetching([BOOTSTRAP], bytes_max=1 << 20)
    core.assign({("t", 0): 4})
    [look] = core.asks(0.0)
    with pytest.raises(KafkaError, match="topic t: TOPIC_AUTHORIZATION_FAILED"):
        core.answered(look, cluster({}, error=ErrorCode.TOPIC_AUTHORIZATION_FAILED), 1.0)
    core = begun({0: 4}, {0: (1, 3)})
    with pytest.raises(PeerError, match="t/7, which was not asked for"):
        core.answered(fetches(core, 1.0)[ONE], records(7), 2.0)


def test_partitions_take_turns() -> None:
    core = begun({0: 0, 1: 0}, {0: (1, 3), 1: (1, 3)})
    orders = []
    for _ in range(3):
        ask = fetches(core, 1.0)[ONE]
        orders.append(list(asked(ask)))
        core.answered(ask, records(0), 1.0)
    assert orders == [[0, 1], [1, 0], [0, 1]]
    core = begun({0: 0, 1: 0}, {0: (1, 3), 1: (2, 3)})
    for part, ask in enumerate(fetches(core, 1.0).values()):
        core.answered(ask, records(part, batch(0, 1) + batch(1, 1)), 1.0)
    assert [block.partition for _ in range(4) for block in core.take(1)] == [0, 1, 0, 1]


def test_an_aborted_transaction_stays_left_out_when_its_answer_is_taken_in_parts() -> None:
    abort = encode_control(commit=False, producer_id=7, producer_epoch=0, coordinator_epoch=0, timestamp_ms=1)
    abort[0:8] = (2).to_bytes(8, "big")
    data = batch(0, 2, producer=7) + bytes(abort) + batch(3, 2, producer=7) + batch(5, 1)
    fetched = Fetched(0, data, [(7, 0)])
    assert (fetched.next_offset, fetched.leader_epoch) == (6, 3)
    seen: list[bytes | None] = []
    while not fetched.done:
        seen += fetched.take(no_records("t", 0, 0), 1).values
    assert seen == [b"3", b"4", b"5"]
