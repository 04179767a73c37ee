"""A company of processes that computes: split, process in parallel, merge.

Everything here is imported on first use, so that ``import company`` stays cheap for the command line and inside the sandbox.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers take it for true; the module typing would cost more than everything here

if TYPE_CHECKING:
    from company import task as task
    from company.client import Client as Client
    from company.client import Job as Job
    from company.client import connect as connect
    from company.client.call_errors import FragmentError as FragmentError
    from company.client.executor import Executor as Executor
    from company.client.future import Future as Future
    from company.client.private import local as local
    from company.fragment import Fragment as Fragment

__version__ = "0.1.0"
__all__ = ["Client", "Executor", "Fragment", "FragmentError", "Future", "Job", "__version__", "connect", "local", "task"]

_LAZY = {
    "Client": ("company.client", "Client"),
    "Executor": ("company.client.executor", "Executor"),
    "FragmentError": ("company.client.call_errors", "FragmentError"),
    "Future": ("company.client.future", "Future"),
    "Fragment": ("company.fragment", "Fragment"),
    "Job": ("company.client", "Job"),
    "connect": ("company.client", "connect"),
    "local": ("company.client.private", "local"),
    "task": ("company.task", None),
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'company' has no attribute {name!r}")
    import importlib

    module_name, attribute = _LAZY[name]
    module = importlib.import_module(module_name)
    value = module if attribute is None else getattr(module, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_LAZY))
