"""Contracts that a test writes into a file, for the parts that lend and borrow; what those say of them is written into another one.

A program, too: ``python -m tests.support.fake_contracts start …`` is `company start …` with these contracts in place of a network.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import trio

from company.chief.contracts.port import ContractView, ContractWatcher
from company.chief.network.contact import Contact
from p2p.base.clock import Monotonic
from p2p.contracts.table import State
from p2p.contracts.terms import NOTHING, Cause, Facts, Role, Terms

NETWORK = b"test-network----"
LOOK_S = 0.02


def terms(**changed: Any) -> Terms:
    """Terms as two machines would agree on them."""
    values: dict[str, Any] = {
        "package": bytes(32), "processor": bytes(32), "slots": 1, "memory_mib": 512, "disk_mib": 16, "fragment_s": 600, "runtime": "python",
        "not_before_s": 0, "time_frame_s": 3600, "epoch_s": 20, "lease_s": 60, "grace_s": 30, "notice_s": 0, "network": "none",
        "retention": "none", "check": "spot", "error_ppm": 10_000, "spot_ppm": 100_000, "assumed_bad_ppm": 200_000, "price_milli": 0,
        "endpoints": (("127.0.0.1", 1),),
    }  # fmt: skip
    return Terms(**(values | changed))


class FakeContracts:
    """A `company.chief.contracts.port.Contracts`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.views: dict[bytes, ContractView] = {}
        self.base: dict[bytes, Facts] = {}
        self._watcher: ContractWatcher | None = None
        self._seen = ""

    def watch(self, watcher: ContractWatcher) -> None:
        self._watcher = watcher
        for view in self.views.values():
            watcher.on_contract(view)

    def open_contracts(self) -> tuple[ContractView, ...]:
        return tuple(self.views.values())

    def contract(self, contract: bytes) -> ContractView | None:
        return self.views.get(contract)

    def facts_of(self, contract: bytes) -> Facts:
        return NOTHING

    def measure(self, contract: bytes, own_core_ms: float) -> None: ...

    def heard(self, contract: bytes) -> None: ...

    def state(self, contract: bytes, facts: Facts, **more: Any) -> None:
        self._tell(contract, "state", facts=list(facts), **{k: v.hex() if isinstance(v, bytes) else v for k, v in more.items()})

    def drained(self, contract: bytes) -> None:
        self._tell(contract, "drained")

    async def revoke(self, contract: bytes, cause: Cause, *, notice_s: int = 0, text: str = "") -> None:
        self._tell(contract, "revoke", cause=cause.name, text=text)

    async def breach(self, contract: bytes, cause: Cause, evidence: bytes, text: str = "") -> None:
        self._tell(contract, "breach", cause=cause.name, text=text, evidence=len(evidence))
        self._set(contract, State.BROKEN, drain_s=0.0)

    def _tell(self, contract: bytes, kind: str, **facts: Any) -> None:
        with (self.folder / "told.jsonl").open("a") as file:
            file.write(json.dumps({"contract": contract.hex(), "kind": kind, "at": trio.current_time(), **facts}) + "\n")

    def _set(self, contract: bytes, state: State, drain_s: float) -> None:
        from dataclasses import replace

        view = self.views[contract]
        now = trio.current_time()
        self.views[contract] = replace(view, state=state, may_work=state is State.ACTIVE, drain_until=Monotonic(now + drain_s))
        if self._watcher is not None:
            self._watcher.on_contract(self.views[contract])

    async def run(self) -> None:
        """Look into the file for ever."""
        while True:
            path = self.folder / "contracts.json"
            text = path.read_text() if path.exists() else ""
            if text != self._seen:
                self._seen = text
                for row in json.loads(text):
                    self._take(row)
                part = self.folder / "taken.part"
                part.write_text(text)
                part.rename(self.folder / "contracts.taken")
            await trio.sleep(LOOK_S)

    def _take(self, row: dict[str, Any]) -> None:
        contract, now = bytes.fromhex(row["id"]), trio.current_time()
        known = self.views.get(contract)
        state = State(row["state"])
        if known is not None:
            if known.state is not state and (known.is_live or state is State.ACTIVE):
                self._set(contract, state, row.get("drain_s", 0.0))
            return
        given: dict[str, Any] = {k: bytes.fromhex(v) if k in ("package", "processor") else v for k, v in row["terms"].items()}
        given["endpoints"] = tuple((host, port) for host, port in given["endpoints"])
        peer = bytes.fromhex(row["peer"])
        self.views[contract] = ContractView(
            id=contract, role=Role(row["role"]), state=state, peer=peer, contact=Contact(key=peer), slots=given["slots"], revision=0,
            terms=terms(**given), may_work=state is State.ACTIVE, why="", ends_at=Monotonic(now + row.get("ends_in_s", 3600)),
            drain_until=Monotonic(now),
        )  # fmt: skip
        if self._watcher is not None:
            self._watcher.on_contract(self.views[contract])


async def _secondment(chief: Any, options: Any, task_status: trio.TaskStatus[Any]) -> None:
    from company.chief.secondment.service import build_secondment

    contracts = FakeContracts(Path(chief.home.root))
    async with trio.open_nursery() as nursery:
        made = build_secondment(chief, contracts, network_id=NETWORK, may_dial=lambda host, port: True, is_trusted=lambda key: False)
        nursery.start_soon(made.run)
        nursery.start_soon(contracts.run)
        (Path(chief.home.root) / "key").write_text(chief.identity.public.hex())
        task_status.started(None)


def main() -> None:
    """Run `company` with these contracts."""
    import company.node
    from company.cli import main as company_main

    company.node._network = _secondment  # type: ignore[assignment]
    sys.argv[0] = "company"
    company_main()


if __name__ == "__main__":
    main()
