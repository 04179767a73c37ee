"""Commands against a stateful chief on a real socket: what they send, print and end with."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from company.cli.app import run
from company.client import connect
from company.package_init import init_package
from p2p.base.clock import UnixTime
from p2p.base.codec import encode_value
from p2p.base.errors import UsageError
from tests.support.fake_chief_http import TOKEN, FakeChief, done_view, job_view, running

FAILURE = {
    "job": "j-a", "fragment": 17, "tries": 3, "infra_tries": 0, "final": True, "cause": "exception", "exc_type": "ValueError",
    "message": "no such word", "traceback": 'Traceback:\n  File "/p/processor/main.py", line 4, in process\nValueError: no such word',
    "log_tail": "last words", "preview": "'xyz'", "worker": "w-1", "reproducible": True,
}  # fmt: skip
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def chief() -> Iterator[FakeChief]:
    with running(FakeChief()) as fake:
        yield fake


@pytest.fixture
def call(chief: FakeChief, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run one command against the chief of a home; gives exit code, output and errors."""
    for name in [n for n in os.environ if n.startswith("COMPANY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COMPANY_HOME", str(chief.write_home(tmp_path / "home")))

    def invoke(*args: str) -> tuple[int, str, str]:
        code = run(args)
        out, err = capsys.readouterr()
        return code, out, err

    return invoke


def listing(*items: Any) -> tuple[int, Any]:
    return 200, {"items": list(items), "total": len(items), "returned": len(items), "truncated": False}


# ---- jobs
def test_list_prints_every_job_and_says_when_there_are_more(call: Call, chief: FakeChief) -> None:
    reason = {"code": "no-worker", "text": "no worker has joined", "facts": {}, "actions": []}
    chief.jobs |= {"j-a": [done_view("j-a")], "j-b": [job_view("j-b", "queued", reason=reason)]}
    code, out, _ = call("job", "list")
    assert code == 0
    assert [line.split()[:3] for line in out.splitlines()[1:]] == [["j-b", "wordcount", "queued"], ["j-a", "wordcount", "done"]]
    assert "no worker has joined" in out
    code, out, err = call("job", "list", "--limit", "1")
    assert len(out.splitlines()) == 2 and "1 of 2 shown" in err
    found = json.loads(call("job", "list", "--json", "--state", "done")[1])
    assert (found["schema"], found["total"], found["items"][0]["id"]) == ("company.jobs/1", 1, "j-a")


def test_show_tells_why_and_what_helps(call: Call, chief: FakeChief) -> None:
    action = {"label": "Lower memory", "cli": "company job edit j-7f3k --memory 2GiB"}
    chief.jobs["j-7f3k"] = [job_view(reason={"code": "no-matching-worker", "text": "needs 4 GiB", "facts": {}, "actions": [action]})]
    _, out, _ = call("job", "show", "j-7")
    assert "no-matching-worker: needs 4 GiB" in out
    assert "→ Lower memory: company job edit j-7f3k --memory 2GiB" in out


def test_what_a_module_printed_cannot_drive_the_terminal(call: Call, chief: FakeChief) -> None:
    chief.jobs["j-a"] = [job_view("j-a", name="evil\x1b]0;title\x07", status=[{"fragment": 1, "text": "\x1b[2J", "fraction": None}])]
    _, out, _ = call("job", "show", "j-a")
    assert "\x1b" not in out and "\x07" not in out


def test_submit_uploads_what_is_here_and_names_what_is_there(call: Call, chief: FakeChief, tmp_path: Path) -> None:
    init_package(tmp_path / "pkg")
    (tmp_path / "corpus.txt").write_text("words")
    options = ("-p", "n=5", "-p", "word=hello", "--time-limit", "90s", "--memory", "512MiB", "--max-fails", "10%", "--name", "first")
    code, out, _ = call("job", "submit", str(tmp_path / "pkg"), str(tmp_path / "corpus.txt"), *options)
    assert code == 0 and "company job watch j-0new" in out
    sent = json.loads(chief.requests("POST", "/api/v1/jobs")[0][1])
    assert sent["package"] in chief.packages and sent["dataset"] in chief.datasets
    assert (sent["params"], sent["max_fails"]) == ({"n": 5, "word": "hello"}, "10%")
    assert (sent["time_limit_s"], sent["memory_bytes"], sent["name"]) == (90.0, 512 << 20, "first")
    assert call("job", "submit", "pkg-there", "data-there", "--json")[0] == 0
    assert json.loads(chief.requests("POST", "/api/v1/jobs")[1][1])["package"] == "pkg-there"


def test_every_field_of_a_submission_is_one_that_the_chief_knows(call: Call, chief: FakeChief) -> None:
    import msgspec

    from company.views import JobSubmit

    assert call("job", "submit", "p", "d", "--where", "any")[0] == 2, "who will see it was not confirmed, and nobody can be asked here"
    assert not chief.requests("POST", "/api/v1/jobs")
    options = (
        "--where",
        "any",
        "--yes-foreign",
        "--priority",
        "3",
        "--retries",
        "1",
        "--batching",
        "none",
        "--matching",
        "seed",
        "--time-limit",
        "1m",
    )
    assert call("job", "submit", "p", "d", *options)[0] == 0
    parsed = msgspec.json.decode(chief.requests("POST", "/api/v1/jobs")[0][1], type=JobSubmit)  # refuses unknown fields
    assert parsed.yes_foreign
    assert (parsed.where, parsed.priority, parsed.retries, parsed.batching, parsed.matching) == ("any", 3, 1, "none", "seed")


def test_a_missing_file_is_found_before_anything_is_sent(call: Call, chief: FakeChief, tmp_path: Path) -> None:
    code, _, err = call("job", "submit", "./missing", "data")
    assert code == 2 and "./missing is not there" in err
    init_package(tmp_path / "pkg")
    code, _, err = call("job", "submit", str(tmp_path / "pkg"), "/nowhere")
    assert code == 2 and "/nowhere is not there" in err
    with pytest.raises(UsageError):
        connect(chief.url, TOKEN, home=tmp_path).submit(tmp_path / "pkg", "/nowhere")
    assert not chief.seen


@pytest.mark.parametrize(
    ("view", "code"),
    [(done_view("j-a"), 0), (done_view("j-a", failed=2), 3), (job_view("j-a", "failed"), 4), (job_view("j-a", "cancelled"), 5)],
)
def test_watch_and_wait_end_as_the_job_did(call: Call, chief: FakeChief, view: dict[str, Any], code: int) -> None:
    chief.fixed["GET /api/v1/jobs/j-a/failures"] = listing(FAILURE)
    for command in (["watch"], ["wait"], ["wait", "--json"], ["watch", "--json"]):
        chief.jobs["j-a"] = [job_view("j-a"), job_view("j-a"), view]
        assert call("job", *command, "j-a")[0] == code


def test_a_failed_job_shows_its_first_error_and_the_way_to_the_rest(call: Call, chief: FakeChief) -> None:
    chief.jobs["j-a"] = [job_view("j-a", "failed", reason={"code": "max-fails", "text": "17 failed", "facts": {}, "actions": []})]
    chief.fixed["GET /api/v1/jobs/j-a/failures"] = listing(FAILURE, FAILURE | {"fragment": 18})
    code, out, _ = call("job", "watch", "j-a")
    assert code == 4
    assert "×2 ValueError in processor/main.py:4: no such word  (fragments 17, 18)" in out
    assert "company job failures j-a" in out and "company job reproduce j-a/17" in out


def test_watch_in_a_pipe_prints_a_line_on_change(call: Call, chief: FakeChief) -> None:
    chief.jobs["j-a"] = [job_view("j-a", "queued"), job_view("j-a", "queued"), job_view("j-a"), job_view("j-a"), done_view("j-a")]
    lines = call("job", "watch", "j-a")[1].splitlines()
    assert [line.split()[2] for line in lines[:3]] == ["queued", "running", "done"]
    assert "\r" not in "".join(lines) and "\x1b" not in "".join(lines)
    chief.jobs["j-a"] = [job_view("j-a", "queued"), job_view("j-a", "queued"), done_view("j-a")]
    views = [json.loads(line) for line in call("job", "watch", "j-a", "--json")[1].splitlines()]
    assert [v["state"] for v in views] == ["queued", "done"]


def test_a_wait_that_times_out_is_exit_code_11(call: Call, chief: FakeChief) -> None:
    chief.jobs["j-a"] = [job_view("j-a")]
    code, _, err = call("job", "wait", "j-a", "--timeout", "10ms")
    assert code == 11 and "company job watch j-a" in err


def test_ctrl_c_on_a_watch_detaches_and_says_how_to_come_back(call: Call, chief: FakeChief, monkeypatch: pytest.MonkeyPatch) -> None:
    from company.client.job import Job

    def interrupted(self: Job, *, wait_s: float = 0.0) -> dict[str, Any]:
        raise KeyboardInterrupt

    chief.jobs["j-a"] = [job_view("j-a")]
    monkeypatch.setattr(Job, "status", interrupted)
    for command in ("watch", "wait"):
        code, _, err = call("job", command, "j-a")
        assert code == 130 and "Detached. Re-attach: company job watch j-a" in err
    assert not [path for method, path, _, _ in chief.seen if method == "POST"]  # nothing was cancelled


def test_changes_are_what_the_chief_is_asked_for(call: Call, chief: FakeChief) -> None:
    chief.jobs["j-a"] = [job_view("j-a")]
    assert call("job", "pause", "j-a")[1].count("(paused)") == 1
    assert call("job", "resume", "j-a")[0] == 0
    assert call("job", "retry", "last", "--fragments", "3,7-9")[0] == 0
    assert json.loads(chief.requests("POST", "/api/v1/jobs/j-a/retry")[0][1]) == {"fragments": [3, 7, 8, 9]}
    assert call("job", "retry", "j-a", "--max-fails", "10%")[0] == 0
    assert json.loads(chief.requests("POST", "/api/v1/jobs/j-a/retry")[1][1]) == {"failed": True, "max_fails": "10%"}
    assert call("job", "retry", "j-a", "--merge", "--failed")[0] == 2
    assert call("job", "retry", "j-a", "--fragments", "9-7")[0] == 2
    assert json.loads(call("job", "edit", "j-a", "--memory", "1GiB", "--json")[1])["memory_bytes"] == 1 << 30
    assert call("job", "edit", "j-a")[0] == 2
    assert "cancelled" in call("job", "cancel", "j-a")[1]
    assert call("job", "rm", "j-a")[1] == "j-a removed\n"
    assert call("job", "show", "j-a")[0] == 10


def test_logs_are_told_apart_by_fragment_and_stream(call: Call, chief: FakeChief) -> None:
    chief.jobs["j-a"] = [job_view("j-a")]
    lines = [
        {"fragment": None, "stream": "event", "text": "split started"}, {"fragment": 3, "stream": "stdout", "text": "one\ntwo\n"},
        {"fragment": 4, "stream": "stderr", "text": "bad"},
    ]  # fmt: skip
    chief.fixed["GET /api/v1/jobs/j-a/logs"] = (200, "".join(json.dumps(line) + "\n" for line in lines).encode())
    assert call("job", "logs", "j-a")[1] == "-- split started\n[3] one\n[3] two\n[4] bad\n"
    assert call("job", "logs", "j-a", "--stream", "stderr")[1] == "[4] bad\n"
    assert [json.loads(line)["stream"] for line in call("job", "logs", "--json")[1].splitlines()] == ["event", "stdout", "stderr"]


def test_failures_and_fragments(call: Call, chief: FakeChief) -> None:
    chief.jobs["j-a"] = [job_view("j-a")]
    chief.fixed["GET /api/v1/jobs/j-a/failures"] = listing(FAILURE)
    cells = [["done", 500], ["failed", 1], ["leased", 99], ["waiting", 400]]
    chief.fixed["GET /api/v1/jobs/j-a/heatmap"] = (200, {"cells": cells, "total": 1000})
    assert "×1 ValueError" in call("job", "failures", "j-a")[1]
    assert "Traceback:" in call("job", "failures", "j-a", "--all")[1]
    assert json.loads(call("job", "failures", "j-a", "--json")[1])["groups"][0]["count"] == 1
    strip = call("job", "fragments", "j-a")[1].splitlines()[-2].strip()
    assert strip.count("X") == 1 and strip.startswith("█" * 39) and strip.endswith("·" * 30)  # one failure in a thousand is seen


def test_download_ends_with_the_jobs_own_code(call: Call, chief: FakeChief, tmp_path: Path) -> None:
    chief.jobs["j-a"], chief.results["j-a"] = [done_view("j-a", failed=1)], b"result"
    code, out, err = call("job", "download", "j-a", "-o", str(tmp_path / "out"))
    assert code == 3 and "result.txt" in out and "1 fragments failed" in err
    assert (tmp_path / "out" / "result.txt").read_bytes() == b"result"
    chief.jobs["j-b"] = [job_view("j-b")]
    assert call("job", "download", "j-b", "-o", str(tmp_path))[0] == 75
    assert call("job", "download", "j-b", "--partial")[1] == '{"fragment": 0, "value": 7}\n'
    assert call("job", "download", "j-b", "--partial", "-o", str(tmp_path))[0] == 0
    assert (tmp_path / "partial.ndjson").read_text() == '{"fragment": 0, "value": 7}\n'


def test_artifacts_stay_in_their_folder(call: Call, chief: FakeChief, tmp_path: Path) -> None:
    chief.jobs["j-a"] = [job_view("j-a")]
    item = {"job": "j-a", "fragment": 3, "name": "../../evil.txt", "size": 4, "digest": ""}
    chief.fixed["GET /api/v1/jobs/j-a/artifacts"] = listing(item)
    chief.fixed["GET /api/v1/jobs/j-a/artifacts/3/..%2F..%2Fevil.txt"] = (200, b"data")
    assert call("job", "artifacts", "j-a", "--fetch", "-o", str(tmp_path / "a" / "b"))[0] == 0
    assert (tmp_path / "a" / "b" / "3" / "evil.txt").read_bytes() == b"data"


def test_reproduce_runs_the_same_code_on_the_same_input(call: Call, chief: FakeChief, tmp_path: Path) -> None:
    init_package(tmp_path / "pkg")
    source = (
        "def process(fragment, *, factor, other=0):\n"
        "    if fragment < 0:\n"
        "        raise ValueError('below')\n"
        "    return fragment * factor\n"
    )
    (tmp_path / "pkg" / "processor" / "main.py").write_text(source)
    assert call("package", "upload", str(tmp_path / "pkg"))[0] == 0
    digest = next(iter(chief.packages))
    chief.jobs["j-a"] = [job_view("j-a", package=digest, params={"factor": 6, "unknown": 1})]
    chief.inputs |= {"j-a/17": encode_value(7), "j-a/18": encode_value(-1)}
    code, out, err = call("job", "reproduce", "j-a/17", "--pdb")
    assert code == 0 and "42" in out and "WARNING: without sandbox" in err
    code, _, err = call("job", "reproduce", "j-a/18", "--pdb")
    assert code == 3 and "ValueError: below" in err
    assert call("job", "reproduce", "j-a/99")[0] == 10
    assert call("job", "reproduce", "j-a")[0] == 2


# ---- packages, data, workers, tokens
def test_packages_and_data(call: Call, chief: FakeChief, tmp_path: Path) -> None:
    assert call("package", "init", str(tmp_path / "p"))[0] == 0
    checked = json.loads(call("package", "check", str(tmp_path / "p"), "--json")[1])
    assert {"split", "process", "merge"} <= set(checked["functions"])
    assert call("package", "upload", str(tmp_path / "p"))[1].rstrip().endswith("new")
    assert call("package", "upload", str(tmp_path / "p"))[1].rstrip().endswith("already there")
    assert call("package", "list")[1].splitlines()[1].split()[1] == "p"
    assert call("package", "show", "p")[0] == call("package", "rm", "p")[0] == 0
    assert call("package", "show", "p")[0] == 10
    (tmp_path / "d").write_text("x")
    assert json.loads(call("data", "upload", str(tmp_path / "d"), "--name", "named", "--json")[1])["name"] == "named"
    assert "named" in call("data", "list")[1] and call("data", "show", "named")[0] == 0
    assert call("data", "rm", "named")[1] == "named removed\n"


def test_a_faulty_package_shows_file_and_line(call: Call, tmp_path: Path) -> None:
    (tmp_path / "split.py").write_text("def split(data):\n    yield 1 +\n")
    code, _, err = call("package", "check", str(tmp_path))
    assert code == 2 and "split.py:2:" in err
    code, _, err = call("package", "check", str(tmp_path), "--json")
    assert code == 2 and json.loads(err)["code"] == "package-invalid"


def test_workers_are_listed_and_changed(call: Call, chief: FakeChief) -> None:
    worker = {"id": "w-1", "name": "amber", "state": "idle", "slots": 2, "slots_busy": 0, "memory_bytes": 1 << 33, "last_seen": 1.0}
    chief.fixed |= {"GET /api/v1/workers": listing(worker), "DELETE /api/v1/workers/w-1": (204, None)}
    actions = ("pause", "resume", "drain", "quarantine", "release")
    chief.fixed |= {f"POST /api/v1/workers/w-1/{a}": (202, worker | {"state": a}) for a in actions}
    assert "amber" in call("worker", "list")[1]
    for action in actions:
        assert call("worker", action, "w-1")[1] == f"amber: {action}\n"
    assert call("worker", "rm", "w-1")[0] == 0


def test_a_worker_token_prints_the_lines_to_copy(call: Call, chief: FakeChief) -> None:
    info = {"id": "t-12", "kind": "join", "role": "worker", "expires": 2e9, "uses_left": 5, "label": ""}
    made = {"token": "cmpw1.x", "info": info, "install_line": "curl …", "join_line": "company worker join cmpw1.x"}
    chief.fixed |= {"POST /api/v1/tokens": (201, made), "GET /api/v1/tokens": listing(info), "DELETE /api/v1/tokens/t-12": (204, None)}
    _, out, _ = call("token", "create", "--role", "worker", "--ttl", "2h", "--uses", "5")
    assert "works 5 times" in out and "    company worker join cmpw1.x" in out and "    curl …" in out
    assert json.loads(chief.requests("POST", "/api/v1/tokens")[0][1]) == {"role": "worker", "label": "", "ttl_s": 7200.0, "uses": 5}
    assert "t-12" in call("token", "list")[1]
    assert call("token", "revoke", "t-1")[1] == "t-12 revoked\n"
    assert call("token", "revoke", "t-9")[0] == 10


def test_a_token_can_be_read_without_a_chief(call: Call, chief: FakeChief) -> None:
    from company.tokens import JoinToken, encode_token

    fields = {"id": "t-1", "role": "worker", "secret": b"s" * 32, "chief_key": bytes(32), "addresses": ("10.0.0.1:8468",)}
    text = encode_token(JoinToken(**fields, expires=UnixTime(2_000_000_000)))
    code, out, _ = call("token", "inspect", text)
    assert code == 0 and "10.0.0.1:8468" in out and not chief.seen
    assert (b"s" * 32).hex() not in out
    assert call("token", "inspect", "nonsense")[0] in (2, 18)


# ---- the rest
def test_status_doctor_explain_open(call: Call, chief: FakeChief) -> None:
    company = {"id": "co-1", "name": "Bio Lab", "version": "1", "python": "3.11", "started": 1.0, "rpc": "r", "dht": None, "home": "/h"}
    chief.fixed["GET /api/v1/company"] = (200, company | {"slots": 0, "jobs": {"done": 2}})
    chief.jobs["j-a"] = [job_view("j-a")]
    out = call("status")[1]
    assert "Bio Lab" in out and "2 done" in out and "j-a" in out and "company token create" in out
    checks = [{"id": "disk", "verdict": "ok", "text": "fine", "fix": "", "link": ""}]
    chief.fixed["GET /api/v1/doctor"] = listing(*checks)
    assert call("doctor")[0] == 0
    failing = {"id": "sandbox", "verdict": "fail", "text": "none", "fix": "apt install bubblewrap", "link": ""}
    chief.fixed["GET /api/v1/doctor"] = listing(failing)
    code, out, _ = call("doctor")
    assert code == 78 and "→ apt install bubblewrap" in out
    chief.fixed["GET /api/v1/explain/j-a/17"] = listing({"code": "retry", "text": "tried twice", "facts": {}, "actions": []})
    assert "retry: tried twice" in call("explain", "j-a/17")[1]
    chief.fixed["POST /api/v1/login-links"] = (201, {"path": "/login?secret=x"})
    assert call("open")[1] == f"{chief.url}/login?secret=x\n"


def test_login_remembers_a_chief(call: Call, chief: FakeChief, tmp_path: Path) -> None:
    chief.fixed["GET /api/v1/company"] = (200, {"id": "co-1", "name": "Bio Lab"})
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "bad").write_text("wrong")
    home = ("--home", str(tmp_path / "other"))
    assert call("login", chief.url, "--token-file", str(tmp_path / "bad"), *home)[0] == 77
    assert call("job", "list", *home)[0] == 69
    assert call("login", chief.url, "--token-file", str(tmp_path / "token"), *home)[0] == 0
    assert call("job", "list", *home)[0] == 0


def test_backup_names_an_absolute_path(call: Call, chief: FakeChief, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chief.fixed["POST /api/v1/admin/backup"] = (201, {"size_bytes": 5})
    monkeypatch.chdir(tmp_path)
    assert call("admin", "backup", "b.tar")[0] == 0
    assert json.loads(chief.requests("POST", "/api/v1/admin/backup")[0][1]) == {"path": str(tmp_path / "b.tar")}


def test_restore_needs_an_empty_home(call: Call, tmp_path: Path) -> None:
    (tmp_path / "h" / "chief").mkdir(parents=True)
    (tmp_path / "h" / "chief" / "company.sqlite").touch()
    (tmp_path / "b.tar").touch()
    assert call("admin", "restore", str(tmp_path / "b.tar"), "--home", str(tmp_path / "h"))[0] == 17
