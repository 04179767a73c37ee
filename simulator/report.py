"""report.html: tables and plots of one run or sweep in one file that opens offline (I/O: reads the vendored plotter)."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from simulator.scenario import Plot, rounded

VENDOR = Path(__file__).parent / "static" / "vendor" / "uplot"
WIDE_FROM = 6  # columns: smaller letters; what is wider than the page all the same is scrolled by itself
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
.table{overflow-x:auto;margin:1rem 0}table{border-collapse:collapse}
td,th{padding:.2rem .8rem;border-bottom:1px solid #ddd;text-align:left;vertical-align:bottom}
td{font-variant-numeric:tabular-nums}.wide{font-size:13px}.wide td,.wide th{padding:.2rem .4rem}
h2{margin-top:2.5rem;font-size:1.1rem}.u-legend{font-size:13px}
"""
_SCRIPT = """
const colours=["#0b62a4","#c2410c","#15803d","#7e22ce","#b45309","#0f766e","#be123c","#475569"];
for(const p of JSON.parse(document.getElementById("plots").textContent)){
  const at=document.getElementById(p.id), names=Object.keys(p.curves);
  new uPlot({width:Math.min(900,at.clientWidth),height:360,
    scales:{x:{time:false,distr:p.log_x?3:1},y:{distr:p.log_y?3:1}},
    axes:[{label:p.x_name},{label:p.y_name,size:70}],
    series:[{label:p.x_name},...names.map((n,i)=>({label:n,stroke:colours[i%colours.length],width:2,points:{show:p.x.length<40}}))]
  },[p.x,...names.map(n=>p.curves[n])],at);
}
"""


def flat(value: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Metrics as dotted names; lists are left out."""
    if isinstance(value, Mapping):
        for name, inside in value.items():
            yield from flat(inside, f"{prefix}.{name}" if prefix else str(name))
    elif not isinstance(value, list | tuple):
        yield prefix, value


def shown(value: Any) -> str:
    """A value for people."""
    return f"{value:.5g}" if isinstance(value, float) else "-" if value is None else str(value)


def page(title: str, text: str, tables: Mapping[str, Sequence[Sequence[Any]]], plots: Sequence[Plot]) -> str:
    """The whole page; every table's first row is its head."""
    parts = []
    for name, rows in tables.items():
        head, *body = rows
        cells = "".join("<tr>" + "".join(f"<td>{html.escape(shown(c))}</td>" for c in row) + "</tr>" for row in body)
        titles = "".join(f"<th>{html.escape(str(c)).replace('_', '_<wbr>')}</th>" for c in head)  # long names may break
        is_wide = " wide" if len(head) > WIDE_FROM else ""
        parts.append(f'<h2>{html.escape(name)}</h2><div class="table{is_wide}" tabindex="0"><table><tr>{titles}</tr>{cells}</table></div>')
    data = [
        {
            "id": f"p{i}",
            "x": rounded(p.x),
            "curves": {n: rounded(list(c)) for n, c in p.curves.items()},
            "x_name": p.x_name,
            "y_name": p.y_name,
            "log_x": p.log_x,
            "log_y": p.log_y,
        }
        for i, p in enumerate(plots)
    ]
    parts += [f'<h2>{html.escape(p.title)}</h2><div id="p{i}"></div>' for i, p in enumerate(plots)]
    css, script = (VENDOR / name for name in ("uPlot.min.css", "uPlot.iife.min.js"))
    inlined = json.dumps(data).replace("<", "\\u003c")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title>"
        f"<style>{css.read_text('utf-8')}{_STYLE}</style><h1>{html.escape(title)}</h1><p>{html.escape(text)}</p>{''.join(parts)}"
        f'<script type="application/json" id="plots">{inlined}</script><script>{script.read_text("utf-8")}</script>'
        f"<script>{_SCRIPT}</script></html>\n"
    )
