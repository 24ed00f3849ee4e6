from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from headwater.errors import UserError
from headwater.settings.load import load_settings, masked
from headwater.settings.model import Settings
from headwater.toml.check import convert
from headwater.toml.source import Source

HOST = "shed-gateway"


class Part(msgspec.Struct, forbid_unknown_fields=True):
    address: str


class Whole(msgspec.Struct, forbid_unknown_fields=True):
    part: Part


def write(folder: Path, text: str, **snippets: str) -> str:
    file = folder / "headwater.toml"
    file.write_text(text)
    if snippets:
        (folder / "conf.d").mkdir(exist_ok=True)
        for name, snippet in snippets.items():
            (folder / "conf.d" / f"{name}.toml").write_text(snippet)
    return str(file)


def load(
    folder: Path, text: str, *, environ: dict[str, str] | None = None, host: str = HOST, **snippets: str
) -> Settings:
    return load_settings(write(folder, text, **snippets), environ=environ or {}, host_name=host).settings


def problems(
    folder: Path, text: str, *, environ: dict[str, str] | None = None, host: str = HOST, **snippets: str
) -> list[str]:
    with pytest.raises(UserError) as caught:
        load(folder, text, environ=environ, host=host, **snippets)
    return [line.removeprefix(str(folder) + "/") for line in caught.value.what.splitlines()]


def test_an_empty_file_is_an_edge_named_after_its_host(tmp_path: Path) -> None:
    settings = load(tmp_path, "")
    assert (settings.node, settings.role) == (HOST, "edge")
    assert settings.data_dir == str(tmp_path / "data")
    assert settings.mqtt is None
    assert settings.central is None
    assert not settings.wants_work


def test_a_role_sets_defaults_and_the_file_wins(tmp_path: Path) -> None:
    edge = load(tmp_path, "")
    central = load(tmp_path, 'role = "central"')
    odd = load(tmp_path, 'role = "central"\n[log]\nfsync_interval_ms = 7\n[topics]\nreadings_partitions = 3')
    assert (edge.log.fsync_interval_ms, edge.topics.readings_partitions) == (50, 1)
    assert (central.log.fsync_interval_ms, central.topics.readings_partitions) == (0, 16)
    assert (odd.log.fsync_interval_ms, odd.topics.readings_partitions) == (7, 3)


def test_snippets_merge_over_the_file_in_name_order(tmp_path: Path) -> None:
    main = '[kafka]\nlisten = "127.0.0.1:1"\nadvertised = "a:1"\n[[serial]]\nport = "/dev/a"\n'
    settings = load(
        tmp_path,
        main,
        b='[kafka]\nlisten = "127.0.0.1:3"',
        a='[kafka]\nlisten = "127.0.0.1:2"\n[[serial]]\nport = "/dev/b"',
    )
    assert settings.kafka.listen == "127.0.0.1:3"
    assert settings.kafka.advertised == "a:1"
    assert [port.port for port in settings.serial] == ["/dev/a", "/dev/b"]


def test_an_unknown_key_names_file_line_and_the_nearest(tmp_path: Path) -> None:
    assert problems(tmp_path, '[mqtt]\n\nlisen = "127.0.0.1:1883"') == [
        "headwater.toml:3: unknown key “lisen” in [mqtt]; did you mean “listen”?"
    ]


def test_an_unknown_key_in_a_snippet_names_that_file(tmp_path: Path) -> None:
    assert problems(tmp_path, "[log]\n", x="\n[log]\nfsync_interval = 1")[0].startswith(
        "conf.d/x.toml:3: unknown key “fsync_interval” in [log]; did you mean “fsync_interval_ms”?"
    )
    found = problems(tmp_path, '[[serial]]\nport = "/dev/a"', x='[[serial]]\nport = "/dev/b"\nprot = 1')
    assert found[0].startswith("conf.d/x.toml:3: unknown key “prot” in [serial[1]]; did you mean “port”?")


