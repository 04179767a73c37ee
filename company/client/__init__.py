"""The synchronous client of a chief: standard library only, for programs and for the command line. Names come when they are used."""

from __future__ import annotations

TYPE_CHECKING = False  # as in company/__init__.py

if TYPE_CHECKING:
    from company.client.client import Client as Client
    from company.client.client import connect as connect
    from company.client.job import FragmentResult as FragmentResult
    from company.client.job import Job as Job

__all__ = ["Client", "FragmentResult", "Job", "connect"]

_LAZY = {"Client": "client", "FragmentResult": "job", "Job": "job", "connect": "client"}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'company.client' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"company.client.{_LAZY[name]}"), name)
    globals()[name] = value
    return value
