"""The demo's second act: a company without a worker borrows another one's, and keeps a receipt that anybody can verify (I/O).

Two chiefs on this machine, in homes of their own, that find each other, sign, and settle as any two companies would.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from company.demo_company import DemoCompany
from p2p.base.errors import Unavailable

SLOTS = 2
PICTURE = {"width": 400, "height": 225, "samples": 1}
PATIENCE_S = 60.0


def borrow(examples: Path, out: Path) -> None:
    """Draw a picture on borrowed workers; leaves borrowed.contract in ``out``. Raises `Unavailable` when a step fails."""
    package = examples / "raytracer"
    with DemoCompany() as lender, DemoCompany() as borrower:
        say(f"\nSecond act: two companies. The lender has {SLOTS} workers, the borrower none.")
        lender.start(tuple(f"lent{n}" for n in range(1, SLOTS + 1)), dht="127.0.0.1:0")
        lender.command("lend", "--max-workers", str(SLOTS), "--auto-accept", "any")
        borrower.start((), dht="127.0.0.1:0", options=("--bootstrap", lender.ready["dht"]))
        params = [part for key, value in PICTURE.items() for part in ("-p", f"{key}={value}")]
        borrower.command("job", "submit", str(package), str(package / "scene.json"), *params, "--where", "any", "--yes-foreign")
        company = str(lender.ready["company"])
        wait_for(lambda: any(o["company"] == company for o in offers(borrower)), "the borrower finds the lender's offer")
        began = time.monotonic()
        borrower.command("borrow", "request", company, "--slots", str(SLOTS), "--time-frame", "10m")
        (contract,) = borrower.client.contracts.list()["items"]
        number = str(contract["id"])
        job = borrower.client.job("last")
        wait_for(lambda: job.status()["fragments"]["done"] > 0, "a first result comes from a borrowed worker")
        say(f"First result of a borrowed worker {time.monotonic() - began:.1f} s after the request.")
        borrower.command("job", "watch", "last")
        borrower.command("contract", "revoke", number)
        wait_for(lambda: borrower.client.contracts.show(number)["state"] == "rated", "both companies have written their receipts")
        receipt = out / "borrowed.contract"
        borrower.command("contract", "export", number, "-o", str(receipt))
        say("Anybody can verify it, without a company and without a network:")
        borrower.command("contract", "verify", str(receipt))


def offers(company: DemoCompany) -> list[dict[str, Any]]:
    """What it finds in the network now."""
    return [dict(offer) for offer in company.client.network.search(slots=1)["offers"]]


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Ask until it is so. Raises `Unavailable` demo-timeout."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            raise Unavailable("demo-timeout", f"after {PATIENCE_S:g} s still not: {what}")
        time.sleep(0.05)


def say(text: str) -> None:
    """Print now: the commands in between write to the same place."""
    print(text, flush=True)