def test_a_key_in_the_wrong_section_is_sent_home(tmp_path: Path) -> None:
    assert "it belongs in [log]" in problems(tmp_path, "fsync_interval_ms = 1")[0]


def test_every_mistake_is_named_at_once(tmp_path: Path) -> None:
    found = problems(tmp_path, 'nod = "x"\n[log]\nfsync_interval_ms = "soon"\n[mqtt]\nlisten = 1883\n')
    assert found == [
        "headwater.toml:1: unknown key “nod”; did you mean “node”?",
        "headwater.toml:3: log.fsync_interval_ms must be a whole number, not text in quotes",
        "headwater.toml:5: mqtt.listen must be text in quotes, not a whole number",
    ]


def test_wrong_values_inside_lists_have_their_line(tmp_path: Path) -> None:
    assert problems(tmp_path, 'profiles = [\n  "wind-turbine",\n  3,\n  "x.toml",\n]') == [
        "headwater.toml:3: profiles[1] must be text in quotes, not a whole number",
        f"headwater.toml:4: profiles: there is no file {tmp_path}/x.toml",
    ]


def test_broken_toml_names_the_line(tmp_path: Path) -> None:
    assert problems(tmp_path, "node = \n")[0].startswith("headwater.toml:1: no valid TOML: Invalid value")


@pytest.mark.parametrize("name", ["raspberrypi", "localhost", "RaspberryPi"])
def test_names_that_thousands_share_are_refused(tmp_path: Path, name: str) -> None:
    (by_host,) = problems(tmp_path, "", host=name)
    (by_file,) = problems(tmp_path, f'\nnode = "{name}"')
    assert "the host name" in by_host
    assert 'write node = "' in by_host
    assert by_file.startswith("headwater.toml:2:")


def test_a_node_name_with_a_slash_is_refused(tmp_path: Path) -> None:
    assert "cannot name a node" in problems(tmp_path, 'node = "a/b"')[0]


def test_the_environment_fills_in_text_and_numbers(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        'node = "${SITE}-1"\n[log]\nfsync_interval_ms = "${MS}"\n[kafka]\nadvertised = "$${SITE}:1"',
        environ={"SITE": "north", "MS": "5"},
    )
    assert settings.node == "north-1"
    assert settings.log.fsync_interval_ms == 5
    assert settings.kafka.advertised == "${SITE}:1"


def test_a_missing_variable_is_named(tmp_path: Path) -> None:
    assert problems(tmp_path, 'node = "n"\n[kafka]\nadvertised = "${NOWHERE}:1"') == [
        "headwater.toml:3: the environment has no NOWHERE; set it, or write the value here"
    ]


def test_a_value_may_come_from_a_file_and_is_never_shown(tmp_path: Path) -> None:
    (tmp_path / "address").write_text("secret.example:1\n")
    file = write(tmp_path, '[kafka]\nadvertised_file = "address"')
    loaded = load_settings(file, environ={}, host_name=HOST)
    assert loaded.settings.kafka.advertised == "secret.example:1"
    assert masked(loaded)["kafka"]["advertised"] == "********"
    assert masked(loaded)["kafka"]["listen"] == loaded.settings.kafka.listen


def test_a_secret_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, '[kafka]\nadvertised_file = "nowhere"')
    assert (
        found == f"headwater.toml:2: kafka.advertised_file: cannot read {tmp_path}/nowhere: No such file or directory"
    )


def test_a_bad_address_has_its_line(tmp_path: Path) -> None:
    assert problems(tmp_path, '[kafka]\nlisten = "here"')[0].startswith("headwater.toml:2: kafka.listen: “here” is no")


def test_two_listeners_on_one_port_are_refused(tmp_path: Path) -> None:
    assert "both port 1234" in problems(tmp_path, '[kafka]\nlisten = ":1234"\n[mqtt]\nlisten = ":1234"')[0]
    both = problems(tmp_path, '[[kafka.listeners]]\nlisten = ":1234"\n[mqtt]\n[mqtt.tls]\nlisten = ":1234"')
    assert "mqtt.tls.listen and kafka.listeners[0].listen are both port 1234" in both[0]


