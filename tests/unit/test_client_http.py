"""Client and chief over a real socket: uploads that resume, downloads that are checked, errors that keep their code."""

import concurrent.futures
import hashlib
import io
import os
import socket
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from company.client import Client, connect
from company.client import upload as upload_module
from company.client.address import parse_url
from company.client.waited import group_failures
from company.errors import (
    ChiefUnreachable,
    ConfigurationError,
    FragmentsFailed,
    IntegrityError,
    JobCancelled,
    JobFailed,
    NotAuthorisedError,
    NotFoundError,
    NotReadyError,
    WaitTimedOut,
)  # fmt: skip
from p2p.base.codec import encode_value
from p2p.base.errors import UsageError
from p2p.base.frames import encode_frame_of
from tests.support.fake_chief_http import TOKEN, FakeChief, done_view, job_view, running


@pytest.fixture
def chief() -> Iterator[FakeChief]:
    with running(FakeChief()) as fake:
        yield fake


@pytest.fixture
def client(chief: FakeChief, tmp_path: Path) -> Iterator[Client]:
    with Client(parse_url(chief.url, TOKEN), state=tmp_path / "state") as made:
        yield made


# ---- errors and the connection
def test_a_wrong_token_is_not_authorised(chief: FakeChief) -> None:
    with Client(parse_url(chief.url, "wrong")) as client, pytest.raises(NotAuthorisedError) as caught:
        client.company()
    assert (caught.value.code, caught.value.hint) == ("token-missing", "company token create")


def test_connect_finds_the_chief_of_a_home(chief: FakeChief, tmp_path: Path) -> None:
    chief.jobs["j-7f3k"] = [job_view()]
    with connect(home=chief.write_home(tmp_path / "home")) as client:
        assert client.job("last").id == "j-7f3k"


def test_nobody_there_is_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with Client(parse_url(url, "t")) as client, pytest.raises(ChiefUnreachable) as caught:
            client.company()
    assert caught.value.code == "chief-unreachable"


def test_a_redirect_is_not_followed(client: Client, chief: FakeChief) -> None:
    chief.fixed["GET /api/v1/company"] = (307, {"to": "elsewhere"})
    with pytest.raises(ConfigurationError, match="redirects are not followed"):
        client.company()
    assert len(chief.seen) == 1


def test_an_answer_that_is_not_json_is_named(client: Client, chief: FakeChief) -> None:
    chief.fixed["GET /api/v1/company"] = (200, b"<html>")
    with pytest.raises(IntegrityError, match="not JSON"):
        client.company()


def test_threads_share_a_client_and_its_end_closes_what_each_had_open(client: Client, chief: FakeChief) -> None:
    """Executors of one client open their jobs in threads of their own."""
    together = threading.Barrier(4)

    def ask() -> int:
        together.wait(30)
        return sum(client.jobs()["items"] is not None for _ in range(5))

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert [f.result(60) for f in [pool.submit(ask) for _ in range(4)]] == [5] * 4
        client.close()
        assert client.jobs()["items"] is not None


def test_a_kept_connection_that_went_stale_is_replaced_once() -> None:
    """A server that answers one request per connection and closes without saying so."""
    listener = socket.create_server(("127.0.0.1", 0))
    answered: list[bytes] = []

    def serve() -> None:
        for _ in range(2):
            peer, _ = listener.accept()
            with peer:
                answered.append(peer.recv(65536))
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    thread = threading.Thread(target=serve)
    thread.start()
    with Client(parse_url(f"http://127.0.0.1:{listener.getsockname()[1]}", "t")) as client:
        assert client.company() == client.company() == {}
    thread.join()
    listener.close()
    assert len(answered) == 2


def test_a_post_does_not_use_a_connection_that_the_chief_has_closed() -> None:
    """A client that waited longer than the chief keeps connections; a POST cannot be tried twice."""
    listener = socket.create_server(("127.0.0.1", 0))
    answered: list[bytes] = []

    def serve() -> None:
        peer, _ = listener.accept()
        with peer:
            answered.append(peer.recv(65536))
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n" + b'{"path": "/"}')

    with Client(parse_url(f"http://127.0.0.1:{listener.getsockname()[1]}", "t")) as client:
        for _ in range(2):
            thread = threading.Thread(target=serve)
            thread.start()
            client.login_link()
            thread.join()  # from here on the connection is closed
    listener.close()
    assert [request.split()[0] for request in answered] == [b"POST", b"POST"]


