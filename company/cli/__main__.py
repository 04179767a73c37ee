"""``python -m company.cli``: the command line where no console script is installed."""

from company.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
