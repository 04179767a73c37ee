"""``python -m company``: the same as the command ``company``."""

from company.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
