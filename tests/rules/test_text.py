"""What stands in the project's files: nothing that is true on one machine only, and no link that leads nowhere."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from tests.support.tree import PARTS, ROOT, modules, texts

# Written apart, so that this file does not hold what it looks for.
INDEX_HOSTS = [
    "py" + "pi.org",
    "python" + "hosted.org",
    "repo1." + "maven.org",
    "repo.maven." + "apache.org",
    "registry." + "npmjs.org",
    "proxy." + "golang.org",
    "deb." + "debian.org",
    "crates" + ".io",
]
MACHINE_PATH = re.compile(r"(?<![\w.~*-])/(?:work|root|home/[a-z]+|Users/[A-Za-z]+)/[\w.]")


def test_no_path_of_one_machine() -> None:
    wrong = [
        f"{path}:{number}: {line.strip()[:120]}"
        for path, text in texts().items()
        for number, line in enumerate(text.splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_index_is_named() -> None:
    """Where packages come from is the reader's own setting, the lock's hashes say what they must be."""
    wrong = [f"{path}: names {host}" for path, text in texts().items() for host in INDEX_HOSTS if host in text]
    assert not wrong, "\n".join(wrong)


def test_every_exception_to_a_rule_has_its_reason_beside_it() -> None:
    told = re.compile(r"# (?:noqa: [A-Z0-9, ]+|type: ignore\[[\w, -]+\])$", re.MULTILINE)
    wrong = [
        f"{path}:{text.count(chr(10), 0, found.start()) + 1}: {found[0]} and no reason"
        for path, text in modules(*PARTS, "benchmarks").items()
        for found in told.finditer(text)
    ]
    assert not wrong, "\n".join(wrong)


def without_code(markdown: str) -> str:
    """A page's prose: fenced blocks and inline code left out, in which brackets are no links."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^(```|~~~).*?^\1", "", markdown, flags=re.DOTALL | re.MULTILINE))


def anchors(markdown: str) -> set[str]:
    """The fragments that a page's headings answer to, made as code hosts make them."""
    headings = re.findall(r"^#{1,6} +(.+?) *#*$", re.sub(r"^```.*?^```", "", markdown, flags=re.S | re.M), re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


def broken_links(path: Path, text: str) -> list[str]:
    wrong = []
    for target in re.findall(r"\]\(<?([^)\s>]+)>?(?: \"[^\"]*\")?\)", without_code(text)):
        if re.match(r"[a-z]+:", target):
            continue  # another site's page is not ours to test
        name, _, fragment = unquote(target).partition("#")
        page = (ROOT / path.parent / name).resolve() if name else ROOT / path
        if not page.exists() or not page.is_relative_to(ROOT):
            wrong.append(f"{path}: {target} leads nowhere")
        elif fragment and page.suffix == ".md" and fragment not in anchors(page.read_text(encoding="utf-8")):
            wrong.append(f"{path}: {target}: no such heading")
    return wrong


def test_links_between_pages_lead_somewhere() -> None:
    wrong = [link for path, text in texts().items() if path.suffix == ".md" for link in broken_links(path, text)]
    assert not wrong, "\n".join(wrong)
