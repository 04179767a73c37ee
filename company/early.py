"""What makes a chief's start short: its imports run while the sandbox's first child starts and is tested (I/O: imports).

Imports are three quarters of the way to ready, and all of one core. A sandbox's self-test is mostly waiting for another process, which has
the other core: so modules are imported one by one with a look at the event loop between them. Nothing is collected meanwhile, and
what was imported is not looked at again by later collections.
"""

from __future__ import annotations

import gc
from importlib import import_module

import trio

from company import collector

# those that import much come alone, so that the loop is never left for long
CHIEF = (
    "company.chief.store.rows", "company.chief.store.store", "company.chief.state", "company.chief.library", "company.chief.service",
    "p2p.net.asyncio_bridge", "p2p.net.http_server", "company.chief.api.routes", "company.web", "p2p.net.rpc", "company.wheels",
)  # fmt: skip
NETWORK = (
    "company.chief.network.dialling", "company.chief.network.peer_door", "company.chief.contracts.building",
    "company.chief.contracts.front", "company.chief.network.opening", "company.chief.secondment.opening",
)  # fmt: skip


async def import_each(names: tuple[str, ...]) -> None:
    """Import modules that somebody will need, those of others' tasks in between."""
    for name in names:
        import_module(name)
        await trio.lowlevel.checkpoint()


def stop_collecting() -> None:
    """Until `collect_again`: what is made now is there to stay."""
    gc.disable()


def collect_again() -> None:
    """From now on, at Python's own pace, and never what is there already."""
    gc.freeze()
    collector.as_usual()
    gc.enable()
