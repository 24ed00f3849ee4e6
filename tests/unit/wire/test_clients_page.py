"""The table of served APIs in docs/kafka-clients.md against what is served."""

from __future__ import annotations

from gateway.wire.schema import BY_KEY, SERVED, ApiKey
from tests.support.tree import ROOT


def test_the_page_names_each_api_with_its_versions() -> None:
    page = (ROOT / "docs" / "kafka-clients.md").read_text()
    table = page.partition("## What is served")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| ")][1:]
    told = {
        name.strip(): versions.replace("(0–2 are offered and refused)", "").strip()
        for names, ranges in rows
        for name, versions in zip(names.split("·"), ranges.split("·"), strict=True)
    }
    assert told == {BY_KEY[api].name: f"{SERVED[api][0]}–{SERVED[api][1]}" for api in ApiKey}
