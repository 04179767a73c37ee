"""What the tests of faults share with those of whole companies."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small dataset for packages that make their fragments of parameters."""
    path = tmp_path_factory.mktemp("data") / "data.txt"
    path.write_text("one\ntwo\nthree\n")
    return path
