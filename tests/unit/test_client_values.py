"""Durations, sizes, parameters and exit codes mean what people write."""

import pytest

from company.config import (
    format_count,
    format_duration,
    format_size,
    parse_address,
    parse_duration_s,
    parse_params,
    parse_size_bytes,
    typed_duration,
)
from company.errors import EXIT_CODES, CompanyError, JobFailed, NotFoundError, error_of_problem, exit_code_of, exit_code_of_state
from p2p.base.errors import InvariantBroken, MalformedMessage, Unavailable, UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("2h", 7200), ("1h30m", 5400), ("1h 30m", 5400), ("500ms", 0.5), ("90", 90), ("1.5d", 129600), ("10 min", 600)],
)
def test_a_duration_is_read_in_seconds(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (90, "1m30s"), (3600, "1h"), (5400, "1h30m"), (90061, "1d1h1m1s")])
def test_a_duration_is_written_as_it_is_typed_to_the_second(seconds: int, text: str) -> None:
    assert typed_duration(seconds) == text
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "10x", "1h30", "-5s", "1 2", "s10", "nan", "1e3"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a duration"):
        parse_duration_s(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("512MiB", 512 << 20), ("2GB", 2_000_000_000), ("1.5G", int(1.5 * 2**30)), ("1000", 1000), ("10 kib", 10240), ("0", 0), ("7B", 7)],
)
def test_a_size_is_read_in_bytes(text: str, size: int) -> None:
    assert parse_size_bytes(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1XB", "1 MiB x", "0x10"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a size"):
        parse_size_bytes(text)


def test_parameters_are_json_where_they_read_as_json() -> None:
    assert parse_params(["n=5", "name=hello", "flag=true", "xs=[1,2]", 's="5"', "empty=", "eq=a=b"]) == {
        "n": 5, "name": "hello", "flag": True, "xs": [1, 2], "s": "5", "empty": "", "eq": "a=b",
    }  # fmt: skip


@pytest.mark.parametrize("pairs", [["n"], ["=5"], ["a-b=1"], ["n=1", "n=2"]])
def test_a_parameter_that_python_could_not_name_is_refused(pairs: list[str]) -> None:
    with pytest.raises(UsageError):
        parse_params(pairs)


def test_an_address_has_a_port() -> None:
    assert parse_address("127.0.0.1:8470") == ("127.0.0.1", 8470)
    assert parse_address("[::1]:80") == ("::1", 80)
    assert parse_address(":0") == ("", 0)
    for bad in ("localhost", "a:99999", "a:", "a:x"):
        with pytest.raises(UsageError):
            parse_address(bad)


def test_numbers_are_short_and_have_units() -> None:
    assert [format_size(n) for n in (0, 1023, 1024, 4.2 * 2**30)] == ["0 B", "1023 B", "1.0 KiB", "4.2 GiB"]
    assert [format_duration(s) for s in (0.42, 42, 60, 200, 7500)] == ["0.4 s", "42 s", "1 min", "3 min 20 s", "2 h 5 min"]
    assert format_count(1234567) == "1 234 567"


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [
        (401, "token-expired", 77), (403, "role-missing", 77),
        (403, "not-your-job", 77), (403, "policy-refused", 16), (404, "job-unknown", 10), (409, "in-use", 17),
        (409, "result-not-ready", 75), (409, "job-failed", 4), (413, "package-too-large", 15), (421, "host-not-allowed", 78),
        (422, "package-invalid", 2), (429, "too-many-failed-logins", 75), (460, "checksum-mismatch", 18), (500, "invariant-broken", 1),
        (503, "busy", 75), (507, "storage-full", 15), (418, "odd", 1),
    ],
)  # fmt: skip
def test_every_refusal_of_a_chief_has_its_exit_code(status: int, code: str, exit_code: int) -> None:
    error = error_of_problem(status, {"code": code, "detail": "why", "hint": "do this", "limit": 7})
    assert exit_code_of(error) == exit_code
    assert (error.code, error.text, error.hint, error.facts) == (code, "why", "do this", {"limit": 7})
    assert exit_code in EXIT_CODES


def test_a_problem_of_a_stranger_cannot_overwrite_an_error() -> None:
    error = error_of_problem(404, {"code": "x", "detail": "d", "text": "evil", "self": 1, "facts": {"code": "evil", "a": 1}})
    assert (error.code, error.text, error.facts) == ("x", "d", {"a": 1})


def test_errors_of_other_parts_have_exit_codes_too() -> None:
    errors = (UsageError("a", "b"), Unavailable("a", "b"), MalformedMessage("b"), InvariantBroken("b"))
    assert [exit_code_of(error) for error in errors] == [2, 75, 18, 1]

    class NotFound(CompanyError.__mro__[1]):  # type: ignore[misc]  # as the chief's own port calls it
        pass

    assert exit_code_of(NotFound("a", "b")) == 10
    assert exit_code_of(UsageError("job-failed", "b")) == JobFailed.exit_code
    assert isinstance(error_of_problem(404, {}), NotFoundError)


def test_the_end_of_a_job_is_an_exit_code() -> None:
    assert [exit_code_of_state(*end) for end in (("done", 0), ("done", 2), ("failed", 0), ("cancelled", 0))] == [0, 3, 4, 5]
