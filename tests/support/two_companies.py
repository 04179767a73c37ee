"""Two real companies, a borrower and a lender, and contracts between them that a test writes down (see `fake_contracts`)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.company_processes import RunningCompany, until

CHIEF = (sys.executable, "-m", "tests.support.fake_contracts")


class TwoCompanies:
    """``borrower`` and ``lender``, both started."""

    def __init__(self, root: Path, *, own_slots: int = 0, lent_slots: int = 1, lender_program: tuple[str, ...] = ()) -> None:
        self.borrower = RunningCompany(_folder(root / "borrower"))
        self.lender = RunningCompany(_folder(root / "lender"))
        for company in (self.borrower, self.lender):
            company.programs["chief"] = CHIEF
            company.start_chief()
        if own_slots:
            self.borrower.start_workers("own", slots=own_slots)
        if lender_program:
            self.lender.programs["lent0"] = lender_program
        self.lender.start_workers("lent0", slots=lent_slots)
        self.contracts: dict[str, dict[str, Any]] = {}

    def sign(
        self,
        processor: str,
        *,
        contract: str = "c1",
        ends_in_s: float = 3600,
        slots: int = 1,
        at: str = "both",
        state: str = "active",
        **terms: Any,
    ) -> str:
        """Both sides hold this contract from now on, or the one that is named."""
        number = contract.encode().hex().ljust(64, "0")
        given = {"processor": processor, "slots": slots, "endpoints": [list(_address(self.borrower.rpc))], **terms}
        self.contracts[number] = {"id": number, "state": state, "terms": given, "ends_in_s": ends_in_s, "at": at}
        self._write()
        return number

    def turn(self, contract: str, state: str, *, at: str = "both", drain_s: float = 0.0) -> None:
        """The contract is in another state, on one side or on both."""
        key = "state" if at == "both" else f"state_{at}"
        self.contracts[contract] |= {key: state, "drain_s": drain_s}
        self._write()

    def _write(self) -> None:
        for company, role, other in ((self.borrower, 1, self.lender), (self.lender, 2, self.borrower)):
            name = "borrower" if role == 1 else "lender"
            peer = (home_of(other) / "key").read_text()
            rows = [
                row | {"role": role, "peer": peer, "state": row.get(f"state_{name}", row["state"])}
                for row in self.contracts.values()
                if row["at"] in ("both", name)
            ]
            part = home_of(company) / "contracts.part"
            part.write_text(text := json.dumps(rows))
            part.rename(home_of(company) / "contracts.json")
            if "chief" in company.processes:
                taken = home_of(company) / "contracts.taken"
                until(lambda taken=taken, text=text: taken.exists() and taken.read_text() == text, f"{name} has read its contracts")

    def told(self, company: RunningCompany, kind: str) -> list[dict[str, Any]]:
        """What its parts said of contracts."""
        path = home_of(company) / "told.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [row for row in rows if row["kind"] == kind]

    def wait_told(self, company: RunningCompany, kind: str, *, timeout_s: float = 30.0) -> dict[str, Any]:
        rows: list[dict[str, Any]] = until(lambda: self.told(company, kind), f"{kind} is told", timeout_s=timeout_s)
        return rows[-1]

    def close(self) -> None:
        self.borrower.close()
        self.lender.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            for company in (self.borrower, self.lender):
                for path in sorted(company.root.glob("*.log")):
                    print(f"==> {company.root.name}/{path.name}", company.tail_of(path.stem, 30), sep="\n")
        self.close()


def home_of(company: RunningCompany) -> Path:
    return company.home


def _folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)
