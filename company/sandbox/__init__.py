"""Sandboxed children: the only place where a module's code runs (I/O)."""

from company.sandbox.child import Child, ChildDied, ChildFailed, Ready
from company.sandbox.output import take_output
from company.sandbox.page import Page
from company.sandbox.pool import ChildPool
from company.sandbox.profile import Mount, Profile
from company.sandbox.sandbox import Sandbox
from company.sandbox.selftest import SelfTest
from company.sandbox.spool import BlobSpool, SpooledBlob
from company.sandbox.verdict import Verdict

__all__ = [
    "BlobSpool",
    "Child",
    "ChildDied",
    "ChildFailed",
    "ChildPool",
    "Mount",
    "Page",
    "Profile",
    "Ready",
    "Sandbox",
    "SelfTest",
    "SpooledBlob",
    "Verdict",
    "take_output",
]  # fmt: skip