def test_profiles_are_names_or_files(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("")
    assert load(tmp_path, 'profiles = ["mine.toml"]').profiles == (str(tmp_path / "mine.toml"),)
    assert "there is no file" in problems(tmp_path, 'profiles = ["gone.toml"]')[0]
    assert "is not shipped" in problems(tmp_path, 'rules = ["no-such-rule"]')[0]


def test_a_file_that_is_not_there_points_to_init(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="headwater init edge"):
        load_settings(str(tmp_path / "none.toml"))


def test_a_missing_required_key_is_named() -> None:
    source = Source("f.toml")
    source.table = {"part": {}}
    assert convert(source, Whole) is None
    assert source.problems == ["f.toml: part needs the key “address”"]


def test_what_only_the_whole_can_tell_is_told_beside_wrong_types_and_in_the_order_of_lines(tmp_path: Path) -> None:
    text = (
        'node = "raspberrypi"\n[kafka]\nlisten = "here"\n[mqtt]\nlisten = "1883"\n'
        '[log]\nfsync_interval_ms = "soon"\nsegment_byte = 1\n[page]\nlisten = 8080\n'
    )
    found = problems(tmp_path, text, x='[central]\nbootstrap_servers = "x"\n[marks]\nevery_ms = true\n')
    assert [line.split(": ")[0] for line in found] == [
        *(f"headwater.toml:{line}" for line in (1, 3, 5, 7, 8, 10)),
        "conf.d/x.toml:4",
    ]
    assert found[2] == (
        "headwater.toml:5: mqtt.listen: “1883” is no address; write host:port, for example 127.0.0.1:1883"
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('role = "edgy"', "role: “edgy” is not known; did you mean “edge”? it is one of central, edge"),
        ('role = "x"', "role: “x” is not known; it is one of central, edge"),
        ('mqtt = "on"', "mqtt must be a section of its own, not text in quotes"),
        ("[kafka]\nadvertised = 1", "kafka.advertised must be text in quotes, not a whole number"),
        ("[topics]\nreadings_partitions = 0", "topics.readings_partitions must be a whole number >= 1"),
    ],
)
def test_wrong_values_are_told_in_words_with_what_may_stand_there(tmp_path: Path, text: str, told: str) -> None:
    [found] = problems(tmp_path, text)
    assert found.partition(": ")[2] == told


def test_a_misspelt_key_is_told_once(tmp_path: Path) -> None:
    [found] = problems(tmp_path, '[[serial]]\nprot = "/dev/ttyUSB0"')
    assert "unknown key “prot” in [serial[0]]; did you mean “port”?" in found


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ('node = "a"\nnode = "b"', "stands there already"),
        ("[log]\n[log]", "put its keys together"),
        ("node = edge-1", "strings stand in quotes"),
    ],
)
def test_the_hint_for_broken_toml_fits_it(tmp_path: Path, text: str, hint: str) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path, text)
    assert hint in caught.value.hint


def test_an_error_does_not_show_what_a_file_holds(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hush")
    [found] = problems(tmp_path, '[kafka]\nlisten_file = "secret"')
    assert "what its file says is no address" in found
    assert "hush" not in found


def test_a_file_from_an_editor_that_begins_it_with_a_mark_is_read(tmp_path: Path) -> None:
    assert load(tmp_path, '\ufeffnode = "hall"').node == "hall"


def test_only_a_node_s_missing_file_is_written_by_init(tmp_path: Path) -> None:
    with pytest.raises(UserError) as node:
        load_settings(str(tmp_path / "headwater.toml"))
    with pytest.raises(UserError) as other:
        Source("").add_file(str(tmp_path / "tanks.toml"))
    assert (node.value.hint or "").startswith("Write one with `headwater init")
    assert "init" not in (other.value.hint or "")
    assert "Check the path" in (other.value.hint or "")
