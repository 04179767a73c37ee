"""One worker process: keeps a channel to its chief, runs batches in sandboxed children, holds results until they are acknowledged."""