# ---- uploads
def test_a_dataset_is_sent_once(client: Client, chief: FakeChief, tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_bytes(b"hello")
    first = client.upload_data(tmp_path / "corpus.txt")
    again = client.upload_data(tmp_path / "corpus.txt")
    assert (first["new"], again["new"], first["digest"]) == (True, False, hashlib.sha256(b"hello").hexdigest())
    assert len(chief.requests("POST", "/upload/data")) == 1


def test_a_directory_is_sent_as_a_tree_once(client: Client, chief: FakeChief, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a").write_bytes(b"1")
    assert client.upload_data(tmp_path / "tree")["kind"] == "tree"
    assert client.upload_data(tmp_path / "tree")["new"] is False


def test_a_chief_that_stores_something_else_is_noticed(client: Client, chief: FakeChief, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"hello")
    chief.fixed["POST /upload/data"] = (201, {"digest": "00" * 32, "name": "f", "kind": "file"})
    with pytest.raises(IntegrityError, match="sent was"):
        client.upload_data(tmp_path / "f")


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_module, "WHOLE_MAX_BYTES", 100_000)
    monkeypatch.setattr(upload_module, "PATCH_BYTES", 400_000)
    monkeypatch.setattr(upload_module, "PAUSE_S", 0.0)


@pytest.mark.usefixtures("small_pieces")
def test_a_large_upload_goes_in_pieces_and_survives_cuts(client: Client, chief: FakeChief, tmp_path: Path) -> None:
    data = os.urandom(1_000_000)
    (tmp_path / "big").write_bytes(data)
    chief.cut_after = [150_000, 0, 90_000]
    seen: list[int] = []
    view = client.upload_data(tmp_path / "big", progress=lambda phase, done, total: seen.append(done) if phase == "upload" else None)
    assert view["digest"] == hashlib.sha256(data).hexdigest()
    assert chief.contents[view["digest"]] == data
    assert seen[-1] == len(data)
    assert not list((tmp_path / "state" / "uploads").iterdir())  # nothing is left to go on with


@pytest.mark.usefixtures("small_pieces")
def test_an_upload_goes_on_in_another_run(chief: FakeChief, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = os.urandom(1_000_000)
    (tmp_path / "big").write_bytes(data)
    monkeypatch.setattr(upload_module, "TRIES", 1)
    chief.cut_after = [300_000]
    for attempt in range(2):
        with Client(parse_url(chief.url, TOKEN), state=tmp_path / "state") as client:
            if attempt == 0:
                with pytest.raises(ChiefUnreachable):
                    client.upload_data(tmp_path / "big")
            else:
                assert client.upload_data(tmp_path / "big")["digest"] == hashlib.sha256(data).hexdigest()
    assert len(chief.uploads) == 1
    offsets = [int(h["upload-offset"]) for m, _, h, _ in chief.seen if m == "PATCH"]
    assert offsets[:2] == [0, 300_000]


def test_a_package_is_checked_signed_and_sent(client: Client, chief: FakeChief, tmp_path: Path) -> None:
    from company.package import PackageClaim, files_digest, processor_digest, verify_package
    from company.package_init import init_package

    init_package(tmp_path / "wordcount")
    view = client.upload_package(tmp_path / "wordcount")
    headers, body = chief.requests("POST", "/upload/module-package")[0]
    with zipfile.ZipFile(io.BytesIO(body)) as bundle:
        files = {name: bundle.read(name) for name in bundle.namelist()}
    assert {"split.py", "merge.py", "processor/main.py"} <= set(files)
    claim = PackageClaim(package=files_digest(files), processor=processor_digest(files), name="wordcount", version="0.1.0", signed_for="")
    signature = bytes.fromhex(headers["company-signature"])
    verify_package(claim, signer=bytes.fromhex(headers["company-signer"]), signature=signature, chief=bytes(32))
    assert view["new"] is True


def test_a_faulty_package_is_refused_before_anything_is_sent(client: Client, chief: FakeChief, tmp_path: Path) -> None:
    (tmp_path / "split.py").write_text("def split(data):\n    yield 1 +\n")
    with pytest.raises(UsageError) as caught:
        client.upload_package(tmp_path)
    assert [e["line"] for e in caught.value.facts["errors"] if e["path"] == "split.py"] == [2]
    assert not chief.seen


# ---- jobs
def test_submit_takes_paths_and_names(client: Client, chief: FakeChief, tmp_path: Path) -> None:
    (tmp_path / "d").write_bytes(b"x")
    job = client.submit("wordcount", tmp_path / "d", params={"n": 1}, priority=None)
    assert job.view["package"] == "wordcount"
    assert "idempotency-key" in chief.requests("POST", "/api/v1/jobs")[0][0]
    with pytest.raises(UsageError, match="not there"):
        client.submit("wordcount", "./missing")


def test_wait_ends_with_the_job_and_tells_how_it_went(client: Client, chief: FakeChief) -> None:
    chief.jobs |= {"j-a": [job_view("j-a"), job_view("j-a"), done_view("j-a")], "j-b": [done_view("j-b", failed=2)]}
    chief.jobs |= {"j-c": [job_view("j-c", "failed")], "j-d": [job_view("j-d", "cancelled")]}
    chief.fixed["GET /api/v1/jobs/j-c/failures"] = (200, {"items": []})
    assert client.job("j-a").wait(check=True).state == "done"
    for ref, kind in (("j-b", FragmentsFailed), ("j-c", JobFailed), ("j-d", JobCancelled)):
        with pytest.raises(kind):
            client.job(ref).wait(check=True)


def test_waiting_may_time_out_and_the_job_goes_on(client: Client, chief: FakeChief) -> None:
    chief.jobs["j-a"] = [job_view("j-a")]
    with pytest.raises(WaitTimedOut) as caught:
        client.job("j-a").wait(0.01)
    assert caught.value.exit_code == 11


def frames(*results: tuple[int, object]) -> bytes:
    return b"".join(b"".join(encode_frame_of([index], [encode_value(value)])) for index, value in results)


def test_partial_results_come_once_each_and_keep_their_types(client: Client, chief: FakeChief) -> None:
    chief.jobs["j-a"] = [job_view("j-a"), job_view("j-a"), done_view("j-a")]
    chief.raw_results["j-a"] = frames((0, (1, 2)), (1, {"a": b"x"}), (3, 2**80))
    found = [(r.index, r.value) for r in client.job("j-a").as_completed(poll_s=0)]
    assert found == [(0, (1, 2)), (1, {"a": b"x"}), (3, 2**80)]
    starts = [path.partition("start=")[2] for _, path, _, _ in chief.seen if "/results" in path]
    assert starts == ["0", "2", "2"]  # what came without a gap is not asked for again


def test_a_torn_stream_of_results_is_noticed(client: Client, chief: FakeChief) -> None:
    chief.jobs["j-a"] = [done_view("j-a")]
    chief.raw_results["j-a"] = frames((0, "abc"))[:-1]
    with pytest.raises(IntegrityError):
        list(client.job("j-a").results())


def test_failures_are_grouped_by_where_they_happened() -> None:
    def failure(fragment: int, line: int, message: str) -> dict[str, object]:
        trace = f'Traceback:\n  File "/package/processor/main.py", line {line}, in process\n    x\nValueError: {message}'
        return {"fragment": fragment, "cause": "exception", "exc_type": "ValueError", "message": message, "traceback": trace}

    groups = group_failures([failure(1, 9, "a"), failure(2, 14, "b"), failure(3, 14, "c")])
    assert [(g["count"], g["place"]) for g in groups] == [(2, "processor/main.py:14"), (1, "processor/main.py:9")]
    assert groups[0]["fragments"] == [2, 3]


# ---- downloads
def test_a_download_resumes_after_cuts_and_is_verified(client: Client, chief: FakeChief, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    chief.jobs["j-a"] = [done_view("j-a")]
    chief.results["j-a"] = data
    chief.cut_after = [1_000_000, 500_000]
    [path] = client.job("j-a").download(tmp_path / "out")
    assert (path.name, path.read_bytes()) == ("result.txt", data)
    ranges = [h.get("range") for h, _ in chief.requests("GET", "/final-result")]
    assert ranges[0] is None and all(r is not None for r in ranges[1:]) and len(ranges) == 3
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["result.txt"]


def test_a_result_that_changed_meanwhile_starts_over(client: Client, chief: FakeChief, tmp_path: Path) -> None:
    chief.jobs["j-a"] = [done_view("j-a")]
    chief.results["j-a"] = b"new result"
    (tmp_path / ".j-a.part").write_bytes(b"old re")
    (tmp_path / ".j-a.part.etag").write_text('"' + hashlib.sha256(b"old result").hexdigest() + '"')
    [path] = client.job("j-a").download(tmp_path)
    assert path.read_bytes() == b"new result"


def test_a_result_with_another_digest_is_thrown_away(client: Client, chief: FakeChief, tmp_path: Path) -> None:
    chief.jobs["j-a"] = [done_view("j-a", result_digest="00" * 32)]
    chief.results["j-a"] = b"tampered"
    with pytest.raises(IntegrityError, match="record says"):
        client.job("j-a").download(tmp_path)
    assert not list(tmp_path.glob("*.txt"))


def test_a_bundle_is_unpacked_and_cannot_leave_its_folder(client: Client, chief: FakeChief, tmp_path: Path) -> None:
    def bundle(*names: str) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name in ("result.json", *names):
                archive.writestr(name, "{}")
        return buffer.getvalue()

    chief.jobs["j-a"], chief.result_name = [done_view("j-a")], "result.zip"
    chief.results["j-a"] = bundle("sub/picture.png")
    assert {p.relative_to(tmp_path).as_posix() for p in client.job("j-a").download(tmp_path)} == {"result.json", "sub/picture.png"}
    for name in ("../evil", "/evil", "a/../../evil"):
        chief.results["j-a"] = bundle(name)
        with pytest.raises(IntegrityError, match="unsafe entry"):
            client.job("j-a").download(tmp_path / "inner")
    assert not (tmp_path / "evil").exists()


def test_a_result_that_is_not_ready_is_temporary(client: Client, chief: FakeChief, tmp_path: Path) -> None:
    chief.jobs["j-a"] = [job_view("j-a")]
    with pytest.raises(NotReadyError) as caught:
        client.job("j-a").download(tmp_path)
    assert (caught.value.exit_code, caught.value.facts) == (75, {"done": 5})


def test_an_unknown_job_is_not_found(client: Client) -> None:
    with pytest.raises(NotFoundError):
        client.job("j-nope")
