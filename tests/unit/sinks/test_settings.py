from __future__ import annotations

from pathlib import Path

import pytest

from headwater.errors import UserError
from headwater.settings.load import load_settings, masked

HEAD = 'node = "n-1"\n[influx]\nurl = "http://db:8086"\nbucket = "b"\n'


def load(folder: Path, text: str) -> str:
    file = folder / "headwater.toml"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        load_settings(str(file), environ={})
    return str(error.value)


def test_the_section_brings_a_work_process_and_its_token_stays_unseen(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    (tmp_path / "headwater.toml").write_text(HEAD + 'token_file = "token"\n')
    loaded = load_settings(str(tmp_path / "headwater.toml"), environ={})
    assert loaded.settings.wants_work
    assert loaded.settings.influx is not None
    assert loaded.settings.influx.token == "s3cret"
    assert loaded.settings.influx.aggregates_tags == {
        "node": "{node}",
        "device": "{device}",
        "rule": "{rule}",
        "shift": "{shift}",
    }
    assert "s3cret" not in str(masked(loaded))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('readings_measurement = "{sensor}"', "holds {sensor}; it may hold {node}, {device}"),
        ('readings_measurement = "{node"', "“{node”"),
        ('readings_tags = { node = "{node}" }', "neither readings_measurement nor readings_tags holds {device}"),
        ('aggregates_tags = { group = "{node}/{device}" }', "nor aggregates_tags holds {rule}: points would collide"),
        ('aggregates_field = "{field}"', "aggregates_field must hold {aggregate}"),
        ('readings_field = "{field:>9}"', "it may hold {field}"),
        ("topics = []", "topics is empty"),
        ('topics = ["alerts"]', "influx.topics"),
        ('readings_tags = { "" = "{node}{device}" }', "must not be empty"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, line: str, said: str) -> None:
    assert said in load(tmp_path, HEAD + line)


def test_an_address_that_is_none_is_named(tmp_path: Path) -> None:
    assert "“db:8086” is no address" in load(tmp_path, 'node = "n-1"\n[influx]\nurl = "db:8086"\nbucket = "b"\n')
