"""``python -m simulator``: list, run, sweep, validate, compare (I/O: terminal)."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from company.errors import INTERRUPTED, OK, USAGE, exit_code_of
from p2p.base.errors import ParallelError, UsageError
from simulator import parameters
from simulator.report import shown
from simulator.runs import Bar, at_path, folder_of, run_once, write_run
from simulator.scenario import Scenario

VALIDATION_FAILED = 1


class ScenarioGroup(click.Group):
    """``run dht --nodes 100``: one command per scenario, made from its parameters; modules are loaded when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of scenarios."""
        from simulator.registry import SCENARIOS

        return list(SCENARIOS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command:
        """The command of one scenario, or of a TOML file."""
        from simulator.registry import scenario_called

        if name.endswith(".toml"):
            return _toml_command(Path(name))
        scenario = scenario_called(name)
        lenient = {"ignore_unknown_options": True, "allow_extra_args": True}  # they are named with the other mistakes
        return click.Command(name, params=_options(scenario), callback=_runner(scenario), help=scenario.text, context_settings=lenient)


def _options(scenario: Scenario) -> list[click.Parameter]:
    found: list[click.Parameter] = [
        # values are taken as text and parsed together, so that all mistakes are named at once
        click.Option([f"--{p.name}", "p_" + p.name.replace("-", "_")], help=f"{p.text} (default {shown(p.default)})", metavar="VALUE")
        for p in scenario.parameters
    ]  # fmt: skip
    return [*found, *_common()]


def _common() -> list[click.Parameter]:
    return [
        click.Option(["--seed"], help="root of all random numbers (default 1)", metavar="N"),
        click.Option(["--json", "as_json"], is_flag=True, help="one JSON object on standard output"),
        click.Option(["--out"], type=click.Path(path_type=Path), help="folder for summary.json, report.html, scenario.lock.toml"),
        click.Option(["--events"], is_flag=True, help="keep events.ndjson.gz too, where the scenario has events"),
    ]


def _runner(scenario: Scenario) -> Any:
    def run(seed: str | None, as_json: bool, out: Path | None, events: bool, **raw: Any) -> None:
        given = {name.removeprefix("p_").replace("_", "-"): value for name, value in raw.items() if value is not None}
        words = click.get_current_context().args
        given |= {word.lstrip("-").partition("=")[0]: "" for word in words if word.startswith("--")}
        files = [Path(word) for word in words if word.endswith(".toml")]
        if not files:
            _execute(scenario, given, seed or "1", as_json, out, events)
            return
        name, own_seed, written, lines = _read(files[0])
        if name != scenario.name or len(files) > 1:
            raise UsageError("simulation-parameters", f"{files[-1]} is one file too many, or not of scenario {scenario.name}")
        lines = {name: line for name, line in lines.items() if name not in given}  # what the command line says comes first
        _execute(scenario, {**written, **given}, seed or str(own_seed), as_json, out, events, lines)

    return run


def _read(path: Path) -> tuple[str, int, dict[str, Any], dict[str, int]]:
    """A file's scenario, seed, parameters and their lines."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("simulation-parameters", f"{path} cannot be read: {error}") from None
    return parameters.read_toml(text)


def _toml_command(path: Path) -> click.Command:
    def run(seed: str | None, as_json: bool, out: Path | None, events: bool) -> None:
        from simulator.registry import scenario_called

        name, own_seed, given, lines = _read(path)
        _execute(scenario_called(name), given, seed or str(own_seed), as_json, out, events, lines)

    return click.Command(path.name, params=_common(), callback=run)


def _execute(
    scenario: Scenario,
    given: dict[str, Any],
    seed_text: str,
    as_json: bool,
    out: Path | None,
    events: bool,
    lines: dict[str, int] | None = None,
) -> None:
    seed, values = _checked(scenario, given, seed_text, lines)
    bar = Bar(scenario.name, quiet=as_json)
    if out is None:
        result, outcome = run_once(scenario, values, seed, bar)
    else:
        with folder_of(out, scenario.name, values, seed):
            result, outcome = run_once(scenario, values, seed, bar)
            write_run(out, scenario, result, outcome, with_events=events)
    bar.end()
    if as_json:
        click.echo(json.dumps(result))
        return
    for name in scenario.headline:
        found = at_path(result["metrics"], name)
        if found is not None:  # another engine, or nobody to measure it on
            click.echo(f"{name:<28}{shown(found)}")
    click.echo(f"{'took':<28}{result['wall_s']:.2f} s")
    if out is not None:
        click.echo(f"{'written':<28}{out}/report.html, summary.json, scenario.lock.toml")


def _checked(
    scenario: Scenario, given: dict[str, Any], seed_text: str, lines: dict[str, int] | None
) -> tuple[int, dict[str, parameters.Value]]:
    """Seed and values; one error for everything that is wrong."""
    wrong: list[str] = []
    seed = 0
    try:
        seed = int(seed_text)
    except ValueError:
        wrong.append(f"seed is a whole number, got {seed_text!r}")
    try:
        values = parameters.parse_all(scenario.parameters, given, lines)
    except UsageError as error:
        wrong += error.text.splitlines()
    if wrong:
        raise UsageError("simulation-parameters", "\n".join(wrong), hint=f"python -m simulator list {scenario.name}", errors=wrong)
    return seed, values


@click.group()
def root() -> None:
    """Ask this network questions at sizes that nobody can rent."""


