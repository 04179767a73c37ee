"""company package: make, check and send module packages (I/O)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from company.cli.framework import LazyGroup, Session, pass_session
from company.cli.output import ago, note, print_json, safe, say, short_digest, size, table
from company.config import format_duration


@click.group(cls=LazyGroup)
def package() -> None:
    """Make, check and send packages: split.py, processor/main.py, merge.py."""


@package.command(needs_chief=False)
@click.argument("target", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--template", default="map", metavar="NAME", help="map (lines of a text), csv (rows by group) or montecarlo (seeds).")
@click.option("--name", help="The package's name (else the directory's).")
@pass_session
def init(session: Session, target: Path, template: str, name: str | None) -> None:
    """Write a package that works as it stands, with sample data."""
    from company.package_init import init_package

    files = init_package(target, template, name=name)
    if session.as_json:
        print_json("files/1", {"files": [str(f) for f in files]})
        return
    for file in files:
        say(str(file))
    sample = next((f for f in files if f.name.startswith("sample.")), target / "DATA")
    say(f"Try it: company run {target} {sample}    Send it: company job submit {target} {sample} --watch")


@package.command(needs_chief=False)
@click.argument("path", type=click.Path(path_type=Path), metavar="PKG")
@pass_session
def check(session: Session, path: Path) -> None:
    """Check a package without running or sending it: files, functions, signatures, syntax, size."""
    from company.package import check_package, read_package

    found = read_package(path)
    info = check_package(found.files, default_name=path.resolve().name, warnings=found.warnings)
    facts: dict[str, Any] = {
        "digest": info.digest.hex(), "name": info.name, "version": info.version, "size": info.size_bytes, "functions": list(info.functions),
        "params": {name: list(params) for name, params in info.params.items()}, "requirements": list(info.requirements),
        "memory_bytes": info.memory_bytes, "time_limit_s": info.time_limit_s, "warnings": list(info.warnings),
        "files": [{"path": name, "size": count} for name, count in info.files],
    }  # fmt: skip
    if session.as_json:
        print_json("package-check/1", facts)
        return
    say(f"{safe(info.name)} {safe(info.version)}  {len(info.files)} files, {size(info.size_bytes)}  sha256:{short_digest(facts['digest'])}")
    say(f"  functions  {', '.join(info.functions)}")
    parameters = sorted({name for names in info.params.values() for name in names})
    say(f"  params     {', '.join(parameters) or '-'}")
    say(f"  limits     {size(info.memory_bytes)} and {format_duration(info.time_limit_s)} a fragment")
    for warning in info.warnings:
        note(f"  ! {safe(warning)}")


@package.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True), metavar="PKG")
@click.option("--name", help="The package's name, where package.toml gives none.")
@pass_session
def upload(session: Session, path: Path, name: str | None) -> None:
    """Send a package directory or archive to the chief, which checks it."""
    view = session.client().upload_package(path, name=name)
    if session.as_json:
        print_json("package/1", view)
        return
    state = "new" if view["new"] else "already there"
    say(f"{safe(view['name'])}  {size(view.get('size'))}  sha256:{short_digest(view['digest'])}  {state}")
    for warning in view.get("warnings") or []:
        note(f"  ! {safe(warning)}")


@package.command("list")
@pass_session
def list_packages(session: Session) -> None:
    """List the packages at the chief."""
    found = session.client().packages()
    if session.as_json:
        print_json("packages/1", found)
        return
    now = time.time()
    rows = [
        [short_digest(p["digest"]), safe(p["name"], 40), safe(p.get("version", "")), size(p.get("size")), ago(p.get("uploaded"), now)]
        for p in found["items"]
    ]
    say(table(("DIGEST", "NAME", "VERSION", "SIZE", "UPLOADED"), rows))


@package.command()
@click.argument("ref", metavar="PACKAGE")
@pass_session
def show(session: Session, ref: str) -> None:
    """Show one package: files, functions, limits, who signed it."""
    view = session.client().package(ref)
    if session.as_json:
        print_json("package/1", view)
        return
    say(f"{safe(view['name'])} {safe(view.get('version', ''))}  sha256:{view['digest']}")
    for name, value in (
        ("functions", ", ".join(view.get("functions") or [])),
        ("python", view.get("python") or "any"),
        ("requires", ", ".join(view.get("requirements") or []) or "nothing"),
        ("limits", f"{size(view.get('memory_bytes'))} and {format_duration(float(view.get('time_limit_s') or 0))} a fragment"),
        ("signed by", f"{view.get('signer') or '-'}" + (f" for {view['signed_for']}" if view.get("signed_for") else "")),
    ):
        say(f"  {name:<10} {safe(value, 200)}")
    for file in view.get("files") or []:
        say(f"  {safe(file.get('path', ''))}  {size(file.get('size'))}")
    for warning in view.get("warnings") or []:
        say(f"  ! {safe(warning)}")


@package.command("rm")
@click.argument("ref", metavar="PACKAGE")
@pass_session
def remove(session: Session, ref: str) -> None:
    """Remove a package that no job uses."""
    session.client().remove_package(ref)
    if session.as_json:
        print_json("removed/1", {"package": ref})
    else:
        say(f"{ref} removed")
