"""A chief or worker as a systemd service: the unit's text (pure), and putting it in place (I/O).

For root a system unit; for a user a user unit with lingering, so that it starts at boot and outlives the login. Where systemd does not
run (a container, another init), the file is left where it belongs, with the commands that will use it.
"""

from __future__ import annotations

import getpass
import os
import shlex
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import field
from pathlib import Path

from company.errors import CompanyError
from p2p.base.record import record

SYSTEM_UNITS = Path("/etc/systemd/system")
SYSTEMD_RUNS = Path("/run/systemd/system")  # exists exactly where systemd is the init (sd_booted(3))
NO_RESTART_CODES = "2 77 78"  # wrong command, token or configuration: trying again would not help
Run = Callable[[Sequence[str]], tuple[int, str]]


@record(kw_only=True)
class Unit:
    """One service. ``system``: for the machine, not for one user."""

    name: str
    description: str
    argv: tuple[str, ...]
    system: bool
    environment: tuple[tuple[str, str], ...] = field(default=())

    def text(self) -> str:
        """The unit file."""
        variables = (("PYTHONUNBUFFERED", "1"), *self.environment)
        lines = [
            "[Unit]",
            f"Description={self.description.replace('%', '%%')}",
            *(("After=network-online.target", "Wants=network-online.target") if self.system else ()),  # users' managers have no such target
            "StartLimitIntervalSec=300",
            "StartLimitBurst=10",
            "",
            "[Service]",
            "Type=exec",
            "ExecStart=" + " ".join(quote_word(word) for word in self.argv),
            *(f"Environment={quote_word(f'{key}={value}')}" for key, value in variables),
            "Restart=on-failure",
            "RestartSec=5",
            f"RestartPreventExitStatus={NO_RESTART_CODES}",
            "KillMode=mixed",
            "TimeoutStopSec=90",
            "Delegate=yes",  # the sandbox may make cgroups of its own below this service
            "LimitNOFILE=65536",
            "UMask=0077",
            # The sandbox needs no more hardening from here, and much of it would hurt: bubblewrap makes namespaces and mounts of its own,
            # which PrivateTmp, ProtectSystem, RestrictNamespaces or a SystemCallFilter forbid or change.
            "NoNewPrivileges=yes",
            "",
            "[Install]",
            f"WantedBy={'multi-user.target' if self.system else 'default.target'}",
            "",
        ]
        return "\n".join(lines)

    def path(self, config_home: Path) -> Path:
        """Where the file belongs. ``config_home``: the user's ~/.config."""
        return (SYSTEM_UNITS if self.system else config_home / "systemd" / "user") / f"{self.name}.service"

    def commands(self, user: str) -> tuple[tuple[str, ...], ...]:
        """What puts it into service."""
        control = ("systemctl",) if self.system else ("systemctl", "--user")
        linger = () if self.system else (("loginctl", "enable-linger", user),)
        return (*linger, (*control, "daemon-reload"), (*control, "enable", "--now", f"{self.name}.service"))


@record
class Installed:
    """What has been done, in words, and the commands that are left to the user."""

    path: Path
    is_started: bool
    text: str
    commands: tuple[str, ...] = ()


def quote_word(word: str) -> str:
    """One word of a systemd command line: its own quoting, with % and $ doubled."""
    plain = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$").replace("\n", "\\n")
    return f'"{plain}"' if plain != word or not word or any(c.isspace() or c in "'\";#" for c in word) else word


def install_unit(
    unit: Unit, *, run: Run | None = None, config_home: Path | None = None, is_systemd: bool | None = None, system_units: Path | None = None
) -> Installed:
    """Write the unit and start it where systemd runs. Raises `CompanyError` when the file cannot be written."""
    run = run or _run
    user = getpass.getuser()
    config_home = config_home or Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    path = unit.path(config_home)
    if unit.system and system_units is not None:
        path = system_units / path.name
    _write(path, unit.text())
    commands = unit.commands(user)
    words = tuple(shlex.join(command) for command in commands)
    if not (SYSTEMD_RUNS.is_dir() if is_systemd is None else is_systemd):
        text = f"systemd does not run here, so nothing was started. The unit is in {path}; where systemd runs, these commands start it."
        return Installed(path, False, text, words)
    for position, command in enumerate(commands):
        code, output = run(command)
        if code != 0:
            text = f"{shlex.join(command)} failed ({output.strip()[:300] or f'exit code {code}'}). The unit is in {path}."
            return Installed(path, False, text, words[position:])
    show = "systemctl status" if unit.system else "systemctl --user status"
    return Installed(path, True, f"{unit.name} runs now and starts at boot ({path}). Look at it: {show} {unit.name}")


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".new")
        temporary.write_text(text, encoding="utf-8")
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise CompanyError("cannot-write-unit", f"{path} cannot be written: {error.strerror}") from None


def _run(command: Sequence[str]) -> tuple[int, str]:
    environment = dict(os.environ)
    environment.setdefault("XDG_RUNTIME_DIR", f"/run/user/{os.geteuid()}")  # su and cron leave it out; --user needs it
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 127, str(error)
    return done.returncode, done.stderr or done.stdout
