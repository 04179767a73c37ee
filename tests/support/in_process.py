"""Runs a package in this process, each value through the codec: what any engine must agree with."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from company.package import PackageInfo, check_package, check_params, read_package_dir
from p2p.base.codec import decode_value, encode_value


def load_module(path: Path) -> ModuleType:
    """Import a file under a name of its own."""
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}_{abs(hash(path))}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_in_process(
    package: Path, data: Path, output: Path, params: Mapping[str, Any], *, observe: Callable[[Any], None] = lambda fragment: None
) -> Any:
    """Split, process and merge; returns what merge returned. ``observe`` sees every fragment."""
    info = check_package(read_package_dir(package).files)
    check_params(info, params)
    split, merge = load_module(package / info.split_path), load_module(package / "merge.py")
    process = load_module(package / info.entry).process
    output.mkdir()
    expected = split.count(data, **_named(info, "count", params)) if "count" in info.functions else None
    seen = 0

    def results() -> Iterator[Any]:
        nonlocal seen
        for fragment in split.split(data, **_named(info, "split", params)):
            seen += 1
            observe(fragment)
            yield decode_value(encode_value(process(decode_value(encode_value(fragment)), **_named(info, "process", params))))

    value = merge.merge(results(), output, **_named(info, "merge", params))
    assert expected in (None, seen)
    return value


def _named(info: PackageInfo, function: str, params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if name in info.params[function] or function in info.accepts_any}
