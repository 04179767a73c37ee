"""How fast, against whom, and what is counted: ``python -m benchmarks [--json] [--quick]``."""
