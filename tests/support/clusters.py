"""Real Dask and Ray clusters on this machine, as a user would have them: processes of their own, by their address."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

READY_S = 90.0
# Ray lets in who has its token: a user's cluster and a user's program share it
RAY_ENVIRON = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 32}
_DASK = """
import sys, distributed
if __name__ == "__main__":
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50)
    print(cluster.scheduler_address, flush=True)
    sys.stdin.read()
    cluster.close()
"""
_RAY = """
import sys, ray
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=50)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
ray.shutdown()
"""


@contextlib.contextmanager
def cluster_running(engine: str, folder: Path) -> Iterator[str]:
    """A cluster with two slots; its address."""
    script = folder / f"{engine}_cluster.py"
    script.write_text({"dask": _DASK, "ray": _RAY}[engine])
    environ = os.environ | RAY_ENVIRON
    with (folder / f"{engine}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environ, start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None and process.stdin is not None
        try:
            began = time.monotonic()
            address = ""
            while ":" not in address and time.monotonic() - began < READY_S:
                line = process.stdout.readline()
                assert line, (folder / f"{engine}.log").read_text()
                address = line.decode().strip()
            yield address
        finally:
            process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()
