"""Command lines made of a template and one line of input each, and their log, in the manner of GNU parallel (pure).

Source: the manual page of GNU parallel (O. Tange), sections "OPTIONS" ({} and its kind, --joblog) and "EXIT STATUS".
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterable
from dataclasses import field

from p2p.base.errors import UsageError
from p2p.base.record import record

_MARK = re.compile(r"\{(#|\.|/|//|/\.|)\}")
MAX_FAILED_COUNT = 100  # exit codes 1..100 count failures, 101 means more
LOG_HEAD = "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n"
ENDED_BY_US = -1  # in the place of an exit code: a time limit, a memory limit, a worker that died


@record
class CommandResult:
    """What became of one command. ``exit_code``: `ENDED_BY_US` where a limit ended it, with why in ``trouble``."""

    exit_code: int
    signal: int = 0
    stdout: bytes = b""
    stderr: bytes = b""
    started: float = 0.0
    seconds: float = 0.0
    files: dict[str, bytes] = field(default_factory=dict)
    worker: str = ""
    trouble: str = ""

    @property
    def is_ok(self) -> bool:
        """Whether it ended with exit code 0, and with all files that were wanted."""
        return self.exit_code == 0 and not self.signal and not self.trouble


def fill(template: str, line: str, number: int, *, quote: bool = True) -> str:
    """The template with its marks replaced; ``quote``: each as one word of a shell, whatever it holds."""

    def value(match: re.Match[str]) -> str:
        mark = match[1]
        if mark == "#":
            return str(number)
        found = line
        if mark.startswith("/"):
            found = posixpath.dirname(line) or "." if mark == "//" else posixpath.basename(line)
        if mark.endswith("."):
            found = re.sub(r"(?<=[^/])\.[^/.]*$", "", found)
        return shlex.quote(found) if quote else found

    return _MARK.sub(value, template)


def command_of(template: str, line: str, number: int) -> str:
    """What the shell gets: a template without any mark has the line behind it, an empty one is the line itself."""
    if not template.strip():
        return line
    return fill(template if _MARK.search(template) else template + " {}", line, number)


def relative_path(template: str, line: str, number: int) -> str:
    """A file that goes to the command or comes back from it, as a path below its folder. Raises `UsageError` for one outside."""
    path = posixpath.normpath(fill(template, line, number, quote=False))
    if path.startswith(("/", "../")) or path in (".", "..") or "\0" in path:
        text = f"line {number}: {path[:200]} is not below this folder, and a command on a worker has a folder of its own"
        raise UsageError("file-outside", text, hint="go to the folder that holds it and name it from there")
    return path


def split_arguments(words: Iterable[str]) -> tuple[str, list[str] | None]:
    """The template and the arguments behind ``:::``, nil where lines come from elsewhere."""
    before, after = list(words), None
    if ":::" in before:
        at = before.index(":::")
        before, after = before[:at], before[at + 1 :]
        if ":::" in after:
            raise UsageError("too-many-sources", "::: may stand once; combinations of several lists are not made")
    return " ".join(before), after


def log_line(number: int, command: str, result: CommandResult, *, sent_bytes: int) -> str:
    """One line of the log: tabs between, times in seconds."""
    received = len(result.stdout) + len(result.stderr) + sum(map(len, result.files.values()))
    flat = command.replace("\n", "\\n").replace("\t", "\\t")
    cells = (
        number, result.worker or "-", f"{result.started:.3f}", f"{result.seconds:10.3f}", sent_bytes, received, result.exit_code,
        result.signal, flat,
    )  # fmt: skip
    return "\t".join(map(str, cells)) + "\n"


def done_before(log: str) -> set[int]:
    """The numbers that an earlier run finished well."""
    found: set[int] = set()
    for line in log.splitlines()[1:]:
        cells = line.split("\t", 8)
        if len(cells) == 9 and cells[0].isdecimal():
            (found.add if cells[6] == "0" and cells[7] == "0" else found.discard)(int(cells[0]))
    return found


def exit_code_of(failed: int) -> int:
    """0 when nothing failed, else how many did, 101 for more than a hundred."""
    return min(failed, MAX_FAILED_COUNT + 1)
