"""What the chief knows for certain: SQLite rows, written by one thread in shared commits, read in others."""

from company.chief.store.store import Store

__all__ = ["Store"]
