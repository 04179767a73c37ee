"""The pages say what is true of the sources: every code explained, every message listed, every command and file they name there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from company.cli.app import root
from company.messages import MESSAGES
from tools import protocol_doc, reason_codes

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md"), *(ROOT / "examples").glob("*/README.md")])
CODE_SPAN = re.compile(r"`([^`\n]+)`")
FENCED = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_every_reason_and_error_code_is_explained() -> None:
    # each line is a row to add to docs/reasons.md
    assert [f"{use.code} ({use.kind}, {use.place}): {use.text[:80]}" for use in reason_codes.missing()] == []


def test_no_code_is_explained_that_nothing_gives_and_none_is_explained_twice() -> None:
    assert reason_codes.left_over() == []
    # sandbox-failed and the like are both a reason and a cause; a code has one row all the same
    assert [code for code, count in reason_codes.explained().items() if count > 1] == []


def test_the_scan_for_codes_finds_the_known_ones() -> None:
    found = {use.code: use.kind for use in reason_codes.uses()}
    assert found["no-sandbox"] == "UsageError"
    assert found["invariant-broken"] == "InvariantBroken"
    assert found["tus-version-wrong"] == "NotAcceptable"  # after an HTTP status
    assert found["archive-link"] == "_refused"
    assert len(found) > 200


def test_the_protocol_page_is_up_to_date() -> None:
    assert protocol_doc.PAGE.read_text("utf-8") == protocol_doc.page(), "python -m tools.protocol_doc"


def test_every_message_has_a_direction_and_stands_on_the_page() -> None:
    assert set(protocol_doc.ROUTES) == set(MESSAGES.values())
    page = protocol_doc.page()
    for code, cls in MESSAGES.items():
        assert f"### {code} {cls.__name__} (" in page
        for name, bound in cls.field_table():
            assert f"| `{name}` | {bound} |" in page
    assert "{{" not in page.replace("{{x}}", "")


def test_every_finding_of_the_doctor_has_its_chapter() -> None:
    source = "".join((ROOT / path).read_text("utf-8") for path in ("company/chief/checkup.py", "company/cli/doctor.py"))
    ids = set(re.findall(r'finding\(\s*"([a-z-]+)"', source)) | set(re.findall(r'"id": "([a-z-]+)"', source))
    chapters = set(re.findall(r"^## (\S+)$", (ROOT / "docs/doctor.md").read_text("utf-8"), re.MULTILINE))
    assert len(ids) > 5
    assert ids <= chapters


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_to_files_and_chapters_that_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if "://" in target:
            continue
        path, _, chapter = target.partition("#")
        linked = (page.parent / path) if path else page
        assert linked.exists(), f"{page.name} links to {target}"
        if chapter and linked.suffix == ".md":
            assert chapter in chapters_of(linked), f"{page.name} links to {target}"


def chapters_of(page: Path) -> set[str]:
    """Anchors as the usual hosts make them of headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_that_a_page_names_exist(page: Path) -> None:
    for path in re.findall(r"(?<![\w/.])((?:tests|company|p2p|tools|docs|requirements)/[\w/]+\.(?:py|md|txt))", page.read_text("utf-8")):
        assert (ROOT / path).exists(), f"{page.name} names {path}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_that_a_page_names_exist_with_their_options(page: Path) -> None:
    for line in command_lines(page.read_text("utf-8")):
        check_command(line)


def command_lines(text: str) -> Iterator[str]:
    """Every ``company …`` in code."""
    for block in FENCED.findall(text):
        yield from (line.removesuffix(" &") for line in block.splitlines() if line.startswith("company "))
    yield from (span for span in CODE_SPAN.findall(FENCED.sub("", text)) if re.match(r"company [a-z-]", span))


def check_command(line: str) -> None:
    """Walk the tree of commands as far as its words go, and look its options up."""
    words = shlex.split(line.replace("…", "x"), comments=True)[1:]
    command: click.Command = root
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(click.Context(command), words.pop(0))
        assert found is not None, f"there is no command {line!r}"
        command = found
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help", "--version"}
    for word in words:
        if word.startswith("-") and len(word) > 1:
            assert word.partition("=")[0] in known, f"{line!r} has no option {word}"
