"""What went wrong with a call on a company, with all that helps to find out why (I/O: logs are fetched when they are asked for)."""

from __future__ import annotations

import functools
import pickle
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from company.errors import CompanyError

if TYPE_CHECKING:
    from company.client.functions import Portable
    from company.client.session import Chunk


class FragmentError(CompanyError):
    """A call that gave no result. As ``__cause__`` of the exception that the call raised, or itself where its worker died of it.

    ``index``: the call as JOB/FRAGMENT/CALL; ``preview``: its arguments, shortened; ``remote_traceback``; ``worker``; ``cause``: "raised",
    or how the process ended ("killed: memory", a signal); ``log_lines``: the last it printed.
    """

    def __init__(
        self, text: str, *, index: str, preview: str, remote_traceback: str, worker: str, cause: str, log_lines: tuple[str, ...] | None,
        again: Callable[[], Any] | None, client: Any, stepping: Callable[[Any], Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__("call-failed", text, index=index, worker=worker, cause=cause)
        self.index, self.preview, self.remote_traceback = index, preview, remote_traceback
        self.worker, self.cause = worker, cause
        self._log_lines, self._again, self._client, self._stepping = log_lines, again, client, stepping

    def __str__(self) -> str:
        parts = [self.text, f"call {self.index} on worker {self.worker or '?'}", f"arguments: {self.preview}" if self.preview else ""]
        return "\n".join([*filter(None, parts), self.remote_traceback]).rstrip()

    def __reduce__(self) -> Any:
        return (_again_of, (self.text, self.index, self.preview, self.remote_traceback, self.worker, self.cause, self._log_lines))

    @property
    def log_lines(self) -> tuple[str, ...]:
        """The last lines that the fragment printed, at most 50."""
        if self._log_lines is None:
            job, _, rest = self.index.partition("/")
            lines = [line["text"] for line in self._client.job(job).logs(fragment=int(rest.partition("/")[0]))]
            self._log_lines = tuple("".join(lines).splitlines()[-50:])
        return self._log_lines

    def reproduce(self, *, pdb: bool = False) -> Any:
        """Run the call here, in this process; with ``pdb`` the debugger opens where it raises.

        A call that ended its worker would end this process too: it runs in a sandbox here, with the limits that it had, and how it ended
        is raised as `FragmentsFailed`. With ``pdb`` it does run in this process, step by step from its first line.
        """
        if self._again is None:
            raise CompanyError("not-reproducible", "the arguments of this call are not here", hint="reproduce it where it was submitted")
        if not pdb:
            return self._again()
        import pdb as debugger

        if self.cause != "raised":
            if self._stepping is None:
                text = "the function of this call is not here, so that no debugger can step through it"
                raise CompanyError("not-reproducible", text, hint="reproduce it where it was submitted, or without pdb")
            print(f"This call ended its worker ({self.cause}), and runs in this process now.", file=sys.stderr)
            return self._stepping(debugger.Pdb())
        try:
            return self._again()
        except BaseException as error:
            debugger.post_mortem(error.__traceback__)
            raise

    @classmethod
    def of_death(
        cls, client: Any, chunk: Chunk, told: dict[str, Any], call: tuple[Any, Any], *, made: Portable | None = None
    ) -> FragmentError:
        """Of a call, (args, kwargs), whose worker process died, every time it was tried; also a `BrokenProcessPool`, as programs expect."""
        import reprlib

        def stepping(debugger: Any) -> Any:
            assert made is not None
            return debugger.runcall(_function_of(made), *call[0], **call[1])

        cause = str(told.get("cause", ""))
        how = {"memory": "killed: memory", "time-limit": "killed: time limit"}.get(cause, cause)
        if told.get("signal"):
            how += f" (signal {told['signal']})"
        text = f"the call ended its worker process: {how}" + (f": {told['message']}" if told.get("message") else "")
        lines = tuple(str(told.get("log_tail", "")).splitlines()[-50:])
        return _death()(
            text, index=f"{chunk.job}/{chunk.index}/0", preview=reprlib.repr(call), remote_traceback=str(told.get("traceback", "")),
            worker=str(told.get("worker", "")), cause=how, log_lines=lines,
            again=lambda: _in_sandbox(client, chunk), client=client, stepping=stepping if made is not None else None,
        )  # fmt: skip


@functools.cache
def _death() -> type[FragmentError]:
    """Made when it is first needed: what it stands for imports all of multiprocessing."""
    from concurrent.futures.process import BrokenProcessPool

    return type(
        "WorkerDied", (FragmentError, BrokenProcessPool), {"__doc__": "Also what a pool of processes raises.", "__module__": __name__}
    )


def _again_of(text: str, index: str, preview: str, remote: str, worker: str, cause: str, lines: tuple[str, ...] | None) -> FragmentError:
    return FragmentError(
        text, index=index, preview=preview, remote_traceback=remote, worker=worker, cause=cause, log_lines=lines, again=None, client=None
    )


def opened_error(told: list[Any], client: Any, chunk: Chunk, position: int, made: Portable | None, call: tuple[Any, Any]) -> BaseException:
    """The exception that a call raised, with a `FragmentError` as its cause; a `FragmentError` itself where it could not travel."""
    packed, name, message, remote, preview = told
    args, kwargs = call

    def again() -> Any:
        assert made is not None
        return _function_of(made)(*args, **kwargs)

    detail = FragmentError(
        f"{name}: {message}", index=f"{chunk.job}/{chunk.index}/{position}", preview=preview, remote_traceback=remote, worker=chunk.worker,
        cause="raised", log_lines=None, again=again if made is not None else None, client=client,
    )  # fmt: skip
    if packed:
        try:
            error = pickle.loads(packed)
        except Exception:  # noqa: BLE001 - its class is not here: its words must do
            return detail
        if isinstance(error, BaseException):
            error.__cause__ = detail
            return error
    return detail


def _in_sandbox(client: Any, chunk: Chunk) -> Any:
    """The value of a chunk of one call, run as a worker would. Raises what the call raises, and `FragmentsFailed` when it dies again."""
    from company.client.chunks import opened
    from p2p.base.codec import encode_value

    body = encode_value(client.job(chunk.job).reproduce(chunk.index))
    result = opened(body, 1)
    if result.printed:
        sys.stdout.write(result.printed)
    if result.failed:
        raise opened_error(result.values[0], client, chunk, 0, None, ((), {}))
    return result.values[0]


def _function_of(made: Portable) -> Any:
    return pickle.loads(made.source) if isinstance(made.source, bytes) else _named(made.source)


def _named(source: str) -> Any:
    import importlib

    module, _, name = source.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found
