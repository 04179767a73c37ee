"""The blocks of docs/tutorial.md and docs/programs.md, run in their order, with what they say they print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.company_processes import RunningCompany

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(
    r"<!-- (file|run|install|start)(?:: ([^ ]+)[^>]*)? -->\n```(\w+)\n(.*?)^```\n(?:```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL
)
LIMIT_S = 240


def blocks(page: str) -> list[tuple[str, str, str, str]]:
    """What to do, file name, content, and what is printed."""
    found = [(kind, name, content, said) for kind, name, _, content, said in BLOCK.findall((ROOT / "docs" / page).read_text("utf-8"))]
    fences = len(re.findall(r"^```(?:sh|python)$", (ROOT / "docs" / page).read_text("utf-8"), re.MULTILINE))
    assert len(found) == fences, f"{page} has a block that no test runs"
    return found


def run_page(page: str, folder: Path, company: RunningCompany) -> None:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("COMPANY_")}
    environ |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COMPANY_HOME": str(company.home)}
    for kind, name, content, said in blocks(page):
        if kind == "file":
            (folder / name).write_text(content)
        elif kind == "run":
            done = subprocess.run(
                ["bash", "-e", "-o", "pipefail", "-c", content],
                cwd=folder,
                env=environ,
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
                check=False,
            )
            assert (done.stdout, done.returncode) == (said, 0), f"{content}\n{done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize("page", ["tutorial.md", "programs.md"])
def test_what_the_page_says_is_what_happens(page: str, tmp_path: Path, company: RunningCompany) -> None:
    run_page(page, tmp_path, company)
