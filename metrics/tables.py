"""The tables of an evaluation, as papers print them: Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from manifests import storage
from manifests.text import one_line
from metrics.metric import REAL
from metrics.results import Figure, Results, Value

LATEX_NEEDS = "% \\usepackage{booktabs}; of graphicx where it is too wide: \\resizebox{\\textwidth}{!}{...}"
ARROWS = {"higher": "↑", "lower": "↓"}
_TEX = {
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"|": r"\textbar{}", "<": r"\textless{}", ">": r"\textgreater{}"},
    "[": "{[}",  # at the beginning of a row it would be the option of the line break before
}
FIRST, SECOND = 1, 2


def write_tables(results: Results, folder: Path) -> list[Path]:
    """Write `table.md`, `table.tex`, `table_intervals.tex` and `table.csv` into the evaluation's folder."""
    texts = {
        "table.md": markdown(results),
        "table.tex": latex(results),
        "table_intervals.tex": latex(results, with_intervals=True),
        "table.csv": comma_separated(results),
    }
    with storage.written(folder):
        for name, text in texts.items():
            storage.write_bytes(folder / name, text.encode())
    return [folder / name for name in texts]


def places(figure: Figure, dataset: str) -> dict[str, int]:
    """Which methods are best (1) and second best (2) in a column; equal values share a place.

    The real clips take no part, and neither does a column with one value.
    """
    values = {m: v.value for m, v in figure.values[dataset].items() if m != REAL and v.value is not None}
    ranked = sorted(set(values.values()), reverse=figure.better == "higher")
    if len(values) < 2:
        return {}
    return {m: ranked.index(v) + 1 for m, v in values.items() if ranked.index(v) < SECOND}


def digits(value: float) -> str:
    """A value as papers print it: four digits, three decimals at most; more where less than 0.1 is left."""
    size = abs(value)
    if 0 < size < 0.1:
        return f"{value:.{min(8, 2 - math.floor(math.log10(size)))}f}"
    return f"{value:.{3 if size < 10 else 2 if size < 100 else 1 if size < 1000 else 0}f}"


def markdown(results: Results) -> str:
    """One table: the best value bold, the second best in italics, intervals in brackets; notes below."""
    columns = _columns(results)
    heads = [f"{_escaped(d)}: " * bool(d) + f"{f.title} {ARROWS[f.better]}" for d, f in columns]
    lines = [_markdown_row(["Method", "clips", *heads]), _markdown_row(["---"] + ["--:"] * (len(heads) + 1))]
    for method in results.methods:
        cells = []
        for dataset, figure in columns:
            value = figure.values[dataset][method]
            mark = {FIRST: "**", SECOND: "*"}.get(places(figure, dataset).get(method, 0), "")
            cells.append(
                f"{mark}{digits(value.value)}{mark}{_ends(value)}" if value.value is not None else "-"
            )
        lines.append(_markdown_row([_escaped(method), _clips(results, method), *cells]))
    return "\n".join([*lines, "", *(f"- {_escaped(line)}" for line in notes(results)), ""])


def notes(results: Results) -> list[str]:
    """What has to be known beside the numbers, one sentence or two each."""
    said = []
    if results.draws:
        said.append(
            f"In brackets: {results.level:.0%} intervals over clips, of a bootstrap ({results.draws} draws, "
            f"seed {results.seed}); for distances of sets and entropies of halves of the clips (fewer draws)."
        )
    for method in results.methods:
        for dataset, about in results.clips[method].items():
            said.append(f"{_place(method, dataset)}: {_about(about)}.")
        said += [f"{method}: {note}." for note in results.notes.get(method, ())]
    for figure in results.shown:
        models = ", ".join(figure.protocol["models"]) or figure.protocol.get("network") or "no network"
        said.append(f"{figure.title}: {figure.meaning} {_settings(figure.protocol)}; {models}.")
        said += _of_values(figure, results)
    said += [f"{name} is not measured: {why}." for name, why in results.not_measured.items()]
    return said


def shown_tables(results: Results) -> dict[str, Any]:
    """For a page: a table for each data set, of texts that are still to be escaped, and the notes."""

    def cell(figure: Figure, dataset: str, method: str) -> dict[str, Any]:
        value = figure.values[dataset][method]
        text = "-" if value.value is None else digits(value.value)
        return {
            "value": text,
            "ends": _ends(value).strip(),
            "place": places(figure, dataset).get(method, 0),
        }

    tables = [
        {
            "dataset": dataset,
            "heads": [f"{figure.title} {ARROWS[figure.better]}" for figure in results.shown],
            "rows": [
                {"method": method, "cells": [cell(figure, dataset, method) for figure in results.shown]}
                for method in results.methods
            ],
        }
        for dataset in results.datasets
    ]
    return {"tables": tables, "notes": notes(results)}


