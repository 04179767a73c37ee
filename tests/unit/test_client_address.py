"""The client finds the right chief, and its token goes nowhere else."""

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from company.client.address import ChiefAddress, find_chief, parse_url, read_running, save_context
from company.errors import ChiefUnreachable, ConfigurationError
from company.home_lock import HomeLock


def write_address(home: Path, **fields: object) -> None:
    run = home / "chief" / "run"
    run.mkdir(parents=True)
    (run / "address.json").write_text(json.dumps({"http": "127.0.0.1:8470", "token": "t", "pid": os.getpid(), "started": 5} | fields))


def test_the_running_chief_of_the_home_is_found(tmp_path: Path) -> None:
    write_address(tmp_path)
    assert find_chief(tmp_path, {}) == ChiefAddress(False, "127.0.0.1", 8470, "t", None, os.getpid(), 5.0)


def test_a_chief_on_every_interface_is_reached_through_loopback(tmp_path: Path) -> None:
    write_address(tmp_path, http="https://0.0.0.0:8470", fingerprint="ab" * 32)
    found = read_running(tmp_path)
    assert found is not None
    assert (found.url, found.fingerprint) == ("https://127.0.0.1:8470", "ab" * 32)


def test_what_the_caller_says_comes_before_the_environment_and_the_home(tmp_path: Path) -> None:
    write_address(tmp_path)
    environ = {"COMPANY_URL": "http://localhost:1", "COMPANY_TOKEN": "env"}
    assert find_chief(tmp_path, environ).url == "http://localhost:1"
    token_file = tmp_path / "token"
    token_file.write_text(" from-file \n")
    found = find_chief(tmp_path, environ, url="http://127.0.0.1:2", token_file=token_file)
    assert (found.url, found.token) == ("http://127.0.0.1:2", "from-file")


def test_a_home_without_a_chief_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ChiefUnreachable, match="no chief is running") as caught:
        find_chief(tmp_path, {})
    assert "company start" in caught.value.hint


def test_a_chief_that_is_starting_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "chief").mkdir()
    with HomeLock.take(tmp_path / "chief", "chief"), ThreadPoolExecutor(1) as other:
        found = other.submit(find_chief, tmp_path, {})
        with pytest.raises(TimeoutError):
            found.result(0.2)
        write_address(tmp_path)
        assert found.result(10).port == 8470


def test_a_dead_chief_gives_way_to_a_remembered_one(tmp_path: Path) -> None:
    write_address(tmp_path, pid=2**22 + 1)  # above any pid
    save_context(tmp_path, parse_url(f"https://far.example:8470#sha256:{'0f' * 32}", "far-token"))
    found = find_chief(tmp_path, {})
    assert (found.url, found.token, found.fingerprint) == ("https://far.example:8470", "far-token", "0f" * 32)


def test_a_remembered_token_is_private_and_only_for_its_own_address(tmp_path: Path) -> None:
    path = save_context(tmp_path, parse_url("https://far.example:8470", "secret"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert find_chief(tmp_path, {}, url="https://far.example:8470").token == "secret"
    assert find_chief(tmp_path, {}, url="https://evil.example:8470").token is None


@pytest.mark.parametrize("host", ["127.evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "chief.example", "[::1:2]"])
def test_a_name_that_begins_like_this_machine_is_another_one(host: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_url(f"http://{host}:8470", "token")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "[::1]"])
def test_this_machine_needs_no_encryption(host: str) -> None:
    assert parse_url(f"http://{host}:8470", "token").token == "token"


def test_a_token_is_not_sent_in_the_clear_to_another_machine() -> None:
    with pytest.raises(ConfigurationError, match="not encrypted") as caught:
        parse_url("http://far.example:8470", "secret")
    assert "ssh -L" in caught.value.hint
    assert parse_url("http://far.example:8470").token is None
    for loopback in ("http://127.0.0.1:8470", "http://[::1]:8470", "http://localhost:8470"):
        assert parse_url(loopback, "secret").token == "secret"


@pytest.mark.parametrize("url", ["ftp://a", "http://", "http://a:0", "http://a:99999", "https://a#sha256:12"])
def test_what_is_no_address_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_url(url)


@pytest.mark.parametrize("content", ["", "two words", "a\x00b"])
def test_a_token_file_holds_one_token(tmp_path: Path, content: str) -> None:
    (tmp_path / "token").write_text(content)
    with pytest.raises(ConfigurationError):
        find_chief(tmp_path, {"COMPANY_URL": "http://127.0.0.1:1"}, token_file=tmp_path / "token")
