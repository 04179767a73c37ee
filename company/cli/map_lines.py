"""company map: one command per line of standard input, on the workers of a company (I/O: standard input and output, files)."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from company.cli.framework import DURATION, SIZE, Command, Session, pass_session
from company.cli.output import note, print_json, safe
from company.errors import INTERRUPTED

if TYPE_CHECKING:
    from company.client.client import Client
    from company.client.command_lines import CommandResult
    from company.client.command_map import Line

_COMMAND_FOLLOWS = {"allow_interspersed_args": False}
MAX_LINE_BYTES = 1 << 20


@click.command("map", cls=Command, context_settings=_COMMAND_FOLLOWS)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("-a", "--arg-file", type=click.File("rb"), help="Read lines from here (else standard input).", show_default=False)
@click.option("-0", "--null", "is_null", is_flag=True, help="Lines end in a zero byte, as find -print0 writes them.")
@click.option("-j", "--jobs", type=click.IntRange(1), help="At most so many at a time (else all slots).", show_default=False)
@click.option("-k/-u", "--keep-order/--as-they-come", "ordered", default=True, help="Outputs in the order of the lines, or as they come.")
@click.option("--tag", is_flag=True, help="Each line of output begins with its line of input and a tab.")
@click.option("--retries", type=click.IntRange(1, 100), default=1, help="How often a command that fails is tried.")
@click.option("--timeout", type=DURATION, default="1h", help="How long one command may take: 90s, 10m.")
@click.option("--memory", type=SIZE, help="For each process of a command: 512MiB, 2GiB.", show_default=False)
@click.option("--joblog", type=click.Path(path_type=Path, dir_okay=False), help="Write a line for each command into this file.")
@click.option("--resume", is_flag=True, help="Leave out what --joblog says is done, and go on with that file.")
@click.option("--results", type=click.Path(path_type=Path, file_okay=False), help="Also keep each output in DIR/NUMBER/{stdout,stderr}.")
@click.option("--transferfile", "sent", multiple=True, metavar="FILE", help="Send this file along: '{}' is the one that the line names.")
@click.option("--return", "wanted", multiple=True, metavar="FILE", help="Bring this file back: '{.}.out'.")
@click.option("--basefile", "base", multiple=True, metavar="FILE", help="Send this file along with every command.")
@click.option("--dry-run", is_flag=True, help="Print the commands and run none.")
@click.option("--engine", type=click.Choice(["company", "local"]), default="company", help="A chief's workers, or this machine alone.")
@click.option("--slots", type=click.IntRange(1, 1024), help="With --engine local: how many (else one per core).", show_default=False)
@pass_session
def map_lines(session: Session, command: tuple[str, ...], engine: str, slots: int | None, dry_run: bool, **options: Any) -> int:
    """Run COMMAND once for each line of standard input, {} being the line, and print the outputs in order.

    Also {.} without its extension, {/} without its folder, {//} the folder, {/.} neither, {#} the number. Without a mark the line comes
    last; without a command each line is one. Words behind ::: take the place of lines. The shell sees each as one word. The exit code says
    how many failed, 101 for more than a hundred.
    """
    from company.client.command_lines import command_of, split_arguments

    template, arguments = split_arguments(command)
    lines = arguments if arguments is not None else _lines(options["arg_file"] or sys.stdin.buffer, b"\0" if options["is_null"] else b"\n")
    if dry_run:
        for number, line in enumerate(lines, 1):
            click.echo(command_of(template, line, number))
        return 0
    if options["resume"] and options["joblog"] is None:
        raise click.UsageError("--resume goes with --joblog")
    if slots is not None and engine != "local":
        raise click.UsageError("--slots goes with --engine local")
    with _open(session, engine, slots) as client:
        return _run(session, client, template, lines, options)


@contextlib.contextmanager
def _open(session: Session, engine: str, slots: int | None) -> Iterator[Client]:
    if engine == "company":
        yield session.client()
        return
    from company.client.private import local

    with local(slots) as client:
        yield client


def _run(session: Session, client: Client, template: str, lines: Iterable[str], options: Mapping[str, Any]) -> int:
    from company.client.command_lines import done_before, exit_code_of, relative_path
    from company.client.command_map import PROCESSES, SPARE_S, map_lines
    from company.client.executor import Executor
    from company.client.progress import bar_of

    log_path: Path | None = options["joblog"]
    skip = (
        done_before(log_path.read_text("utf-8", "surrogateescape")) if options["resume"] and log_path and log_path.exists() else set[int]()
    )
    base = {relative_path(name, "", 0): Path(name).read_bytes() for name in options["base"]}

    def files_of(number: int, line: str) -> dict[str, bytes]:
        paths = [relative_path(name, line, number) for name in options["sent"]]
        return {path: Path(path).read_bytes() for path in paths}

    def wanted_of(number: int, line: str) -> tuple[str, ...]:
        return tuple(relative_path(name, line, number) for name in options["wanted"])

    memory = f"{options['memory'] >> 10}KiB" if options["memory"] else None
    ex = Executor(client, name="map", progress=False, memory=memory, time_limit_s=options["timeout"] + SPARE_S, processes=PROCESSES)
    failed = 0
    try:
        with contextlib.ExitStack() as stack:
            out = _Outputs(session, options, stack.enter_context(_log(log_path, again=bool(skip))))
            found = map_lines(
                ex, lines, template, base_files=base, files_of=files_of, wanted_of=wanted_of, time_limit_s=options["timeout"],
                tries=options["retries"], ordered=options["ordered"], jobs=options["jobs"], skip=skip, on_done=out.done,
            )  # fmt: skip
            bar = bar_of("commands", None, False if sys.stdout.isatty() else None)  # not among the outputs
            for line, result in found:
                failed += not result.is_ok
                out.show(line, result)
                if bar is not None:
                    bar.advance()
            if bar is not None:
                bar.close()
    except KeyboardInterrupt:
        ex.shutdown(wait=False, cancel_futures=True)
        for job in ex.jobs:
            client.job(job).cancel()
        note("Interrupted: what had not ended was cancelled.")
        return INTERRUPTED
    except BaseException:
        ex.shutdown(wait=False, cancel_futures=True)
        raise
    ex.shutdown()
    return exit_code_of(failed)


@dataclass(slots=True)
class _Outputs:
    """Where results go."""

    session: Session
    options: Mapping[str, Any]
    log: IO[str] | None

    def done(self, line: Line, result: CommandResult) -> None:
        """At once: files, and the log."""
        from company.client.command_lines import log_line

        for path, content in result.files.items():
            _write(Path(path), content)
        if self.options["results"] is not None:
            folder = self.options["results"] / str(line.number)
            _write(folder / "stdout", result.stdout)
            _write(folder / "stderr", result.stderr)
        if self.log is not None:
            self.log.write(log_line(line.number, line.command, result, sent_bytes=line.sent_bytes))
            self.log.flush()

    def show(self, line: Line, result: CommandResult) -> None:
        """When it is its turn."""
        if self.session.as_json:
            view = {
                "seq": line.number, "line": line.text, "command": line.command, "exit": result.exit_code, "signal": result.signal,
                "stdout": _text(result.stdout), "stderr": _text(result.stderr), "worker": result.worker,
                "seconds": round(result.seconds, 3), "trouble": result.trouble,
            }  # fmt: skip
            print_json("map/1", view)
            sys.stdout.flush()
            return
        for stream, content in ((sys.stdout.buffer, result.stdout), (sys.stderr.buffer, result.stderr)):
            stream.write(self._tagged(line, content))
            stream.flush()
        if result.trouble:
            note(f"company: line {line.number}: {safe(result.trouble, 1000)}")

    def _tagged(self, line: Line, content: bytes) -> bytes:
        if not self.options["tag"] or not content:
            return content
        tag = os.fsencode(line.text) + b"\t"
        return b"".join(tag + part for part in content.splitlines(keepends=True))


@contextlib.contextmanager
def _log(path: Path | None, *, again: bool) -> Iterator[IO[str] | None]:
    from company.client.command_lines import LOG_HEAD

    if path is None:
        yield None
        return
    with path.open("a" if again else "w", encoding="utf-8", errors="surrogateescape") as file:
        if not again:
            file.write(LOG_HEAD)
            file.flush()
        yield file


def _lines(source: IO[bytes], end: bytes) -> Iterator[str]:
    """Lines as they come."""
    rest = b""
    while data := source.read1(1 << 16):  # type: ignore[attr-defined]
        *whole, rest = (rest + data).split(end)
        yield from map(os.fsdecode, whole)
        if len(rest) > MAX_LINE_BYTES:
            raise click.UsageError(f"a line has more than {MAX_LINE_BYTES} bytes; does it end in a zero byte (--null)?")
    if rest:
        yield os.fsdecode(rest)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    os.replace(part, path)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
