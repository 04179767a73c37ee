"""Add up the counts of all fragments and write the report."""

import json
import keyword
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TOTALS = ("files", "bytes", "lines")


def merge(results: Iterator[dict[str, Any]], output: Path, top: int = 50) -> dict[str, Any]:
    """Write report.json and report.txt; return the totals."""
    totals = dict.fromkeys(TOTALS, 0)
    identifiers: Counter[str] = Counter()
    words: Counter[str] = Counter()
    for result in results:  # one after the other: never more than one result in memory
        for key in TOTALS:
            totals[key] += result[key]
        identifiers.update(result["identifiers"])
        words.update(result["words"])
    report = report_of(totals, identifiers, words, top)
    (output / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (output / "report.txt").write_text(text_of(report), encoding="utf-8")
    return {key: report[key] for key in (*TOTALS, "different_words", "different_identifiers")}


def report_of(totals: dict[str, int], identifiers: Counter[str], words: Counter[str], top: int) -> dict[str, Any]:
    """The report: totals, and the ``top`` most frequent of each kind, ties in the order of the alphabet."""
    names = {name: count for name, count in identifiers.items() if not keyword.iskeyword(name)}
    return {
        **totals,
        "different_words": len(words),
        "different_identifiers": len(names),
        "keywords": most({name: count for name, count in identifiers.items() if keyword.iskeyword(name)}, top),
        "identifiers": most(names, top),
        "words": most(words, top),
    }


def most(counts: dict[str, int], top: int) -> list[list[Any]]:
    """The ``top`` most frequent as [text, count]."""
    return [[text, count] for text, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:top]]


def text_of(report: dict[str, Any]) -> str:
    """The report for reading."""
    lines = [f"{report['files']:,} files, {report['lines']:,} lines, {report['bytes']:,} bytes"]
    lines += [f"{report['different_words']:,} different words, {report['different_identifiers']:,} different identifiers"]
    for kind in ("keywords", "identifiers", "words"):
        lines += ["", f"most frequent {kind}"]
        lines += [f"{count:>10,}  {text}" for text, count in report[kind]]
    return "\n".join(lines) + "\n"
