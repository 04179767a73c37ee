"""The numbers in docs/limits.md are those of the sources."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from p2p.dht.parameters import DEFAULTS

PAGE = Path(__file__).resolve().parents[2] / "docs/limits.md"


def test_every_parameter_of_the_network_stands_in_the_limits_with_its_value_and_what_it_is() -> None:
    rows = {
        name: (value, what) for name, value, what in re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    }
    for part in dataclasses.fields(DEFAULTS):
        assert rows[part.name][0] == str(getattr(DEFAULTS, part.name)), part.name
        assert rows[part.name][1], f"{part.name} is not explained"
