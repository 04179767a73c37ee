"""``company demo`` as a user runs it: what it leaves, and that it leaves nothing else, whatever happens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from company.demo_company import DemoCompany, stopping_on_signals
from p2p.base.errors import Unavailable

COMMAND = (sys.executable, "-m", "company", "demo")
ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 300.0


def environ(tmp_path: Path) -> dict[str, str]:
    """Everything temporary lies below ``tmp_path``, so that a test sees what is left."""
    (tmp_path / "tmp").mkdir()
    return os.environ | {"TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": str(ROOT)}


def interruptible() -> None:
    """As on a terminal: what a shell starts in the background, the tests perhaps, inherits that Ctrl-C is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run_away(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run after a while; a zombie that nobody reaps does not run."""
    _, alive = psutil.wait_procs(processes, timeout=20)
    return [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.slow
def test_the_demo_gives_an_equal_count_and_a_picture_and_tidies_up(tmp_path: Path) -> None:
    done = subprocess.run(COMMAND, cwd=tmp_path, env=environ(tmp_path), capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The two reports are equal" in done.stdout
    out = tmp_path / "demo-output"
    report = json.loads((out / "report.json").read_text())
    assert report["files"] > 400
    assert dict(report["identifiers"])["self"] > 10_000
    assert (out / "image.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "image.png").stat().st_size > 50_000
    assert "self" in done.stdout and str(Path("demo-output/image.png")) in done.stdout
    assert "everything holds" in done.stdout and (out / "borrowed.contract").stat().st_size > 1000
    assert list((tmp_path / "tmp").glob("company-demo-*")) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_what_the_demo_started(number: signal.Signals, tmp_path: Path) -> None:
    with subprocess.Popen(
        COMMAND, cwd=tmp_path, env=environ(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=interruptible
    ) as process:
        assert process.stdout is not None
        watchdog = threading.Timer(TIMEOUT_S, process.kill)
        watchdog.start()
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("j-") and "running" in line:
                break
        started = psutil.Process(process.pid).children(recursive=True)
        assert len(started) >= 3, said  # a chief and two workers, and what they started
        process.send_signal(number)
        said += process.stdout.readlines()
        assert process.wait(60) == 130, said
        watchdog.cancel()
    assert run_away(started) == []
    assert list((tmp_path / "tmp").glob("company-demo-*")) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_between_the_two_acts_is_not_lost(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    with stopping_on_signals(), pytest.raises(KeyboardInterrupt):
        with DemoCompany() as company:
            monkeypatch.setattr(company, "_stop_all", lambda: signal.raise_signal(number))
        pytest.fail("the second act began")
    assert not company.home.parent.exists()


def test_a_process_that_does_not_start_is_named_and_its_log_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Unavailable) as caught, DemoCompany() as company:
        home = company.home
        company.start(("not a name!",))
    assert caught.value.code == "demo-not-ready"
    assert "not a name!" in caught.value.text
    shown = capsys.readouterr().err
    assert "last lines of not a name!" in shown and "bad-name" in shown
    assert not home.parent.exists()
