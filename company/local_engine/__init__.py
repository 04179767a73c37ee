"""The local engine: split, process and merge of a package on this machine alone, in the same sandbox, without a daemon (I/O).

The parts are those of a company: the chief's splitter, batcher, retry rules and merger, the worker's slots. Only what makes a
company durable and distributed is left out: nothing outlives the call but its result.
"""

from company.local_engine.run import run_local

__all__ = ["run_local"]
