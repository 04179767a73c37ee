"""company job download, artifacts: fetch what a job has made (I/O)."""

from __future__ import annotations

import json
from pathlib import Path

import click

from company.cli.framework import Command, Session, pass_session
from company.cli.output import note, print_json, safe, say, size, table
from company.errors import IntegrityError, exit_code_of_state

FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command(cls=Command)
@click.argument("id", default="last")
@click.option("-o", "--output", type=FOLDER, default=Path(), help="The directory to put it into.")
@click.option("--partial", is_flag=True, help="Print the results so far as JSON lines (with -o: into partial.ndjson), also while it runs.")
@click.option("--unpack/--no-unpack", default=True, help="Whether a result of several files is unpacked.")
@click.option("--verify/--no-verify", default=True, help="Whether the SHA-256 is compared.")
@pass_session
def download(session: Session, id: str, output: Path, partial: bool, unpack: bool, verify: bool) -> int | None:
    """Fetch a job's result. An interrupted download goes on where it stopped."""
    job = session.job(id)
    if partial:
        lines = job.result_lines()
        if output == Path():
            for line in lines:
                say(json.dumps(line))
            return None
        output.mkdir(parents=True, exist_ok=True)
        count = 0
        with (output / "partial.ndjson").open("w", encoding="utf-8") as file:
            for line in lines:
                file.write(json.dumps(line) + "\n")
                count += 1
        _tell(session, job.id, [output / "partial.ndjson"], f"{count} results so far")
        return None
    from company.cli.transfer import transfer_bar

    with transfer_bar(f"result of {job.id}", quiet=session.as_json) as progress:
        files = job.download(output, unpack=unpack, verify=verify, progress=progress)
    failed = int((job.view.get("fragments") or {}).get("failed", 0))
    _tell(session, job.id, files, f"{failed} fragments failed and are missing in it" if failed else "")
    return exit_code_of_state(job.state, failed)


@click.command(cls=Command)
@click.argument("id", default="last")
@click.option("--fetch", is_flag=True, help="Download them, each into a folder named like its fragment.")
@click.option("-o", "--output", type=FOLDER, default=Path("artifacts"), help="Where --fetch puts them.")
@pass_session
def artifacts(session: Session, id: str, fetch: bool, output: Path) -> None:
    """List or download the files that fragments left with task.artifact()."""
    job = session.job(id)
    found = job.artifacts()
    if not fetch:
        if session.as_json:
            print_json("artifacts/1", {"job": job.id, "items": found, "total": len(found), "returned": len(found), "truncated": False})
        else:
            say(table(("FRAGMENT", "NAME", "SIZE"), [[str(a["fragment"]), safe(a["name"], 60), size(a["size"])] for a in found]))
        return
    from company.client.download import download as fetch_file

    files = []
    for item in found:
        target = _target(output, item["fragment"], str(item["name"]))
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        got = fetch_file(session.client().transport, job.artifact_path(int(item["fragment"]), str(item["name"])), {}, part)
        if item.get("digest") and got.digest != item["digest"]:
            part.unlink()
            raise IntegrityError("digest-mismatch", f"artifact {item['name']} of fragment {item['fragment']} is damaged")
        part.replace(target)
        files.append(target)
    _tell(session, job.id, files, "")


def _target(folder: Path, fragment: object, name: str) -> Path:
    """Where an artifact goes; its name comes from the module and may not lead out of the folder."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    if not parts or "\0" in name:
        raise IntegrityError("unsafe-name", f"an artifact is called {name[:100]!r}")
    return folder.joinpath(str(int(str(fragment))), *parts)


def _tell(session: Session, job_id: str, files: list[Path], remark: str) -> None:
    if session.as_json:
        print_json("files/1", {"job": job_id, "files": [str(f) for f in files], "remark": remark})
        return
    for file in files[:50]:
        say(f"{file}  {size(file.stat().st_size)}")
    if len(files) > 50:
        say(f"… {len(files)} files in all")
    if remark:
        note(f"! {remark}")