@root.command("list")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="one JSON object on standard output")
def list_(name: str | None, as_json: bool) -> None:
    """Scenarios, each with its parameters."""
    from simulator.registry import SCENARIOS, scenario_called

    chosen = [scenario_called(name)] if name else list(SCENARIOS.values())
    if as_json:
        click.echo(json.dumps({s.name: {"text": s.text, "parameters": [_described(p) for p in s.parameters]} for s in chosen}))
        return
    width = min(shutil.get_terminal_size((100, 24)).columns, 120)
    for scenario in chosen:
        click.echo(click.style(scenario.name, bold=True))
        click.echo(textwrap.fill(scenario.text, width, initial_indent="  ", subsequent_indent="  ") + "\n")
        for p in scenario.parameters:
            bounds = f" {{{', '.join(p.choices)}}}" if p.choices else ""
            head = f"  --{p.name:<18} {shown(p.default):>12}  "
            click.echo(textwrap.fill(p.text + bounds, max(60, width), initial_indent=head, subsequent_indent=" " * len(head)))
        click.echo()
    click.echo(f"python -m simulator run {name or 'NAME'} --help    its options; the number beside a name is its default")


def _described(p: parameters.Parameter) -> dict[str, Any]:
    return {"name": p.name, "default": p.default, "text": p.text, "choices": list(p.choices)}


@root.group("run", cls=ScenarioGroup)
def run_group() -> None:
    """Run a scenario, or what a TOML file (a scenario.lock.toml) says."""


@root.command("sweep")
@click.argument("name")
@click.option(
    "--param", "spreads", multiple=True, required=True, metavar="NAME=A,B or NAME=FROM:TO:STEP", help="a parameter and its values"
)
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="a parameter that stays the same")
@click.option("--repeat", type=click.IntRange(1, 100_000), default=1, show_default=True, help="runs per point, each with a seed of its own")
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--jobs", default="auto", show_default=True, help="auto, a number, company, or dask:ADDRESS")
@click.option("--out", type=click.Path(path_type=Path), help="folder; run the same again to take up what was stopped")
@click.option("--json", "as_json", is_flag=True, help="one JSON object on standard output")
def sweep_command(
    name: str, spreads: tuple[str, ...], settings: tuple[str, ...], repeat: int, seed: int, jobs: str, out: Path | None, as_json: bool
) -> None:
    """Run a scenario over a grid of parameters."""
    from simulator.registry import scenario_called
    from simulator.sweep import sweep, table_of

    scenario = scenario_called(name)
    base = dict(setting.partition("=")[::2] for setting in settings)
    bar = Bar(f"sweep of {name}", quiet=as_json)
    folder = out or Path(f"sweep-{name}")
    whole = sweep(scenario, base, [parameters.spread(s) for s in spreads], repeat=repeat, seed=seed, jobs=jobs, out=folder, progress=bar)
    bar.end()
    if as_json:
        click.echo(json.dumps(whole))
        return
    rows = table_of(scenario, whole)
    widths = [max(len(row[i]) for row in rows) + 2 for i in range(len(rows[0]))]
    for row in rows:
        click.echo("".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    click.echo(f"written to {folder}/")


@root.command("validate")
@click.option("--quick", is_flag=True, help="fewer look-ups and smaller networks: about a quarter of a minute")
@click.option("--json", "as_json", is_flag=True, help="one JSON object on standard output")
@click.option("--page", "page_path", type=click.Path(path_type=Path), help="write the page as Markdown")
def validate_command(quick: bool, as_json: bool, page_path: Path | None) -> None:
    """Every published number beside ours, with intervals and a verdict."""
    from simulator.validate import as_markdown, validate

    bar = Bar("validate", quiet=as_json)
    rows = validate(quick=quick, progress=bar)
    bar.end()
    if page_path is not None:
        page_path.write_text(as_markdown(rows, quick=quick), "utf-8")
    if as_json:
        click.echo(json.dumps({"rows": [r.as_dict() for r in rows], "passed": all(r.passed for r in rows)}))
    else:
        for row in rows:
            click.echo(f"{'ok    ' if row.passed else 'FAILED'}  {row.what:<66} {row.published:>22} {row.ours:>26}")
    if not all(r.passed for r in rows):
        raise SystemExit(VALIDATION_FAILED)


@root.command("compare")
@click.argument("a", type=click.Path(exists=True, path_type=Path))
@click.argument("b", type=click.Path(exists=True, path_type=Path))
def compare_command(a: Path, b: Path) -> None:
    """What differs between two runs (folders, or files of --json)."""
    from simulator.sweep import compare

    results = []
    for path in (a, b):
        file = path / "summary.json" if path.is_dir() else path
        try:
            results.append(json.loads(file.read_text("utf-8")))
        except (OSError, ValueError) as error:
            raise UsageError("simulation-parameters", f"{file} is not a result: {error}") from None
    rows = compare(*results)
    if len(rows) == 1:
        click.echo("no difference but, perhaps, the time it took")
    for row in rows if len(rows) > 1 else ():
        click.echo(f"{row[0]:<44}{row[1]:>18}{row[2]:>18}{row[3]:>12}")


def main(args: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        root.main(list(sys.argv[1:] if args is None else args), prog_name="python -m simulator", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return USAGE
    except click.ClickException as error:
        error.show()
        return USAGE
    except (click.Abort, KeyboardInterrupt):
        click.echo("\nstopped; the folder keeps what is done: give the same command again", err=True)
        return INTERRUPTED
    except ParallelError as error:
        click.echo(f"error: {error.text}" + (f"\nhint: {error.hint}" if error.hint else ""), err=True)
        return exit_code_of(error)
    except SystemExit as error:
        return int(error.code or 0) if not isinstance(error.code, str) else 1
    return OK
