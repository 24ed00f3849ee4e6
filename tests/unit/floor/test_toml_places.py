from __future__ import annotations

import tomllib
from typing import Any

from headwater.toml.places import Path, key_lines, show_path

TEXT = '''# a comment with [brackets] and key = 1
node = "edge-1"  # why

profiles = [
  "turbine", # one
  """two
lines""",
]
[log]
fsync_interval_ms = 50
"quoted key" = {a = 1, b.c = [1, [2,
 3]]}
[[serial]]
port = '/dev/tty#1'
[serial.frame]
kind = "nmea"
[[serial]]
port = "x\\"]"
[ deep . "er" ]
when = 2026-01-01T00:00:00Z
text = """ends with a quote""""
after = true
'''


def paths_of(value: Any, path: Path = ()) -> set[Path]:
    found = {path} if path else set()
    if isinstance(value, dict):
        for key, inner in value.items():
            found |= paths_of(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found |= paths_of(inner, (*path, index))
    return found


def test_every_path_that_tomllib_sees_has_a_line() -> None:
    assert set(key_lines(TEXT)) == paths_of(tomllib.loads(TEXT))


def test_lines_are_those_of_an_editor() -> None:
    lines = key_lines(TEXT)
    assert lines[("node",)] == 2
    assert lines[("profiles", 1)] == 6
    assert lines[("log", "fsync_interval_ms")] == 10
    assert lines[("log", "quoted key", "b", "c", 1)] == 11
    assert lines[("serial", 0, "port")] == 14
    assert lines[("serial", 0, "frame", "kind")] == 16
    assert lines[("serial", 1)] == 17
    assert lines[("deep", "er", "after")] == 22


def test_windows_line_ends_count_once() -> None:
    assert key_lines("a = 1\r\nb = 2\r\n") == {("a",): 1, ("b",): 2}


def test_a_path_reads_as_people_write_it() -> None:
    assert show_path(("serial", 0, "port")) == "serial[0].port"
