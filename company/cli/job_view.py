"""One job in words: the headline, the details, its end (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from company.cli.output import ago, colour, reason_lines, safe, short_digest, size
from company.config import format_count, format_duration


def progress_text(view: Mapping[str, Any]) -> str:
    """``612/1 000``, or ``612 of at least 1 000`` while split still runs."""
    counts = view.get("fragments") or {}
    done = int(counts.get("done", 0)) + int(counts.get("failed", 0))
    total = counts.get("total")
    if total is not None:
        return f"{format_count(done)}/{format_count(int(total))}"
    return f"{format_count(done)} of at least {format_count(int(counts.get('at_least', 0)))}"


def fraction_of(view: Mapping[str, Any]) -> float | None:
    """How much is done, 0 to 1; nil while nobody can know."""
    if view.get("state") == "done":
        return 1.0
    fraction = view.get("fraction")
    if fraction is not None:
        return max(0.0, min(1.0, float(fraction)))
    counts = view.get("fragments") or {}
    total = counts.get("total")
    if not total:
        return None
    return min(1.0, (int(counts.get("done", 0)) + int(counts.get("failed", 0))) / int(total))


def eta_text(view: Mapping[str, Any]) -> str:
    """The time left as a range, or that there is none yet."""
    eta = view.get("eta")
    if not eta:
        return "no estimate yet"
    low, high = float(eta["low_s"]), float(eta["high_s"])
    return format_duration(high) if high - low < 1 else f"{format_duration(low)} – {format_duration(high)}"


def rate_text(view: Mapping[str, Any]) -> str:
    """Fragments per second, minute or hour, whichever reads best."""
    rate = view.get("rate_per_s")
    if not rate:
        return ""
    for factor, unit in ((1, "s"), (60, "min"), (3600, "h")):
        if rate * factor >= 1 or unit == "h":
            number = rate * factor
            return f"{format_count(round(number)) if number >= 100 else f'{number:.1f}'} fragments/{unit}"
    return ""


def headline(view: Mapping[str, Any]) -> str:
    """One line: id, name, state, how far, how long, how many failed."""
    counts = view.get("fragments") or {}
    parts = [f"{view['id']} {safe(view.get('name', ''), 40)}".rstrip(), state_text(view), progress_text(view)]
    fraction = fraction_of(view)
    if fraction is not None:
        parts.append(f"{fraction * 100:.0f} %")
    if counts.get("failed"):
        parts.append(f"{format_count(int(counts['failed']))} failed")
    if view.get("state") in ("splitting", "running") and not view.get("paused"):
        parts += [p for p in (rate_text(view), f"ETA {eta_text(view)}" if view.get("eta") else "") if p]
    return "  ".join(parts)


def state_text(view: Mapping[str, Any]) -> str:
    """The state, with "paused" where that is so."""
    return f"{view['state']} (paused)" if view.get("paused") else str(view["state"])


def waiting_lines(view: Mapping[str, Any]) -> list[str]:
    """Why an unfinished job does not go on, and what helps."""
    if view.get("state") == "done":
        return []
    return reason_lines(view.get("reason"))


_COUNTS = (("leased", "running"), ("waiting", "waiting"), ("failed", "failed"))
_TIMES = (("created", "created"), ("started", "started"), ("finished", "ended"))


def details(view: Mapping[str, Any], now: float) -> str:
    """All that a person wants to know of one job."""
    counts = view.get("fragments") or {}
    memory = view.get("memory_bytes")
    params = ", ".join(f"{k}={v!r}" for k, v in (view.get("params") or {}).items())
    rows = [
        ("state", state_text(view)),
        ("package", f"{safe(view.get('package_name', ''))} {short_digest(view.get('package', ''))}"),
        ("data", f"{safe(view.get('dataset_name', ''))} {short_digest(view.get('dataset', ''))}"),
        ("params", safe(params, 200) or "-"),
        ("fragments", f"{progress_text(view)}, " + ", ".join(f"{counts.get(key, 0)} {word}" for key, word in _COUNTS)),
        ("speed", rate_text(view) or "-"),
        ("ETA", eta_text(view) if view.get("state") not in ("done", "failed", "cancelled") else "-"),
        ("owner", f"{safe(view.get('owner', ''))}, priority {view.get('priority', 0)}, where {view.get('where', 'own')}"),
        ("limits", f"{format_duration(float(view.get('time_limit_s', 0)))} and {size(memory)} a fragment"),
        ("max fails", str(view.get("max_fails", "0"))),
        ("times", ", ".join(f"{word} {ago(view.get(key), now)}" for key, word in _TIMES)),
        ("CPU", format_duration(float(view.get("cpu_s") or 0))),
    ]
    rows += worked_rows(view)
    if view.get("result_digest"):
        rows.append(("result", f"{safe(view.get('result_name') or '')} {size(view.get('result_bytes'))} sha256:{view['result_digest']}"))
    lines = [f"{view['id']}  {safe(view.get('name', ''))}", *(f"  {name:<10}{value}" for name, value in rows)]
    lines += [f"  status    [{s.get('fragment')}] {safe(s.get('text', ''), 120)}" for s in view.get("status") or []]
    return "\n".join([*lines, *waiting_lines(view)])


def worked_rows(view: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Own and borrowed slots, where there are borrowed ones; of a job that is over, what each did."""
    borrowed = view.get("borrowed") or []
    if not borrowed:
        return []
    if view.get("state") not in ("done", "failed", "cancelled"):
        return [("own slots", str(view.get("slots_own", 0))), *(("borrowed", borrowed_text(b)) for b in borrowed)]
    done = int((view.get("fragments") or {}).get("done", 0))
    return [("own slots", share_text(int(view.get("results_own", 0)), done)), *(("borrowed", lent_text(b, done)) for b in borrowed)]


