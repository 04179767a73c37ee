"""Rounds of faults against a real company, and the one invariant after each (I/O).

Every fragment was merged exactly once, no slot is locked by nobody, the rows are whole and do not overlap, what a killed chief had
acknowledged was on disk, and the chief's machine found itself valid after every event. Workers reach the chief through a `Cable` each;
the home may be a small tmpfs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import signal
import sqlite3
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from company.client import Job
from company.errors import CompanyError
from company.tokens import encode_token, parse_token_untrusted
from tests.faults.crashing import unkept
from tests.faults.network import Cable
from tests.faults.plan import WORKERS, Fault, Plan
from tests.support.company_processes import RunningCompany, until, write_package

PROCESS = """
    import hashlib, time
    def process(fragment):
        number, seconds = fragment
        time.sleep(seconds)
        return hashlib.sha256(str(number).encode()).hexdigest() * (3000 if number % 97 == 5 else 1)
"""
SPLIT = "def split(data, n=10, s=0.0):\n    for i in range(n):\n        yield [i, s]\n"
MERGE = """
    def merge(results, output):
        with (output / "digests.txt").open("w") as file:
            for number, result in enumerate(results):
                file.write(f"{number} {result}\\n")
"""
END_S = 150.0  # a round that is not over by then has lost something
BALLAST_LEFT_BYTES = 8 << 10


def expected(count: int) -> bytes:
    """The merged bytes of a job with so many fragments."""
    return "".join(f"{i} {hashlib.sha256(str(i).encode()).hexdigest() * (3000 if i % 97 == 5 else 1)}\n" for i in range(count)).encode()


@dataclass
class Report:
    """What was done and what did not hold."""

    rounds: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    violations: list[dict[str, Any]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {"rounds": self.rounds, "faults": sum(self.faults.values()), "by_kind": self.faults, "violations": self.violations}


class Harmed(RunningCompany):
    """A company whose processes, cables and disk may be harmed. ``small_disk``: its home is a tmpfs of its own that can be filled."""

    def __init__(self, root: Path, *, small_disk: bool = False) -> None:
        super().__init__(root)
        self.small_disk = small_disk
        self.programs["chief"] = (sys.executable, "-m", "tests.faults.crashing")
        self.fuse, self.violations, self.acks = root / "fuse", root / "violations", root / "acks"
        self.environ |= {"FAULT_FILE": str(self.fuse), "FAULT_VIOLATIONS": str(self.violations), "FAULT_ACKS": str(self.acks)}
        self.cables: dict[str, Cable] = {}
        self.package = write_package(root / "package", PROCESS, split=SPLIT, merge=MERGE)
        self.data = root / "data.txt"
        self.data.write_text("data\n")

    def open(self) -> None:
        self.start_chief()
        token = parse_token_untrusted(str(self.client.create_token("worker", uses=len(WORKERS))["token"]))
        for name in WORKERS:
            self.cables[name] = Cable(self.rpc)
            own = dataclasses.replace(token, addresses=(self.cables[name].address,))
            self.start_worker(name, token=encode_token(own))
        for name in WORKERS:
            self.wait_ready(name)

    def kill(self, name: str) -> None:
        """SIGKILL; of a chief's, that nothing is lost of what it had acknowledged is looked at while it is dead."""
        super().kill(name)
        if name == "chief":
            lost = unkept(self.acks, self.home / "chief" / "company.sqlite")
            if lost:
                with self.violations.open("a") as file:
                    file.write("\n".join(lost) + "\n")
            self.acks.unlink(missing_ok=True)

    def close(self) -> None:
        for cable in self.cables.values():
            cable.plug()
        super().close()
        for cable in self.cables.values():
            cable.close()

    # ---- faults -------------------------------------------------------------------------------------------------------
    def do(self, fault: Fault) -> None:
        """Let it happen, and where it lasts, let it end."""
        match fault.kind:
            case "kill-chief":
                self.kill("chief")
                self.start_chief()
            case "kill-worker":
                self.kill(fault.target)
                self.start_worker(fault.target)
            case "stop-worker":
                self._stop_for(fault.target, fault.amount)
            case "stop-chief":
                self._stop_for("chief", fault.amount)
            case "crash-chief":
                self._crash(fault.target, int(fault.amount))
            case "unplug":
                self.cables[fault.target].unplug()
                time.sleep(fault.amount)
                self.cables[fault.target].plug()
            case "delay":
                self.cables[fault.target].delay_s = fault.amount
            case "cut":
                self.cables[fault.target].cut_after(int(fault.amount))
            case "spoil-tail":
                self.kill("chief")
                self._spoil_tails(int(fault.amount))
                self.start_chief()
            case "fill-disk":
                self._fill_for(fault.amount)
            case other:
                raise ValueError(other)

    def _stop_for(self, name: str, seconds: float) -> None:
        pid = self.processes[name].pid
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            os.kill(pid, signal.SIGCONT)

    def _crash(self, point: str, times: int) -> None:
        """Arm the point; where the job does not come by it in time, the fault did not happen."""
        self.fuse.with_suffix(".new").write_text(f"{point} {times}")
        self.fuse.with_suffix(".new").rename(self.fuse)
        end = time.monotonic() + 3.0
        while self.is_running("chief") and time.monotonic() < end:
            time.sleep(0.05)
        self.fuse.unlink(missing_ok=True)
        if not self.is_running("chief"):
            self.kill("chief")
            self.start_chief()

    def _spoil_tails(self, size_bytes: int) -> None:
        """Bytes behind the last committed row, as a write leaves them that a power cut interrupted."""
        for segment in (self.home / "chief" / "jobs").glob("*/results/*.seg"):
            with segment.open("ab") as file:
                file.write(os.urandom(size_bytes))

    def _fill_for(self, seconds: float) -> None:
        if not self.small_disk:
            return
        ballast = self.home / "ballast"
        fd = os.open(ballast, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            free = os.statvfs(self.home)
            os.posix_fallocate(fd, 0, max(1, free.f_bavail * free.f_frsize - BALLAST_LEFT_BYTES))
            time.sleep(seconds)
        except OSError:
            pass  # somebody took the room first: as full as it gets
        finally:
            os.close(fd)
            ballast.unlink()

    # ---- a round ------------------------------------------------------------------------------------------------------
    def round(self, plan: Plan, report: Report) -> None:
        """One job among the plan's faults; what does not hold goes into the report."""
        report.rounds += 1
        try:
            job = self.client.submit(
                self.package, self.data, params={"n": plan.fragments, "s": plan.fragment_s}, batching=plan.batching, name=f"r{plan.seed}"
            )
            for fault in plan.faults:
                time.sleep(fault.wait_s)
                self.do(fault)
                report.faults[fault.kind] = report.faults.get(fault.kind, 0) + 1
            found = self._judge(self.client.job(job.id), plan.fragments)
        except (AssertionError, CompanyError, OSError) as error:
            found = [f"{type(error).__name__}: {error}"]
        for cable in self.cables.values():
            cable.delay_s = 0.0
        if self.violations.exists():
            found.append(self.violations.read_text()[:4000])
            self.violations.unlink()
        if found:
            faults = [f.as_dict() for f in plan.faults]
            report.violations.append({"seed": plan.seed, "fragments": plan.fragments, "faults": faults, "found": found})

    def _judge(self, job: Job, count: int) -> list[str]:
        found: list[str] = []
        job.wait(END_S)
        if job.state != "done":
            return [f"the job is {job.state}: {job.view['reason']}"]
        (path,) = job.download(self.root / f"out-{job.id}")
        if path.read_bytes() != expected(count):
            found.append("the merged bytes are others")
        if [r.index for r in job.results()] != list(range(count)):
            found.append("not every fragment has exactly one result")
        if job.view["fragments"]["failed"] or any(f["tries"] for f in job.failures()["items"]):
            found.append("a fragment was blamed for a fault that was not its own")
        until(lambda: all(w["slots_busy"] == 0 for w in self.client.workers()["items"]), "no slot locked by nobody")
        until(lambda: {w["state"] for w in self.client.workers()["items"]} == {"idle"}, "every worker back, idle, not under suspicion")
        return found + self._judge_rows(job.id, count)

    def _judge_rows(self, job: str, count: int) -> list[str]:
        database = sqlite3.connect(f"file:{self.home}/chief/company.sqlite?mode=ro", uri=True)
        try:
            whole = database.execute("PRAGMA integrity_check").fetchone()[0]
            rows = database.execute('SELECT "first", "count" FROM outcome WHERE job = ? ORDER BY "first"', (job,)).fetchall()
            leases = database.execute("SELECT count(*) FROM lease").fetchone()[0]
        finally:
            database.close()
        found = [] if whole == "ok" else [f"the database is damaged: {whole}"]
        at = 0
        for first, size in rows:
            if first != at:
                found.append(f"rows overlap or leave a gap at {at}: the next begins at {first}")
            at = first + size
        if at != count:
            found.append(f"rows cover {at} of {count} fragments")
        if leases:
            found.append(f"{leases} rows of leases, and no job runs")
        return found
