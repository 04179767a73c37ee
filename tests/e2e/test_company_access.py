"""Tokens, roles, and a client that is nothing but HTTP."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import msgpack
import pytest

from company.errors import CompanyError
from p2p.base.keys import Identity
from tests.support.company_processes import COMPANY, RunningCompany, until, write_package


def test_a_viewer_reads_and_may_not_submit(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    package = write_package(tmp_path / "p", "def process(fragment):\n    return 1\n")
    job = company.run(package, numbers, params={"n": 1})
    viewer = company.client_with(company.client.create_token("viewer")["token"])
    assert viewer.job(job.id).state == "done"
    assert viewer.job(job.id).download(tmp_path / "out")
    for refused in (lambda: viewer.upload_package(package), lambda: viewer.submit(job.view["package"], job.view["dataset"])):
        with pytest.raises(CompanyError) as caught:
            refused()
        assert caught.value.exit_code == 77, caught.value


def test_a_submitter_submits_and_may_not_make_tokens(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    package = write_package(tmp_path / "p", "def process(fragment):\n    return 2\n")
    submitter = company.client_with(company.client.create_token("submitter")["token"])
    assert submitter.submit(package, numbers, params={"n": 1}).wait(30).state == "done"
    for role in ("worker", "owner"):
        with pytest.raises(CompanyError) as caught:
            submitter.create_token(role)
        assert caught.value.exit_code == 77


def test_a_submitter_may_not_touch_what_is_anothers(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    """The calls of its executor, its datasets, its packages."""
    ann, bob = (company.client_with(company.client.create_token("submitter", label=name)["token"]) for name in ("ann", "bob"))
    package = write_package(tmp_path / "p", "def process(fragment):\n    return 'of ann'\n")
    (tmp_path / "data").write_text("of ann\n")
    job = ann.submit(package, tmp_path / "data", stream=True)
    calls = f"/api/v1/jobs/{job.id}/calls"
    for refused, code in (
        (lambda: bob.transport.request("POST", calls, query={"first": 0}, body=b"anything"), "not-your-job"),
        (lambda: bob.transport.request("POST", f"{calls}/end", body=b""), "not-your-job"),
        (lambda: bob.remove_dataset(job.view["dataset"]), "not-your-upload"),
        (lambda: bob.remove_package(job.view["package"]), "not-your-upload"),
    ):
        with pytest.raises(CompanyError) as caught:
            refused()
        assert (caught.value.code, caught.value.exit_code) == (code, 77)
    ann.transport.request("POST", f"{calls}/end", body=b"")
    job.wait(60)
    job.remove()  # at once: its last line is still on its way to the disk
    ann.remove_package(job.view["package"])
    company.client.remove_dataset(job.view["dataset"])  # an owner may


def test_a_wrong_and_a_revoked_token_are_refused(company: RunningCompany) -> None:
    made = company.client.create_token("viewer")
    company.client_with(made["token"]).company()
    company.client.revoke_token(made["info"]["id"])
    live = company.client.create_token("viewer")["token"]  # of which all is right but the secret
    for token in (made["token"], altered(live, 6, bytes(16)), live[:-6] + "AAAAAA", "nonsense"):
        with pytest.raises(CompanyError) as caught:
            company.client_with(token).company()
        assert caught.value.exit_code == 77


def altered(token: str, position: int, value: object) -> str:
    """The same token with one field of its body replaced."""
    prefix, _, encoded = token.partition(".")
    body = msgpack.unpackb(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    body[position] = value
    return f"{prefix}.{base64.urlsafe_b64encode(msgpack.packb(body)).rstrip(b'=').decode()}"


def join_fault(company: RunningCompany, token: str, name: str) -> dict[str, Any]:
    """What `worker join` says of a token that it cannot use."""
    arguments = ("worker", "join", "--token-file", "-", "--name", name, "--slots", "1", "--json")
    done = company.command(*arguments, stdin=token + "\n", timeout_s=40)
    found: dict[str, Any] = json.loads(done.stderr.strip().splitlines()[-1])
    assert done.returncode == found["exit_code"] not in (0, 1), done.stderr
    return found


def test_each_fault_of_a_join_token_has_its_own_error(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    good = company.client.create_token("worker", uses=1)["token"]
    codes = {"malformed": join_fault(company, "cmpw1.nonsense!", "x1")["code"]}
    codes["unknown"] = join_fault(company, altered(good, 5, "nobody-knows-me"), "x2")["code"]
    codes["wrong secret"] = join_fault(company, altered(good, 6, bytes(32)), "x3")["code"]
    codes["wrong chief"] = join_fault(company, altered(good, 2, Identity(b"i" * 32).public), "x4")["code"]
    short = company.client.create_token("worker", ttl_s=1)["token"]
    ends = time.time() + 2.1
    revoked = company.client.create_token("worker")
    company.client.revoke_token(revoked["info"]["id"])
    codes["revoked"] = join_fault(company, revoked["token"], "x5")["code"]
    until(lambda: time.time() > ends, "the token's end")
    expired = join_fault(company, short, "x6")
    codes["expired"] = expired["code"]
    assert " ago" in expired["detail"], expired
    process = subprocess.Popen(
        [*COMPANY, "worker", "join", "--token-file", "-", "--name", "x7", "--slots", "1", "--json"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=company.environ, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(good.encode() + b"\n")
        process.stdin.close()
        assert json.loads(process.stdout.readline())
        codes["used up"] = join_fault(company, good, "x8")["code"]
    finally:
        process.terminate()
        process.wait(20)
        assert process.stdout is not None
        process.stdout.close()
    assert codes == {
        "malformed": "token-malformed", "unknown": "token-unknown", "wrong secret": "token-unknown", "wrong chief": "wrong-key",
        "revoked": "token-revoked", "expired": "token-expired", "used up": "token-used-up",
    }  # fmt: skip
    company.client.change_worker("x7", "rm")


def test_a_client_needs_nothing_but_http(company: RunningCompany, tmp_path: Path) -> None:
    """What a user does with curl: upload, submit, wait, download, and download a part."""
    base, token = company.ready["chief"]["http"], company.client.create_token("submitter")["token"]

    def call(method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(base + path, data=body, method=method, headers={"Authorization": f"Bearer {token}"} | named)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read()

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("split.py", "def split(data):\n    yield from data.read_text().split()\n")
        archive.writestr("processor/main.py", "def process(fragment):\n    return fragment.upper()\n")
        archive.writestr("merge.py", "def merge(results, output):\n    (output / 'loud.txt').write_text(' '.join(results))\n")
    status, _, body = call("POST", "/upload/module-package?name=loud", packed.getvalue(), Content_Type="application/zip")
    assert status == 201, body
    package = json.loads(body)["digest"]
    assert call("POST", "/upload/module-package?name=loud", packed.getvalue(), Content_Type="application/zip")[0] == 200
    status, _, body = call("POST", "/upload/data?name=words.txt", b"some quiet words", Content_Type="application/octet-stream")
    assert status == 201, body
    dataset = json.loads(body)["digest"]
    order = json.dumps({"package": package, "dataset": dataset}).encode()
    status, headers, body = call("POST", "/api/v1/jobs", order, Content_Type="application/json", Idempotency_Key="once")
    assert status == 201, body
    job = json.loads(body)["id"]
    status, _, body = call("POST", "/api/v1/jobs", order, Content_Type="application/json", Idempotency_Key="once")
    assert json.loads(body)["id"] == job, "the same key makes no second job"
    status, headers, body = call("GET", f"/final-result?job={job}&wait=30")
    assert (status, body) == (200, b"SOME QUIET WORDS")
    etag = headers["ETag"]
    status, headers, body = call("GET", f"/final-result?job={job}", Range="bytes=5-9", If_Range=etag)
    assert (status, body, headers["Content-Range"]) == (206, b"QUIET", "bytes 5-9/16")
    assert call("GET", f"/final-result?job={job}", Range="bytes=5-9", If_Range='"other"')[::2] == (200, b"SOME QUIET WORDS")
    assert call("GET", f"/final-result?job={job}", Range="bytes=99-")[0] == 416
    assert call("GET", "/final-result?job=j-nothing")[0] == 404


def test_a_result_that_is_not_ready_is_a_409_with_progress(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    package = write_package(tmp_path / "p", "import time\ndef process(fragment):\n    time.sleep(30)\n")
    job = company.client.submit(package, numbers, params={"n": 2})
    with pytest.raises(CompanyError) as caught:
        company.client.transport.request("GET", "/final-result", query={"job": job.id})
    assert caught.value.code == "result-not-ready"
    assert caught.value.exit_code == 75
    job.cancel()
    job.wait(20)
