"""Line protocol byte for byte, and as influxdb-client's own Point writes it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from influxdb_client import Point, WritePrecision

from gateway.consume.reader import Block
from gateway.log.records import NO_HEADERS
from processors.sinks.points import Line, Mapper, Unfit, type_of
from processors.sinks.settings import InfluxSettings

PLAIN = InfluxSettings(url="http://x:1", bucket="b")
TYPED = InfluxSettings(url="http://x:1", bucket="b", numbers="typed")
RESULT = {
    "rule": "farm_10s", "group": "edge/t-1", "start": 1000, "end": 11000, "revision": 0, "complete": True,
    "cause": "close", "count": 2, "fields": {"power": {"mean": 409.75, "max": 812.0, "count": 2}},
}  # fmt: skip


def block(value: bytes | None, *, key: bytes | None = b"edge/t-1", topic: str = "readings", time: int = 1000) -> Block:
    return Block(topic, 0, [7], [time], [key], [value], [b"\x00"], 8)


def one(record: Block, settings: InfluxSettings = PLAIN) -> Line | Unfit | None:
    (line,) = Mapper(settings).lines(record, 0, 1)
    return line


def text(record: Block, settings: InfluxSettings = PLAIN) -> str:
    line = one(record, settings)
    assert isinstance(line, Line), line
    return line.text()


def aggregate(**changes: Any) -> Block:
    return block(json.dumps(RESULT | changes).encode(), topic="aggregates", time=11000)


def test_a_reading_is_one_line() -> None:
    value = b'{"wind_speed":7.0,"power":812,"state":"run \\"1\\" \\\\","ok":true,"off":false,"none":null}'
    assert text(block(value)) == (
        'readings,device=t-1,node=edge off=false,ok=true,power=812,state="run \\"1\\" \\\\",wind_speed=7 1000'
    )
    assert "power=812i," in text(block(value), TYPED)
    assert "wind_speed=7 " in text(block(value), TYPED)


def test_special_characters_stand_escaped() -> None:
    record = block(b'{"a b":1,"c,d":2,"e=f":3,"g\\nh":4}', key="é 1,2/a=b c/d".encode(), time=-5)
    assert text(record) == r"readings,device=a\=b\ c/d,node=é\ 1\,2 a\ b=1,c\,d=2,e\=f=3,g\nh=4 -5"


def test_a_device_that_ends_in_a_backslash_does_not_escape_what_follows() -> None:
    assert text(block(b'{"a":1}', key=b"n/x\\")) == "readings,device=x\\ ,node=n a=1 1000"


def test_members_in_members_and_what_no_point_can_hold() -> None:
    mapper = Mapper(PLAIN)
    (line,) = mapper.lines(block(b'{"gps":{"lat":1.5,"lon":2},"list":[1],"big":1' + b"0" * 400 + b"}"), 0, 1)
    assert isinstance(line, Line)
    assert line.text() == "readings,device=t-1,node=edge gps.lat=1.5,gps.lon=2 1000"
    assert mapper.left_out == 2


def test_a_field_called_time_gets_a_name_that_influxdb_takes() -> None:
    assert text(block(b'{"time":1}')).split()[1] == "time_=1"


@pytest.mark.parametrize("value", [b"{}", b'{"a":null}'])
def test_a_reading_without_fields_is_no_point(value: bytes) -> None:
    assert one(block(value)) is None


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (block(b"[1]"), "no JSON object"),
        (block(b'{"a":'), "no JSON object"),
        (block(b'{"a":"\xff"}'), "no JSON object"),
        (block(None), "no JSON object"),
        (block(b'{"a":1}', key=b"nobody"), "<node>/<device>"),
        (block(b'{"a":1}', key=None), "<node>/<device>"),
        (block(b'{"a":1}', key=b"\xff/x"), "UTF-8"),
        (block(b'{"rule":1}', topic="aggregates"), "no aggregate"),
    ],
)
def test_what_cannot_be_a_point_says_why(record: Block, why: str) -> None:
    unfit = one(record)
    assert isinstance(unfit, Unfit)
    assert why in str(unfit)


def test_a_measurement_must_not_read_as_a_comment() -> None:
    settings = InfluxSettings(url="http://x:1", bucket="b", readings_measurement="{device}")
    assert isinstance(one(block(b'{"a":1}', key=b"n/#1"), settings), Unfit)
    assert text(block(b'{"a":1}', key=b"n/x 1,2=3"), settings) == r"x\ 1\,2=3,device=x\ 1\,2\=3,node=n a=1 1000"


def test_a_window_result_is_one_line_whose_identity_no_revision_changes() -> None:
    head = "aggregates,device=t-1,node=edge,rule=farm_10s "
    assert text(aggregate()) == head + (
        'cause="close",complete=true,count=2i,end=11000i,power_count=2,power_max=812,power_mean=409.75,revision=0i 1000'
    )
    late = {"power": {"mean": 1.5, "max": None, "count": 1}}
    assert text(aggregate(revision=1, cause="late", fields=late)) == head + (
        'cause="late",complete=true,count=2i,end=11000i,nulls="power.max",power_count=1,power_mean=1.5,revision=1i 1000'
    )


def test_a_later_revision_clears_the_nulls_of_the_earlier_one() -> None:
    assert 'nulls=""' in text(aggregate(revision=2))
    assert "nulls" not in text(aggregate())


def test_states_and_merged_sessions() -> None:
    fields = {"state": {"durations": {"run": 5.0, "stop": 1.5}}}
    assert "state_durations_run=5,state_durations_stop=1.5" in text(aggregate(fields=fields))
    merged = text(aggregate(revision=1, cause="merged", count=0, fields={}, merged_into=500))
    assert "count=0i" in merged
    assert "merged_into=500i" in merged


def test_names_and_times_are_settings() -> None:
    settings = InfluxSettings(
        url="http://x:1",
        bucket="b",
        readings_measurement="{node}",
        readings_tags={"turbine": "{device}", "site": "ridge"},
        readings_field="f_{field}",
        aggregates_measurement="{rule}",
        aggregates_tags={"who": "{node}:{device}"},
        aggregates_field="{aggregate} of {field}",
        aggregates_time="end",
    )
    assert text(block(b'{"a":1}'), settings) == "edge,site=ridge,turbine=t-1 f_a=1 1000"
    fields = {"power": {"mean": 1.5}}
    assert text(aggregate(fields=fields), settings) == (
        r'farm_10s,who=edge:t-1 cause="close",complete=true,count=2i,end=11000i,mean\ of\ power=1.5,revision=0i 11000'
    )


def test_a_group_that_is_no_device_stands_in_the_device_tag() -> None:
    assert text(aggregate(group="all")).startswith("aggregates,device=all,rule=farm_10s ")


NAMES = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="#{}"), min_size=1, max_size=12)
VALUES = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False), st.integers(-(1 << 62), 1 << 62), st.booleans(), NAMES
)


@given(node=NAMES, device=NAMES, fields=st.dictionaries(NAMES.filter(lambda name: name != "time"), VALUES, min_size=1))
def test_lines_equal_those_of_influxdb_client(node: str, device: str, fields: dict[str, Any]) -> None:
    node = node.replace("/", "-")
    point = Point("readings").tag("node", node).tag("device", device).time(1000, WritePrecision.MS)
    for name, value in fields.items():
        point.field(name, value)
    record = block(json.dumps(fields).encode(), key=f"{node}/{device}".encode())
    assert text(record, TYPED) == point.to_line_protocol()


def test_the_type_of_a_value() -> None:
    values = ["1", "1.5", "-2e300", "1i", "1u", '"t"', "true", "false"]
    types = ["float", "float", "float", "integer", "unsigned", "string", "boolean", "boolean"]
    assert [type_of(value) for value in values] == types


def test_the_measurement_of_a_line() -> None:
    assert Line(r"a\,b,c=d,e=f", [], 0).measurement == r"a\,b"
    assert Line("a", [], 0).measurement == "a"


def test_a_shift_is_a_tag_and_a_group_stands_where_node_and_device_do() -> None:
    base = b'"start":0,"end":10,"revision":0,"complete":true,"cause":"close","count":2,"fields":{"p":{"mean":2}}}'
    for value, head in (
        (b'{"rule":"r","group":"n/d","shift":"night",', "aggregates,device=d,node=n,rule=r,shift=night"),
        (b'{"rule":"r","group":"n/d",', "aggregates,device=d,node=n,rule=r"),
        (b'{"rule":"r","group":"site+type/north/pump",', "aggregates,device=north/pump,node=site+type,rule=r"),
    ):
        block = Block("aggregates", 0, [0], [1], [b"k"], [value + base], [NO_HEADERS], 1)
        (line,) = Mapper(PLAIN).lines(block, 0, 1)
        assert isinstance(line, Line)
        assert line.series == head
