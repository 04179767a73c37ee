"""``company demo``: a chief, two workers and two real jobs in a temporary home, then all of it gone (I/O).

Every step that a user would type is run as that very command and shown with a ``$``; only the reading of numbers goes through
`company.client`. The first job's result is compared with a plain count in one process, so that the demo cannot succeed by looking good.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from company.config import format_duration
from company.demo_borrowing import borrow
from company.demo_company import DemoCompany, stopping_on_signals
from p2p.base.errors import Unavailable, UsageError

DEFAULT_OUT = Path("demo-output")
WORKERS = ("w1", "w2")
TOP = 50  # most frequent identifiers and words that a report lists
SHOWN = 12
PICTURE = {"width": 800, "height": 450, "samples": 2}
REFERENCE_TIMEOUT_S = 300.0


def main(out: Path = DEFAULT_OUT) -> int:
    """Run the demo; leave reports, image.png and borrowed.contract in ``out``. Raises `ParallelError` when a step fails."""
    examples = find_examples()
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with stopping_on_signals(), DemoCompany() as company:
        say(f"A company in {company.home}: one chief and {len(WORKERS)} worker processes with one slot each.")
        company.start(WORKERS)
        say(f"Ready after {format_duration(time.monotonic() - began)}.\n")
        count_words(company, examples / "wordcount", out)
        draw_picture(company, examples / "raytracer", out)
    with stopping_on_signals():
        borrow(examples, out)
    say(f"Stopped and tidied up; all in all {format_duration(time.monotonic() - began)}.")
    say("Next, by hand: the quick start in README.md.")
    return 0


# ---- job 1 -------------------------------------------------------------------------------------------------------------------
def count_words(company: DemoCompany, package: Path, out: Path) -> None:
    """Job 1: identifiers and words of Python's own library, checked against a plain count."""
    data = company.scratch / "python-library"
    files, size = copy_library(Path(sysconfig.get_path("stdlib")), data)
    say(f"Job 1: the identifiers and words of Python's standard library, {files:,} files, {size / 1e6:.0f} MB of this machine.")
    company.command("job", "submit", str(package), str(data), "-p", f"top={TOP}", "--watch")
    view = company.client.job("last").view
    report_path = fetch(company, out, "report.json")
    report = json.loads(report_path.read_text("utf-8"))
    say("\n" + report_table(report))
    say("\nThe same count in one plain process, to compare ...")
    plain, plain_s = plain_count(package / "reference.py", data)
    if report != plain:
        raise Unavailable("demo-wrong-count", f"{report_path} differs from the count of {package / 'reference.py'}")
    say("The two reports are equal, number by number.")
    say(f"{speed_words(plain_s, took_s(view), len(WORKERS))}\nReport: {report_path.with_suffix('.txt')} and {report_path}\n")


def copy_library(library: Path, target: Path) -> tuple[int, int]:
    """Copy the .py files of the standard library, nothing installed by others and no links; return their number and bytes.

    A copy, because the library itself holds links out of its folder (Debian's sitecustomize.py), which an upload refuses, and caches.
    """
    files = size = 0
    for path in sorted(library.rglob("*.py")):
        inside = path.relative_to(library)
        if {"site-packages", "dist-packages", "__pycache__"} & set(inside.parts) or path.is_symlink() or not path.is_file():
            continue
        content = path.read_bytes()
        (target / inside).parent.mkdir(parents=True, exist_ok=True)
        (target / inside).write_bytes(content)
        files, size = files + 1, size + len(content)
    if not files:
        raise UsageError("no-library", f"there are no .py files below {library}", hint="this Python has its library in an archive")
    return files, size


def plain_count(reference: Path, data: Path) -> tuple[dict[str, Any], float]:
    """The report of one ordinary process, and its seconds."""
    began = time.monotonic()
    command = [sys.executable, str(reference), str(data), str(TOP)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=REFERENCE_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise Unavailable("demo-timeout", f"{reference} did not end within {REFERENCE_TIMEOUT_S:g} s") from None
    if done.returncode:
        raise Unavailable("demo-reference-failed", f"{reference} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report, time.monotonic() - began


def report_table(report: Mapping[str, Any]) -> str:
    """The most frequent identifiers and words side by side."""
    lines = [f"{report['files']:,} files, {report['lines']:,} lines, {report['bytes']:,} bytes"]
    lines += [f"{report['different_identifiers']:,} different identifiers, {report['different_words']:,} different words in text", ""]
    lines += [f"      {'identifier':<16}{'times':>9}      {'word':<16}{'times':>9}"]
    for rank, (name, word) in enumerate(zip(report["identifiers"][:SHOWN], report["words"][:SHOWN], strict=False), 1):
        lines.append(f"{rank:>4}  {name[0]:<16}{name[1]:>9,}      {word[0]:<16}{word[1]:>9,}")
    return "\n".join(lines)


def speed_words(plain_s: float, company_s: float, workers: int) -> str:
    """How the two times compare, also when the company was the slower one."""
    ratio = plain_s / max(company_s, 1e-3)
    compared = f"{ratio:.1f} times as fast" if ratio >= 1.05 else "about as fast" if ratio > 0.95 else f"{1 / ratio:.1f} times slower"
    text = f"One process took {plain_s:.1f} s; {workers} sandboxed workers took {company_s:.1f} s, from start to merged result: {compared}."
    return text if ratio > 0.95 else f"{text} So little work does not pay for its distribution here."


# ---- job 2 -------------------------------------------------------------------------------------------------------------------
def draw_picture(company: DemoCompany, package: Path, out: Path) -> None:
    """Job 2: a ray-traced picture."""
    say(f"Job 2: a ray tracer in plain Python, {PICTURE['width']} × {PICTURE['height']} points.")
    params = [part for key, value in PICTURE.items() for part in ("-p", f"{key}={value}")]
    company.command("job", "submit", str(package), str(package / "scene.json"), *params, "--watch")
    view = company.client.job("last").view
    picture = fetch(company, out, "image.png")
    cpu_s, wall_s = float(view.get("cpu_s") or 0.0), took_s(view)
    computed = f"{cpu_s:.1f} s of computing in {wall_s:.1f} s: " if cpu_s else f"{wall_s:.1f} s: "
    say(f"{computed}{view['fragments']['done']} strips of rows, put together in order.\nPicture: {picture}\n")


# ---- both --------------------------------------------------------------------------------------------------------------------
def fetch(company: DemoCompany, out: Path, name: str) -> Path:
    """Download the last job's result and return the file that matters."""
    company.command("job", "download", "last", "-o", str(out))
    if not (out / name).is_file():
        raise Unavailable("demo-no-result", f"the job's result lacks {name}")
    return out / name


def took_s(view: Mapping[str, Any]) -> float:
    """Seconds from a job's start to its merged result."""
    return float(view["finished"]) - float(view["started"])


def find_examples() -> Path:
    """The folder of examples: beside the sources, or where the wheel put it. Raises `UsageError` where there is none."""
    places = (Path(__file__).resolve().parent.parent / "examples", Path(sysconfig.get_path("data")) / "share/company/examples")
    for place in places:
        if (place / "wordcount/package.toml").is_file() and (place / "raytracer/package.toml").is_file():
            return place
    text = f"the example packages are neither in {places[0]} nor in {places[1]}"
    raise UsageError("no-examples", text, hint="run the demo from a checkout (make demo), or reinstall company-compute with pip")


def say(text: str) -> None:
    """Print now: the commands in between write to the same place."""
    print(text, flush=True)
