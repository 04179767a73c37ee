"""--install-service, as `start` and `worker join` do it: make the unit, say what happened (I/O)."""

from __future__ import annotations

import os
import sys

from company.cli.framework import Session
from company.cli.output import note, print_json, say


def install(session: Session, name: str, description: str, arguments: list[str]) -> None:
    """Install a unit that runs ``company ARGUMENTS`` with this interpreter and this home.

    -P: a user's service starts in the home directory, and a file there must not stand in for a module.
    """
    from company.service_unit import Unit, install_unit

    unit = Unit(
        name=name,
        description=description,
        argv=(sys.executable, "-P", "-m", "company", *arguments, "--home", str(session.home)),
        system=os.geteuid() == 0,
    )
    result = install_unit(unit)
    if session.as_json:
        facts = {"unit": str(result.path), "started": result.is_started, "commands": list(result.commands), "text": result.text}
        print_json("service/1", facts)
        return
    say(result.text)
    if result.commands:
        note("Run:\n" + "\n".join(f"    {command}" for command in result.commands))
