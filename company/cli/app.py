"""The tree of commands, and the one place where an error becomes a message and an exit code (I/O: standard error)."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

import click

from company.cli.framework import LazyGroup, Session
from company.errors import BUG, EXIT_CODES, INTERRUPTED, USAGE, exit_code_of
from p2p.base.errors import ParallelError

NOUNS = {
    "start": "start:start",
    "stop": "stop:stop",
    "status": "status:status",
    "doctor": "doctor:doctor",
    "open": "open_page:open_page",
    "explain": "explain:explain",
    "demo": "demo:demo",
    "run": "run:run_package",
    "run-script": "run_script:run_script",
    "map": "map_lines:map_lines",
    "divide": "divide:divide",
    "job": "job:job",
    "package": "package:package",
    "data": "data:data",
    "worker": "worker:worker",
    "network": "network:network",
    "lend": "lend:lend",
    "borrow": "borrow:borrow",
    "tracker": "tracker:tracker",
    "token": "token:token",
    "contract": "contract:contract",
    "reputation": "reputation:reputation",
    "login": "login:login",
    "admin": "admin:admin",
}
DAEMONS = frozenset({"start", "join"})
_EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code:>3}  {text}" for code, text in EXIT_CODES.items())


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from company import __version__

        click.echo(f"company {__version__} (Python {sys.version.split()[0]})")
        ctx.exit()


@click.group(cls=LazyGroup, lazy=NOUNS, epilog=_EPILOG)
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Print the version.")
def root() -> None:
    """A company of processes that computes for you: split, process in parallel, merge."""


def run(args: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Never raises."""
    arguments = list(sys.argv[1:] if args is None else args)
    session = Session()
    try:
        result = root.main(arguments, prog_name="company", standalone_mode=False, auto_envvar_prefix="COMPANY", obj=session)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return USAGE
    except click.ClickException as error:
        code = error.exit_code if error.exit_code != 1 else USAGE
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx is not None else ""
        hint = f"see `{where} --help`" if where else ""
        return _report(session, arguments, "usage", error.format_message(), hint, code)
    except (click.Abort, KeyboardInterrupt):
        return _report(session, arguments, "interrupted", "interrupted", "", INTERRUPTED)
    except ParallelError as error:
        return _report(session, arguments, error.code, error.text, error.hint, exit_code_of(error), error)
    except BrokenPipeError:
        # The reader of a pipe has gone, as `head` does: nothing is wrong, and nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:  # noqa: BLE001 - the boundary of this process
        return _report_bug(session, arguments, error)
    return result if isinstance(result, int) else 0


def _wants_json(session: Session, arguments: Sequence[str]) -> bool:
    """Whether errors are to be JSON, also when the command line itself could not be read."""
    return session.as_json or "--json" in arguments


def _report(
    session: Session, arguments: Sequence[str], code: str, text: str, hint: str, exit_code: int, error: ParallelError | None = None
) -> int:
    if _wants_json(session, arguments):
        body = {
            "schema": "company.error/1", "code": code, "exit_code": exit_code, "title": EXIT_CODES.get(exit_code, "error"),
            "detail": text, "hint": hint, "retryable": bool(getattr(error, "retryable", False)), "facts": error.facts if error else {},
        }  # fmt: skip
        click.echo(json.dumps(body, default=str), err=True)
        return exit_code
    from company.cli.output import safe

    click.echo(f"company: {safe(text)}" + (f"  [{code}]" if error is not None else ""), err=True)
    for fault in (error.facts.get("errors") if error is not None else None) or []:
        if isinstance(fault, dict):
            line = f":{fault['line']}" if fault.get("line") else ""
            click.echo(f"  {safe(fault.get('path', ''))}{line}: {safe(fault.get('detail', ''))}", err=True)
    if hint:
        click.echo(f"  → {safe(hint)}", err=True)
    return exit_code


def _report_bug(session: Session, arguments: Sequence[str], error: Exception) -> int:
    text = f"unexpected {type(error).__name__}: {error}"
    is_daemon = any(word in DAEMONS for word in arguments)  # what ended one must stand in its log, for it cannot be run again to see
    hint = "this is a bug in company; please report it" if is_daemon else "this is a bug in company; COMPANY_DEBUG=1 shows where"
    _report(session, arguments, "bug", text, hint, BUG)
    if is_daemon or os.environ.get("COMPANY_DEBUG"):
        import traceback

        traceback.print_exception(error)
    return BUG
