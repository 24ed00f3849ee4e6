"""The files in config/ are what `init` writes and what editors read: each must be right."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from headwater import resources
from headwater.settings.load import load_settings
from headwater.settings.model import Settings
from headwater.settings.schema import settings_schema

_COMMENTED_KEY = re.compile(r"^# (?=[a-z_]+ = )", re.MULTILINE)


def load(folder: Path, text: str) -> Settings:
    file = folder / "headwater.toml"
    file.write_text(text)
    return load_settings(str(file), environ={}, host_name="host").settings


@pytest.mark.parametrize("role", ["edge", "central"])
def test_each_annotated_configuration_loads(role: str, tmp_path: Path) -> None:
    settings = load(tmp_path, resources.read_config(f"{role}.toml"))
    assert settings.role == role
    assert settings.page is not None
    assert (settings.mqtt is not None) == (role == "edge")
    assert bool(settings.rules) == (role == "central")


@pytest.mark.parametrize("role", ["edge", "central"])
def test_what_is_commented_out_is_the_default(role: str, tmp_path: Path) -> None:
    text = resources.read_config(f"{role}.toml")
    shown = tomllib.loads(_COMMENTED_KEY.sub("", text))
    in_force = msgspec.to_builtins(load(tmp_path, text))
    compared = 0
    for section in ("log", "marks", "topics"):
        for key, value in shown.get(section, {}).items():
            assert in_force[section][key] == value, f"{section}.{key}"
            compared += 1
    assert compared


def test_the_committed_schema_is_the_types_own() -> None:
    committed = json.loads(resources.read_config("headwater.schema.json"))
    remedy = "run: headwater config schema > config/headwater.schema.json"
    assert committed == json.loads(json.dumps(settings_schema())), remedy


def test_every_key_of_the_schema_says_what_it_is() -> None:
    definitions = settings_schema()["$defs"]
    silent = [
        f"{name}.{key}"
        for name, definition in definitions.items()
        for key, member in definition["properties"].items()
        if "description" not in member and "$ref" not in json.dumps(member)
    ]
    assert silent == []
