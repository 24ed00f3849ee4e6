"""`[[mqtt_client]]` in a node's file: what is wrong is named with its line, what is secret is not shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headwater.app.parts import warnings
from headwater.cli.config import to_toml
from headwater.errors import UserError
from headwater.settings.load import load_settings, masked


def load(folder: Path, section: str):  # type: ignore[no-untyped-def]
    file = folder / "edge.toml"
    file.write_text(f'node = "edge-1"\n[[mqtt_client]]\n{section}')
    return load_settings(str(file), environ={"BROKER_PASSWORD": "from-env"})


def test_filters_are_texts_or_tables_with_a_qos(tmp_path: Path) -> None:
    loaded = load(tmp_path, 'address = "hall:1884"\ntopics = ["a/#", { filter = "$share/g/b/+", qos = 2 }]\n')
    [broker] = loaded.settings.mqtt_client
    assert [(each.filter, each.qos) for each in broker.subscriptions] == [("a/#", 1), ("$share/g/b/+", 2)]
    assert broker.where() == ("hall", 1884)
    assert broker.source_name == "hall:1884"
    text = to_toml(masked(loaded))
    assert '{ filter = "$share/g/b/+", qos = 2 }' in text
    (tmp_path / "shown.toml").write_text(text)
    assert load_settings(str(tmp_path / "shown.toml")).settings == loaded.settings


@pytest.mark.parametrize("password", ['password_file = "secret"', 'password = "${BROKER_PASSWORD}"'])
def test_a_password_is_read_and_never_shown(tmp_path: Path, password: str) -> None:
    (tmp_path / "secret").write_text("from-file\n")
    loaded = load(tmp_path, f'address = "hall"\ntopics = ["a"]\nuser = "edge"\n{password}\n')
    [broker] = loaded.settings.mqtt_client
    assert broker.password in ("from-file", "from-env")
    assert broker.where() == ("hall", 1883)
    assert "from-" not in json.dumps(masked(loaded))


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ('address = "hall"\ntopics = []\n', "edge.toml:4: mqtt_client[0].topics: name a topic filter"),
        ('address = "hall"\ntopics = ["a/#/b"]\n', "“a/#/b”: a topic filter with “#” elsewhere"),
        ('address = "hall"\ntopics = ["$share/g"]\n', "a shared subscription is $share/GROUP/FILTER"),
        ('address = "hall"\ntopics = ["a", "a"]\n', "“a” stands there twice"),
        ('address = "hall"\ntopics = [{ filter = "a", qos = 3 }]\n', "edge.toml:4"),
        ('address = "hall:x"\ntopics = ["a"]\n', "edge.toml:3: mqtt_client[0].address"),
        ('address = "hall"\ntopics = ["a"]\npassword = "x"\n', "a password needs a user"),
        ('address = "hall"\ntopics = ["a"]\nname = "a b"\n', "mqtt_client[0].name"),
        ('address = "hall"\ntopic = ["a"]\n', "did you mean “topics”"),
        (
            'address = "h"\ntopics = ["a"]\n[[mqtt_client]]\naddress = "h"\ntopics = ["b"]\n',
            "two brokers are called “h”",
        ),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, section: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path, section)
    assert words in caught.value.what


@pytest.mark.parametrize(
    ("address", "more", "count"),
    [("hall", "", 1), ("hall", "tls = true", 0), ("127.0.0.1", "", 0), ("localhost:1884", "", 0)],
)
def test_a_password_in_the_clear_is_warned_of(tmp_path: Path, address: str, more: str, count: int) -> None:
    section = f'address = "{address}"\ntopics = ["a"]\nuser = "edge"\npassword = "x"\n{more}\n'
    told = warnings(load(tmp_path, section).settings)
    assert len([each for each in told if "in the clear" in each]) == count
    assert not any("takes nothing in" in each for each in told)
