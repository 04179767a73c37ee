"""company job: everything about jobs, in job_*.py by what they need to import (I/O)."""

from __future__ import annotations

import click

from company.cli.framework import LazyGroup

COMMANDS = {
    "submit": "job_submit:submit",
    "list": "job_list:list_jobs",
    "show": "job_list:show",
    "watch": "job_follow:watch",
    "wait": "job_follow:wait",
    "logs": "job_follow:logs",
    "fragments": "job_list:fragments",
    "failures": "job_list:failures",
    "retry": "job_change:retry",
    "cancel": "job_change:cancel",
    "pause": "job_change:pause",
    "resume": "job_change:resume",
    "edit": "job_change:edit",
    "rm": "job_change:remove",
    "download": "job_files:download",
    "artifacts": "job_files:artifacts",
    "reproduce": "job_reproduce:reproduce",
}


@click.group(cls=LazyGroup, lazy=COMMANDS)
def job() -> None:
    """Submit, watch and fetch jobs. ID: a job's id, a unique prefix of it, or "last"."""
