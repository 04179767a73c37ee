"""Errors sorted by who must act, and the `Reason` that every waiting or refused thing carries (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from p2p.base.record import record


@record
class Action:
    """One thing a user can do about a `Reason`: words, and the command or page that does it."""

    label: str
    cli: str | None = None
    href: str | None = None


@record
class Reason:
    """Why something waits, was refused or failed: the same object in CLI, REST, web page and Python."""

    code: str  # kebab-case, stable, documented in docs/reasons.md
    text: str  # one sentence for a person
    facts: Mapping[str, Any] = field(default_factory=dict)
    actions: tuple[Action, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The JSON form used on every surface."""
        return {
            "code": self.code,
            "text": self.text,
            "facts": dict(self.facts),
            "actions": [{k: v for k, v in (("label", a.label), ("cli", a.cli), ("href", a.href)) if v is not None} for a in self.actions],
        }


class ParallelError(Exception):
    """Base of all errors that this project raises on purpose."""

    def __init__(self, code: str, text: str, *, hint: str = "", **facts: Any) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.hint = hint
        self.facts = facts

    def reason(self) -> Reason:
        """This error as the object that surfaces show."""
        return Reason(self.code, self.text, self.facts, (Action(self.hint),) if self.hint else ())


class UsageError(ParallelError):
    """The caller is wrong: fix the code, the command or the configuration."""


class PeerError(ParallelError):
    """The other side broke a rule: refuse, and keep the evidence."""


class Unavailable(ParallelError):
    """The network, a process or a resource is away for now: back off and retry."""


class InvariantBroken(ParallelError):
    """Our own bug: stop before more is damaged."""

    def __init__(self, text: str, **facts: Any) -> None:
        super().__init__("invariant-broken", text, **facts)


class MalformedMessage(PeerError):
    """The only thing an ``_untrusted`` function may raise."""

    def __init__(self, text: str, **facts: Any) -> None:
        super().__init__("malformed-message", text, **facts)
