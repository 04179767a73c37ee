"""Contract path 5/8 - the chief's own slots in which single fragments are computed again (I/O).

One child in each, warm for as long as checks are of one job, below everybody else's work in priority. A company without any worker
can check what it borrows just the same.
"""

from __future__ import annotations

import trio

from company.chief.runtime import JobRuntime
from company.one_fragment import FragmentOutcome, Talk
from company.package.manifest import ManifestError, parse_manifest_untrusted
from company.sandbox import BlobSpool, Child, ChildDied, ChildFailed, Profile, Sandbox

NICENESS = 10
DEFAULT_ENTRY = "main.py"
BORROWED_EACH = 10  # a tenth of a stranger's answers is checked: docs/findings/README.md has what a job loses with fewer check slots


def slots_for(borrowed: int, cores: int) -> int:
    """How many check slots so many borrowed ones keep busy; no more than the chief's machine has cores."""
    return max(1, min(cores, -(-borrowed // BORROWED_EACH)))


class CheckSlot:
    """Not shared: one caller at a time."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._child: Child | None = None
        self._job = ""

    async def run(self, runtime: JobRuntime, fragment: int, given: bytes) -> FragmentOutcome:
        """Compute one fragment. ``given``: its codec bytes. Raises `ParallelError`, `OSError` where no sandbox can be had."""
        try:
            child = await self._child_for(runtime)
        except ChildFailed as failed:
            return FragmentOutcome(fragment, None, f"{failed.where}-failed", failed.type, failed.message)
        except ChildDied as died:
            return FragmentOutcome(fragment, None, died.verdict.cause, "", died.verdict.text)
        outcome: FragmentOutcome | None = None
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                await child.watch(time_limit_s=runtime.time_limit_s)

            nursery.start_soon(watch)
            talk = Talk(child, fragment, BlobSpool(runtime.dirs.fragments))
            try:
                await talk.send(given)
                outcome = await talk.read()
            except ChildDied as died:
                outcome = FragmentOutcome(fragment, None, died.verdict.cause, "", died.verdict.text)
            nursery.cancel_scope.cancel()
        assert outcome is not None
        return outcome

    async def _child_for(self, runtime: JobRuntime) -> Child:
        if self._child is not None and self._child.is_alive and self._job == runtime.row.id:
            return self._child
        await self.aclose()
        self._job = runtime.row.id
        child = self._child = await self._sandbox.start(Profile(role="process", memory_bytes=runtime.memory_bytes, cpu_niceness=NICENESS))
        files = {p: c for p, c in runtime.files.items() if p.startswith("processor/") or p == "package.toml"}
        await child.load(role="process", params=runtime.row.params, files=files, options={"entry": _entry_of(files)})
        return child

    async def aclose(self) -> None:
        """End the child, if there is one."""
        child, self._child = self._child, None
        if child is not None:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
                await child.aclose()


def _entry_of(files: dict[str, bytes]) -> str:
    try:
        return parse_manifest_untrusted(files["package.toml"]).entry if "package.toml" in files else DEFAULT_ENTRY
    except ManifestError:
        return DEFAULT_ENTRY  # the library took the package, so this cannot be; its load would say the same
