from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from headwater.errors import UserError
from headwater.resources import read_config
from headwater.settings.group import load_group
from processors.group.settings import GroupSettings

GOOD = 'name = "farm"\nbootstrap_servers = "b1:9092,b2:9092"\nrules = ["wind-farm"]\n'


def load(folder: Path, text: str) -> GroupSettings:
    file = folder / "process.toml"
    file.write_text(text)
    return load_group(str(file), environ={})


def test_the_shipped_file_is_good(tmp_path: Path) -> None:
    assert load(tmp_path, read_config("process.toml")).changelog == "wind-farm-changelog"


def test_a_password_is_read_from_its_file_and_paths_stand_against_the_folder(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("secret\n")
    text = 'security_protocol = "SASL_SSL"\nsasl_username = "p"\nsasl_password_file = "pw"\ntls_ca_file = "ca.pem"\n'
    client = load(tmp_path, GOOD + text).client()
    assert client["sasl.password"] == "secret"
    assert client["ssl.ca.location"] == str(tmp_path / "ca.pem")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD + "comit_every_ms = 5\n", ":4: unknown key “comit_every_ms”; did you mean “commit_every_ms”?"),
        (GOOD.replace("b1:9092", "b1:nine"), ":2: bootstrap_servers:"),
        (GOOD.replace("wind-farm", "wind-frm"), ":3: rules: “wind-frm” is not shipped"),
        (GOOD.replace("wind-farm", "mine.toml"), ":3: rules: there is no file"),
        (GOOD.replace('["wind-farm"]', "[]"), ":3: rules: there is nothing to do"),
        (
            GOOD + "commit_every_ms = 2000\ntransaction_timeout_ms = 2000\n",
            ":5: transaction_timeout_ms: the cluster would",
        ),
        (GOOD + 'sasl_username = "p"\n', "signs nobody in"),
        ("rules = []\n", "needs the key “name”"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path, text)
    assert said in caught.value.what


def test_every_key_is_described() -> None:
    text = (Path(__file__).parents[3] / "docs" / "processors.md").read_text()
    for field in msgspec.structs.fields(GroupSettings):
        assert f"`{field.name}`" in text, field.name
