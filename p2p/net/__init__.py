"""Channels between processes: TLS, RPC, HTTP, and the driver that runs a machine in real time (I/O)."""
