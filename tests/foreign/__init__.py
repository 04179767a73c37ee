"""Programs that no one here wrote, run unmodified on a company: ``python -m tests.foreign``."""
