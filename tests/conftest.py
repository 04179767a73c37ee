"""For all tests: the fast ones first, and a reason where a test cannot run on this machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

# a loaded machine is not a wrong result: no test of ours is bounded by the clock of one example
settings.register_profile("no-clock", deadline=None)
settings.load_profile("no-clock")

CHROMIUM = ("chromium", "chromium-browser")
FOLDERS = ("unit", "properties", "ports", "faults", "e2e")


def find_chromium() -> str | None:
    """Debian's chromium; $CHROMIUM names another one."""
    return os.environ.get("CHROMIUM") or next((path for name in CHROMIUM if (path := shutil.which(name))), None)


def _rank(item: pytest.Item) -> tuple[bool, bool, int]:
    """Marked slow last, the browser's after those; else by folder: pure before processes. The order within stays."""
    folder = next((part for part in Path(item.path).parts if part in FOLDERS), "unit")
    return item.get_closest_marker("browser") is not None, item.get_closest_marker("slow") is not None, FOLDERS.index(folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_rank)
    if find_chromium() is None:
        reason = "no chromium on this machine; as root on Debian: apt-get install chromium"
        for item in items:
            if item.get_closest_marker("browser") is not None:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the browser; only for tests marked ``browser``, which are skipped where there is none."""
    path = find_chromium()
    assert path is not None, "mark the test with pytest.mark.browser"
    return path