def share_text(results: int, done: int) -> str:
    """So many results, and what part of all that is."""
    return f"{results} results ({100 * results / done:.0f} %)" if done else f"{results} results"


def lent_text(borrowed: Mapping[str, Any], done: int) -> str:
    """What one other company did for a job that is over."""
    results = int(borrowed.get("results", 0))
    spent = f", {format_duration(float(borrowed['run_s']))} of run time" if results and borrowed.get("run_s") is not None else ""
    contract = f", contract {str(borrowed['contract'])[:16]}" if borrowed.get("contract") else ""
    return f"{borrowed['company']}: {share_text(results, done) if results else 'no result of it counts'}{spent}{contract}"


CLOCKS = (("ends_in_s", "ends in"), ("lease_left_s", "silence ends it in"))


def borrowed_text(borrowed: Mapping[str, Any]) -> str:
    """What one other company does for a job."""
    waiting = int(borrowed.get("provisional", 0))
    clocks = [f"{label} {format_duration(float(borrowed[key]))}" for key, label in CLOCKS if borrowed.get(key) is not None]
    contract = f", contract {str(borrowed['contract'])[:16]}" if borrowed.get("contract") else ""
    checked = f", {waiting} of them wait to be checked" if waiting else ""
    text = f"{borrowed['company']}: {borrowed.get('slots', 0)} slots, {borrowed.get('results', 0)} results{checked}{contract}"
    return ", ".join([text, *clocks])


def ending(view: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> str:
    """What a person reads when a job has ended."""
    counts = view.get("fragments") or {}
    name = f"{view['id']} {safe(view.get('name', ''), 40)}".rstrip()
    took = ""
    if view.get("started") and view.get("finished"):
        took = f" in {format_duration(float(view['finished']) - float(view['started']))}"
    lines: list[str] = []
    if view["state"] == "done":
        failed = int(counts.get("failed", 0))
        missing = f", {failed} failed" if failed else ""
        lines.append(colour(f"{name} done{took}", "green") + f": {progress_text(view)} fragments{missing}")
        lines.append(f"  result: company job download {view['id']}")
    else:
        lines.append(colour(f"{name} {view['state']}{took}", "red" if view["state"] == "failed" else "yellow"))
        lines += reason_lines(view.get("reason"))
    if groups:
        lines += group_lines(groups[0])
        lines.append(f"  all failures: company job failures {view['id']}")
    return "\n".join(lines)


def group_lines(group: Mapping[str, Any]) -> list[str]:
    """One group of equal failures: how often, what, where, which fragments, and the traceback of the first."""
    first = group["first"]
    numbers = ", ".join(str(f) for f in group["fragments"][:10]) + (", …" if int(group["count"]) > 10 else "")
    what = " ".join(p for p in (str(group["exc_type"] or group["cause"]), "in " + str(group["place"]) if group["place"] else "") if p)
    lines = [f"  ×{group['count']} {safe(what, 120)}: {safe(group['message'], 200)}  (fragments {numbers})"]
    lines += [f"      {safe(line, 160)}" for line in str(first.get("traceback", "")).rstrip().splitlines()[-6:]]
    log = str(first.get("log_tail", "")).rstrip()
    if log:
        lines += ["      last lines of its log:", *(f"      | {safe(line, 160)}" for line in log.splitlines()[-5:])]
    if first.get("preview"):
        lines.append(f"      input: {safe(first['preview'], 160)}")
    if first.get("reproducible"):
        lines.append(f"      try it here: company job reproduce {first.get('job')}/{first.get('fragment')}")
    return lines


def strip(cells: Sequence[Sequence[Any]], width: int) -> str:
    """States of all fragments as one line of ``width`` characters at most: █ done, ▒ running, · waiting, X failed."""
    signs = {"done": "█", "failed": "X", "leased": "▒", "running": "▒"}
    total = sum(int(run) for _, run in cells)
    if not total:
        return ""
    line, position = "", 0
    width = min(width, total)
    for state, run in cells:
        position += int(run)
        sign = signs.get(str(state), "·")
        target = max(len(line) + (1 if sign == "X" else 0), round(position / total * width))  # one failure in a million is seen
        line += sign * (target - len(line))
    return line
