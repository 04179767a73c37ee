"""Becoming a worker: the token, once, against a membership that outlives restarts of both sides (I/O)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

import trio

from company import messages as m
from company.worker.dialling import Dialler
from company.worker.link import ANSWER_DEADLINE_S, Refusal, machine_item, warn_of_skew
from company.worker.options import Membership
from company.worker.retry import wait_before_attempt_s
from p2p.base.errors import PeerError, Unavailable
from p2p.base.keys import Identity
from p2p.net.channel import RefusedByPeer

if TYPE_CHECKING:
    from company.tokens import JoinToken

log = logging.getLogger(__name__)
PATIENCE_S = 60.0  # how long a first join waits for a chief that does not answer


async def join(
    token: JoinToken, *, identity: Identity, machine: Callable[[], m.Machine], via: str | None, rng: Random, patience_s: float = PATIENCE_S
) -> Membership:
    """Ask the chief of ``token`` to take this worker. The caller must save the membership before it goes on.

    Raises: `Refusal` with the chief's code when it will not; `PeerError` "wrong-key"; `Unavailable` after ``patience_s``.
    """
    dialler = Dialler(identity, chief_key=token.chief_key, addresses=token.addresses, via=via, via_first=True)
    deadline = trio.current_time() + patience_s
    attempt = 0
    while True:
        attempt += 1
        try:
            return await _ask(dialler, token, machine(), via)
        except RefusedByPeer as error:
            raise Refusal(str(error.facts.get("peer_code", "refused")), error.text) from None
        except Unavailable as error:
            wait_s = wait_before_attempt_s(attempt, rng)
            if trio.current_time() + wait_s >= deadline:
                raise
            log.log(logging.INFO if attempt == 1 else logging.DEBUG, "chief away: %s", error.text)
            await trio.sleep(wait_s)


async def _ask(dialler: Dialler, token: JoinToken, machine: m.Machine, via: str | None) -> Membership:
    channel = await dialler.open("join")
    try:
        await channel.send(m.Join(token.id, token.secret, via if dialler.used_via else None), *machine_item(machine))
        with trio.move_on_after(ANSWER_DEADLINE_S):
            message, _ = await channel.receive()
            if isinstance(message, m.Refused):
                raise Refusal(message.code_word or "refused", message.text or "the chief refused")
            if not isinstance(message, m.Joined):
                raise PeerError("chief-confused", f"the chief answered a Join with {type(message).__name__}")
            warn_of_skew(message.server_time)
            return Membership(
                chief_key=token.chief_key, addresses=tuple(token.addresses), worker=message.worker, supervisor=message.supervisor, via=via
            )
    finally:
        with trio.CancelScope(shield=True), trio.move_on_after(2):
            await channel.aclose()
    raise Unavailable("chief-silent", f"no answer to Join within {ANSWER_DEADLINE_S:g} s")
