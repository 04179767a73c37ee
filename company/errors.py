"""What a user may meet: one exception per kind of trouble, each with its exit code (pure).

The chief answers with problem+json; `error_of_problem` turns it back into an exception with the same code, text and hint, and the
command line turns that into a message and an exit code. The numbers are a promise to scripts: docs list them, they never change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from p2p.base.errors import InvariantBroken, ParallelError, PeerError, Unavailable, UsageError

OK: Final = 0
BUG: Final = 1
USAGE: Final = 2
SOME_FRAGMENTS_FAILED: Final = 3
JOB_FAILED: Final = 4
JOB_CANCELLED: Final = 5
NOT_FOUND: Final = 10
WAIT_TIMED_OUT: Final = 11
NOTHING_MATCHED: Final = 12
LIMIT: Final = 15
REFUSED: Final = 16
CONFLICT: Final = 17
INTEGRITY: Final = 18
UNREACHABLE: Final = 69
TEMPORARY: Final = 75
NOT_AUTHORISED: Final = 77
CONFIGURATION: Final = 78
INTERRUPTED: Final = 130

EXIT_CODES: Final[Mapping[int, str]] = {
    OK: "success",
    BUG: "unexpected error",
    USAGE: "usage error",
    SOME_FRAGMENTS_FAILED: "finished, but some fragments failed",
    JOB_FAILED: "job failed",
    JOB_CANCELLED: "job cancelled",
    NOT_FOUND: "not found",
    WAIT_TIMED_OUT: "timed out waiting (the job still runs)",
    NOTHING_MATCHED: "nothing matched",
    LIMIT: "quota, no space or another limit",
    REFUSED: "refused by policy",
    CONFLICT: "conflict or already exists",
    INTEGRITY: "integrity check failed",
    UNREACHABLE: "chief unreachable",
    TEMPORARY: "temporary, retry",
    NOT_AUTHORISED: "not authorised",
    CONFIGURATION: "configuration error",
    INTERRUPTED: "interrupted (the job goes on)",
}


class CompanyError(ParallelError):
    """Something that the chief, the network or a file refused. ``exit_code`` is what a command ends with."""

    exit_code: int = BUG
    retryable: bool = False


class NotFoundError(CompanyError):
    """No such job, package, dataset, worker or token."""

    exit_code = NOT_FOUND


class NotAuthorisedError(CompanyError):
    """The token is missing, wrong, expired, revoked, or its role is too small."""

    exit_code = NOT_AUTHORISED


class RefusedError(CompanyError):
    """Understood, and not allowed here."""

    exit_code = REFUSED


class ConflictError(CompanyError):
    """The thing is in a state that forbids it."""

    exit_code = CONFLICT


class NotReadyError(CompanyError):
    """Come back later."""

    exit_code = TEMPORARY
    retryable = True


class LimitError(CompanyError):
    """Too large, too many, or no space left; facts say limit and actual."""

    exit_code = LIMIT


class InvalidError(CompanyError):
    """Read, but wrong; ``facts["errors"]`` has path, line and detail."""

    exit_code = USAGE


class ConfigurationError(CompanyError):
    """Settings that cannot work together."""

    exit_code = CONFIGURATION


class IntegrityError(CompanyError):
    """The bytes are not the ones that were promised."""

    exit_code = INTEGRITY


class ChiefUnreachable(CompanyError):
    """Nobody answers where the chief should be."""

    exit_code = UNREACHABLE
    retryable = True


class WaitTimedOut(CompanyError):
    """The time to wait is over; the job goes on."""

    exit_code = WAIT_TIMED_OUT
    retryable = True


class JobFailed(CompanyError):
    """The job ended without a result; ``facts["groups"]`` has its errors."""

    exit_code = JOB_FAILED


class JobCancelled(CompanyError):
    """The job was cancelled."""

    exit_code = JOB_CANCELLED


class FragmentsFailed(CompanyError):
    """The job ended with a result that lacks some fragments."""

    exit_code = SOME_FRAGMENTS_FAILED


_BY_CODE: Final[Mapping[str, type[CompanyError]]] = {
    "job-failed": JobFailed,
    "job-cancelled": JobCancelled,
    "result-not-ready": NotReadyError,
    "home-in-use": ConflictError,
    "digest-mismatch": IntegrityError,
    "checksum-mismatch": IntegrityError,
    "storage-full": LimitError,
}
_BY_STATUS: Final[Mapping[int, type[CompanyError]]] = {
    400: InvalidError,
    401: NotAuthorisedError,
    404: NotFoundError,
    409: ConflictError,
    410: NotFoundError,
    412: ConflictError,
    413: LimitError,
    415: InvalidError,
    421: ConfigurationError,
    422: InvalidError,
    423: NotReadyError,
    426: ConfigurationError,
    429: NotReadyError,
    460: IntegrityError,
    503: NotReadyError,
    507: LimitError,
}
_POLICY_CODES: Final = ("policy", "contract", "refused", "transport")  # a 403 that no better token would mend


def error_of_problem(status: int, problem: Mapping[str, Any]) -> CompanyError:
    """The exception for one problem+json answer: by its code where that says more, else by its status."""
    code = str(problem.get("code") or f"http-{status}")
    text = str(problem.get("detail") or problem.get("title") or f"the chief answered {status}")
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status)
    if status == 403 and kind is None:
        kind = RefusedError if code.startswith(_POLICY_CODES) else NotAuthorisedError
    known = {"type", "title", "detail", "hint", "code", "status", "instance", "retryable", "self", "text"}
    facts = dict(problem["facts"]) if isinstance(problem.get("facts"), Mapping) else {}
    facts |= {str(k): v for k, v in problem.items() if k not in known and k != "facts"}
    return (kind or CompanyError)(code, text, hint=str(problem.get("hint") or ""), **_safe(facts))


def _safe(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in facts.items() if k not in ("code", "text", "hint", "self")}


_NAMES: Final[Mapping[str, int]] = {
    # errors of the chief's own port and of the local engine, by class name: this module must not import the chief
    "NotFound": NOT_FOUND,
    "Conflict": CONFLICT,
    "Refused": REFUSED,
    "TooLarge": LIMIT,
    "StorageFull": LIMIT,
    "Invalid": USAGE,
    "Refusal": REFUSED,  # a chief that will not take a worker
}
_TOKEN_FAULTS: Final = ("token-unknown", "token-revoked", "token-expired", "token-used-up")  # also where a chief says so by RPC


def exit_code_of(error: ParallelError) -> int:
    """The exit code for any error of the project."""
    if isinstance(error, CompanyError):
        return error.exit_code
    if error.code in _BY_CODE:
        return _BY_CODE[error.code].exit_code
    if error.code in _TOKEN_FAULTS:
        return NOT_AUTHORISED
    for kind in type(error).__mro__:
        if kind.__name__ in _NAMES:
            return _NAMES[kind.__name__]
    if isinstance(error, InvariantBroken):
        return BUG
    if isinstance(error, UsageError):
        return USAGE
    if isinstance(error, Unavailable):
        return TEMPORARY
    if isinstance(error, PeerError):
        return INTEGRITY
    return BUG


def exit_code_of_state(state: str, failed: int) -> int:
    """The exit code of a job that has ended."""
    if state == "failed":
        return JOB_FAILED
    if state == "cancelled":
        return JOB_CANCELLED
    return SOME_FRAGMENTS_FAILED if failed else OK