def latex(results: Results, with_intervals: bool = False) -> str:
    """A table for booktabs: data sets above, the best value bold, the second best underlined."""
    columns = _columns(results)
    count = len(results.shown)
    lines = [r"\begin{tabular}{l" + "c" * len(columns) + "}", r"\toprule"]
    if results.datasets != [""]:
        heads = [rf"\multicolumn{{{count}}}{{c}}{{{_tex(d or 'other')}}}" for d in results.datasets]
        lines.append(" & ".join(["", *heads]) + r" \\")
        rules = [rf"\cmidrule(lr){{{2 + i * count}-{1 + (i + 1) * count}}}" for i in range(len(heads))]
        lines.append(" ".join(rules))
    arrows = {"higher": r"$\uparrow$", "lower": r"$\downarrow$"}
    lines.append(" & ".join(["Method", *(f"{_tex(f.title)}{arrows[f.better]}" for _, f in columns)]) + r" \\")
    lines.append(r"\midrule")
    for method in results.methods:
        if method == REAL and len(results.methods) > 1:
            lines.append(r"\midrule")
        cells = []
        for dataset, figure in columns:
            value = figure.values[dataset][method]
            text = "--" if value.value is None else digits(value.value)
            wrap = {FIRST: r"\textbf{%s}", SECOND: r"\underline{%s}"}
            cell = wrap.get(places(figure, dataset).get(method, 0), "%s") % text
            if with_intervals and value.low is not None and value.high is not None:
                cell += rf" {{\scriptsize [{digits(value.low)}, {digits(value.high)}]}}"
            cells.append(cell)
        lines.append(" & ".join([_tex(method), *cells]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join([LATEX_NEEDS, *lines, *(f"% {_tex(line)}" for line in notes(results)), ""])


def comma_separated(results: Results) -> str:
    """One line for each value, with all that stands beside it."""
    sink = io.StringIO()
    write = csv.writer(sink, lineterminator="\n").writerow
    names = ("value", "low", "high", "clips", "note")
    write(["method", "dataset", "number", "title", "unit", "better", *names, "facts", "protocol"])
    for figure in results.figures:
        for dataset, of in figure.values.items():
            for method, value in of.items():
                about = [figure.name, figure.title, figure.unit, figure.better]
                own = [getattr(value, name) for name in names]
                extra = [json.dumps(each, sort_keys=True) for each in (value.facts, figure.protocol)]
                write([_cell(v) for v in (method, dataset, *about, *own, *extra)])
    return sink.getvalue()


def _columns(results: Results) -> list[tuple[str, Figure]]:
    return [(dataset, figure) for dataset in results.datasets for figure in results.shown]


def _clips(results: Results, method: str) -> str:
    return str(sum(about_clips(results, method, dataset) for dataset in results.clips[method]))


def _ends(value: Value) -> str:
    if value.low is None or value.high is None:
        return ""
    return f" [{digits(value.low)}, {digits(value.high)}]"


def _place(method: str, dataset: str) -> str:
    return f"{method}, {dataset}" if dataset else method


def _about(about: Mapping[str, Any]) -> str:
    said = [f"{about['clips']} clips"]
    left_out, errors = about["left_out"], about["errors"]
    if left_out:
        said.append(f"{left_out} of them with errors, left out")
    if errors > left_out:
        said.append(f"{errors - left_out} with errors that count in what was measured before")
    if errors:
        named = ", ".join(one_line(name) for name in about["first_errors"])
        said.append(f"errors of {named}" + (" and others" if errors > len(about["first_errors"]) else ""))
    if about["damaged"]:
        said.append(f"{about['damaged']} damaged in parts (decode_errors of the manifest)")
    for key, unit in (
        ("seconds", "s"),
        ("fps", "pictures a second"),
        ("width", "px wide"),
        ("height", "px high"),
    ):
        if about[key] is not None:
            least, middle, most = (f"{value:.4g}" for value in about[key])
            said.append(f"{middle} {unit}" if least == most else f"{least} to {most} {unit}")
    return ", ".join(said)


def _settings(protocol: Mapping[str, Any]) -> str:
    said = [*protocol["pictures"], *(f"{name} {value}" for name, value in protocol["settings"].items())]
    return ", ".join(said) or "no settings"


def _of_values(figure: Figure, results: Results) -> list[str]:
    """What has to be known of single values; what holds for all methods is said once."""
    said: dict[str, list[str]] = {}
    for dataset in results.datasets:
        for method in results.methods:
            value = figure.values[dataset][method]
            text = [value.note] if value.note and method != REAL else []
            if value.facts:
                text.append(", ".join(f"{name.replace('_', ' ')} {it}" for name, it in value.facts.items()))
            whole = about_clips(results, method, dataset)
            if value.value is not None and value.clips < whole:
                text.append(f"over {value.clips} of {whole} clips")
            for each in text:
                said.setdefault(each, []).append(_place(method, dataset))
    return [f"{figure.title}, {', '.join(who)}: {text}." for text, who in said.items()]


def about_clips(results: Results, method: str, dataset: str) -> int:
    """How many clips of a method could be looked at."""
    about = results.clips[method][dataset]
    return int(about["clips"] - about["left_out"])


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _escaped(text: str) -> str:
    """For Markdown: no cell, tag, link or emphasis begins in it."""
    return re.sub(r"([|<>`*\[\]\\])", r"\\\1", one_line(text))


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in one_line(text))


def _cell(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value
