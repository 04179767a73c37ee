"""Rules that hold for every command: the shared options, a help text, errors as JSON, exit codes, a quick start."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from company.cli.app import root, run

COMMANDS = {
    "start", "stop", "status", "doctor", "open", "explain", "demo", "run", "login", "run-script", "map", "divide",
    *(f"job {v}" for v in ("submit", "list", "show", "watch", "wait", "logs", "fragments", "failures", "retry")),
    *(f"job {v}" for v in ("cancel", "pause", "resume", "edit", "rm", "download", "artifacts", "reproduce")),
    *(f"package {v}" for v in ["init", "check", "upload", "list", "show", "rm"]),
    *(f"data {v}" for v in ["upload", "list", "show", "edit", "rm"]),
    *(f"worker {v}" for v in ["join", "list", "pause", "resume", "drain", "quarantine", "release", "rm"]),
    *(f"token {v}" for v in ["create", "list", "revoke", "inspect"]),
    *(f"network {v}" for v in ["status", "peers", "companies", "offers", "ping"]),
    *(f"network bootstrap {v}" for v in ["list", "add", "rm", "test"]),
    "lend status", "lend stop", "borrow search", "borrow request", "borrow policy", "tracker", "reputation explain", "reputation show",
    *(f"contract {v}" for v in ["accept", "block", "counter", "discard", "export", "later", "list", "receipts", "reject", "renew"]),
    *(f"contract {v}" for v in ["revoke", "send", "show", "verify", "amend", "blocked", "unblock"]),
    "admin backup", "admin restore",
}  # fmt: skip


def leaves(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from leaves(command, f"{path}{name} ")
        else:
            yield path + name, command


def test_the_tree_is_the_promised_one() -> None:
    assert {path for path, _ in leaves(root)} == COMMANDS


@pytest.mark.parametrize(("path", "command"), list(leaves(root)), ids=lambda value: value if isinstance(value, str) else "")
def test_every_command_takes_json_and_home_and_says_what_it_does(path: str, command: click.Command) -> None:
    options = {name for parameter in command.params for name in parameter.opts}
    assert {"--json", "--home"} <= options
    assert command.help and command.help.strip().endswith((".", "--watch"))
    for parameter in command.params:
        assert not isinstance(parameter, click.Option) or parameter.help, f"{path} {parameter.opts} has no help text"
        assert not (isinstance(parameter, click.Option) and parameter.prompt), f"{path} would ask where nobody may be"


@pytest.mark.parametrize("path", sorted(COMMANDS))
def test_help_works_for_every_command(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*path.split(), "--help"]) == 0
    assert f"Usage: company {path}" in capsys.readouterr().out


def test_an_unknown_command_is_a_usage_error_with_a_guess(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["job", "lsit"]) == 2
    assert "Did you mean 'list'" in capsys.readouterr().err


def test_errors_of_the_command_line_itself_are_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["job", "list", "--limit", "x", "--json"]) == 2
    error = json.loads(capsys.readouterr().err)
    assert (error["schema"], error["code"], error["exit_code"], error["retryable"]) == ("company.error/1", "usage", 2, False)


def test_no_chief_is_exit_code_69(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--home", str(tmp_path), "--json", "job", "list"]) == 69
    assert json.loads(capsys.readouterr().err)["code"] == "no-chief"
    assert run(["job", "list", "--home", str(tmp_path)]) == 69
    assert "→ start one with `company start`" in capsys.readouterr().err


def test_a_bug_is_exit_code_1_and_no_traceback(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.delenv("COMPANY_DEBUG", raising=False)
    monkeypatch.setattr(click.Group, "main", broken)
    assert run(["status"]) == 1
    error = capsys.readouterr().err
    assert "unexpected ZeroDivisionError: oh" in error and "Traceback" not in error
    for daemon in (["start"], ["worker", "join", "--json"]):
        assert run(daemon) == 1
        error = capsys.readouterr().err
        assert "unexpected ZeroDivisionError: oh" in error and "Traceback" in error, "a daemon's log says what ended it"


def test_options_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COMPANY_HOME", str(tmp_path))
    monkeypatch.setenv("COMPANY_JSON", "1")
    assert run(["job", "list"]) == 69
    assert json.loads(capsys.readouterr().err)["facts"]["home"] == str(tmp_path)
    monkeypatch.setenv("COMPANY_JOB_LIST_LIMIT", "0")
    assert run(["job", "list"]) == 2


def company(*args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("COMPANY_")}
    command = [sys.executable, "-m", "company", *args]
    return subprocess.run(command, capture_output=True, text=True, env=clean | environ, stdin=subprocess.DEVNULL, timeout=60, check=False)


def test_the_process_ends_with_the_exit_code(tmp_path: Path) -> None:
    assert company("--version").returncode == 0
    done = company("job", "list", "--home", str(tmp_path))
    assert (done.returncode, done.stdout) == (69, "")


def test_a_simple_command_imports_none_of_the_heavy_libraries(tmp_path: Path) -> None:
    code = (
        "import sys; from company.cli.app import run; "
        f"run(['job', 'list', '--json', '--home', {str(tmp_path)!r}]); "
        "print(sorted({m.partition('.')[0] for m in sys.modules} & {'trio', 'aiohttp', 'sqlalchemy', 'rich', 'numpy', 'msgspec', 'nacl', "
        "'platformdirs', 'asyncio', 'msgpack', 'packaging', 'zipfile', 'tarfile'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_company_imports_nothing_of_it() -> None:
    code = "import sys; before = set(sys.modules); import company; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() in ("['__future__', 'company']", "['company']")


def test_no_name_of_the_package_is_hidden_by_a_module_of_the_same_name() -> None:
    """Importing ``company.x`` sets the attribute x of the package, which would then be found instead of the function x."""
    import pkgutil

    import company as package

    modules = {found.name for found in pkgutil.iter_modules(package.__path__)}
    lazy = package._LAZY
    assert not {name for name, (_, attribute) in lazy.items() if attribute is not None} & modules


def test_the_names_of_the_package_come_when_they_are_used() -> None:
    import company as package

    assert package.connect.__module__ == "company.client.client"
    assert {"connect", "Client", "Job"} <= set(dir(package))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing
