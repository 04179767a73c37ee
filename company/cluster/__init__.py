"""Batches of a run as tasks of a Dask or Ray cluster that the user has already.

Split and merge run here, as in the local engine; a batch travels as bytes to a node, which runs it in a sandboxed child of its own and
sends back the same messages that a worker would. So the same package gives the same bytes, the same retries and the same report.

Nothing is imported here: `company.cluster.node` and `company.cluster.pilot` are programs of their own.
"""
