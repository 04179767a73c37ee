"""The same count in one plain process, without fragments: what a distributed run must agree with. Not used by the company.

python reference.py FOLDER [TOP]
"""

import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("wordcount_" + Path(name).stem, Path(__file__).parent / name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def reference(data_dir: Path, top: int = 50) -> dict[str, Any]:
    """Return what report.json must hold for ``data_dir``."""
    main, merge, split = _load("processor/main.py"), _load("merge.py"), _load("split.py")
    identifiers: Counter[str] = Counter()
    words: Counter[str] = Counter()
    totals = {"files": 0, "bytes": 0, "lines": 0}
    for path in split.source_files(Path(data_dir)):
        content = path.read_bytes()
        totals = {"files": totals["files"] + 1, "bytes": totals["bytes"] + len(content), "lines": totals["lines"] + content.count(b"\n")}
        for text, name in main.TOKEN.findall(content.decode("utf-8", "replace")):
            if name:
                identifiers[name] += 1
            for word in main.WORD.findall(text.lower()):
                words[word] += 1
    report: dict[str, Any] = merge.report_of(totals, identifiers, words, top)
    return report


if __name__ == "__main__":
    print(json.dumps(reference(Path(sys.argv[1]), *map(int, sys.argv[2:3])), indent=1, ensure_ascii=False))
