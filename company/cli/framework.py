"""What all commands share: the options --home, --json, --url and --token-file, and the session made of them (I/O when asked).

The options may stand before or after the noun. Every option has an environment variable, COMPANY_<COMMAND>_<OPTION>.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from company.client import Client, Job

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True}


class Session:
    """One run of the command line: where home is, how to print, and the chief once it is needed."""

    def __init__(self) -> None:
        self.given_home: Path | None = None
        self.as_json = False
        self.url: str | None = None
        self.token_file: Path | None = None
        self._client: Client | None = None

    @property
    def home(self) -> Path:
        """--home, else $COMPANY_HOME, else the platform's data directory."""
        from company.paths import Home

        return Home.locate(self.given_home).root

    def client(self) -> Client:
        """The client of the chief that is meant. Raises `ChiefUnreachable` when none is known."""
        if self._client is None:
            from company.client.address import find_chief
            from company.client.client import Client

            address = find_chief(self.home, os.environ, url=self.url, token_file=self.token_file)
            self._client = Client(address, state=self.home / "client")
        return self._client

    def job(self, ref: str) -> Job:
        """One job, by id, unique prefix, or "last"."""
        return self.client().job(ref)


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    session = ctx.ensure_object(Session)
    if value not in (None, False) and param.name is not None:
        setattr(session, {"home": "given_home", "json": "as_json"}.get(param.name, param.name), value)


def _shared_options(needs_chief: bool) -> list[click.Parameter]:
    path = click.Path(path_type=Path)
    shared: dict[str, Any] = {"expose_value": False, "is_eager": True, "callback": _keep, "show_default": False}
    options: list[click.Parameter] = [
        click.Option(["--home"], type=path, metavar="PATH", help="Where this company lives (else $COMPANY_HOME).", **shared),
        click.Option(["--json"], is_flag=True, help="Print JSON, errors too.", **shared),
    ]
    if needs_chief:
        options += [
            click.Option(["--url"], metavar="URL", help="The chief's address (else $COMPANY_URL, else the one of --home).", **shared),
            click.Option(["--token-file"], type=path, metavar="FILE", help="File with the token (else $COMPANY_TOKEN).", **shared),
        ]
    return options


class Command(click.Command):
    """A command with the shared options. ``needs_chief``: whether it speaks to a chief, and so takes --url and --token-file."""

    def __init__(self, *args: Any, needs_chief: bool = True, **kwargs: Any) -> None:
        kwargs["params"] = [*(kwargs.get("params") or []), *_shared_options(needs_chief)]
        kwargs["context_settings"] = _CONTEXT | (kwargs.get("context_settings") or {})
        super().__init__(*args, **kwargs)


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called. ``lazy``: name to ``module:attribute``."""

    command_class = Command

    def __init__(self, *args: Any, lazy: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        kwargs["params"] = [*(kwargs.get("params") or []), *_shared_options(needs_chief=True)]
        kwargs["context_settings"] = _CONTEXT | (kwargs.get("context_settings") or {})
        super().__init__(*args, **kwargs)
        self._lazy = dict(lazy or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self._lazy, *(name for name in super().list_commands(ctx) if name not in self._lazy)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self._lazy[cmd_name].partition(":")
        found: click.Command = getattr(importlib.import_module(f"company.cli.{module}"), attribute)
        return found

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            import difflib

            near = difflib.get_close_matches(name, self.list_commands(ctx), n=2, cutoff=0.5)
            hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
            raise click.UsageError(f"No such command {name!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


pass_session: Callable[..., Any] = click.make_pass_decorator(Session, ensure=True)


class Parsed(click.ParamType[Any]):
    """An option that one of the parsers of `company.config` reads."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from p2p.base.errors import UsageError

        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except UsageError as error:
            self.fail(f"{error.text}; {error.hint}" if error.hint else error.text, param, ctx)


def _duration(text: str) -> float:
    from company.config import parse_duration_s

    return parse_duration_s(text)


def _size(text: str) -> int:
    from company.config import parse_size_bytes

    return parse_size_bytes(text)


DURATION = Parsed("duration", _duration)
SIZE = Parsed("size", _size)
