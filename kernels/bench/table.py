"""The tables of kernels/README.md, made from the files under results/ and from nothing else."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from bench import attention, fused, machine, similarity
from bench.rows import MEASURED, Row
from bench.targets import targets

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
COMMAND = "python kernels/bench/run.py"
NO_GPU = f"Not yet measured on a GPU. On a machine with one: `{COMMAND}`"

TITLES = {
    similarity.SECTION: "Similarity, both directions, forward and backward",
    attention.SECTION: "Attention",
    fused.SECTION: "Fused operations",
}


def write_readme(readme: Path, results: Path) -> None:
    """Puts the tables of all files in ``results`` between the markers of ``readme``.

    Raises:
        ValueError: the markers are not there once each, in order.
    """
    text = readme.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"{readme} needs one line {BEGIN} and below it one line {END}")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{BEGIN}\n{tables(results)}\n{END}{after}", encoding="utf-8")


def tables(results: Path) -> str:
    """Markdown: GPUs first, the processor last."""
    files = [json.loads(p.read_text(encoding="utf-8")) for p in sorted(results.glob("*.json"))]
    on_gpu = [file for file in files if file["kind"] == "cuda"]
    blocks = [] if on_gpu else [NO_GPU]
    blocks += [device_tables(file) for file in on_gpu]
    blocks += [device_tables(file) for file in files if file["kind"] == "cpu"]
    return "\n\n".join(blocks)


def device_tables(file: dict[str, Any]) -> str:
    """One results file as Markdown."""
    rows, about = [Row(**fields) for fields in file["rows"]], file["machine"]
    peaks = [row for row in rows if row.section == machine.SECTION and row.status == MEASURED]
    reached = ", ".join(f"{row.variant} {_rate(row)} ({row.case})" for row in peaks)
    where = about["device"] + (f", {about['cores']} cores" if file["kind"] == "cpu" else "")
    blocks = [
        f"### {where}",
        f"{file['date']}, torch {about['torch']}, triton {about['triton']}, `{file['command']}`, "
        f"{file['seconds']:.0f} s. Peak: {reached}.",
    ]
    for section, title in TITLES.items():
        chosen = [row for row in rows if row.section == section]
        if chosen:
            blocks += [f"#### {title}", _pivot(chosen), *_remarks(chosen)]
    lines = targets(rows)
    if lines:
        table = [f"| {t.what} | {t.wanted} | {t.found} | {_yes(t.met)} |" for t in lines]
        head = ["| target (set for one H200) | wanted | measured | met |", "|---|---|---|---|"]
        blocks += ["#### Targets", "\n".join([*head, *table])]
    if file["missing"]:
        blocks.append(f"Not installed, so not measured: {', '.join(file['missing'])}.")
    return "\n\n".join(blocks)


def _pivot(rows: list[Row]) -> str:
    """Cases down, variants across."""
    variants = list(dict.fromkeys(row.variant for row in rows))
    steps_of: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row.step and row.step not in steps_of[row.case]:
            steps_of[row.case].append(row.step)
    cells = {(row.case, row.step, row.variant): _cell(row) for row in rows}
    lines = [
        "| case | step | " + " | ".join(variants) + " |",
        "|---|---|" + "---|" * len(variants),
    ]
    for case in dict.fromkeys(row.case for row in rows):
        for step in steps_of[case] or [""]:
            found = [
                cells.get((case, step, variant), cells.get((case, "", variant), ""))
                for variant in variants
            ]
            lines.append(f"| {case} | {step} | " + " | ".join(found) + " |")
    return "\n".join(lines)


def _cell(row: Row) -> str:
    if row.status != MEASURED or row.ms is None:
        return row.status
    parts = [f"{_digits(row.ms)} ms", _rate(row)]
    if row.share is not None:
        parts.append(f"{100 * row.share:.0f} %")
    if row.extra_mib is not None:
        parts.append(f"+{row.extra_mib:,.0f} MiB")
    return " · ".join(part for part in parts if part)


def _rate(row: Row) -> str:
    if row.tflops is not None:
        small = row.tflops < 1
        return f"{_digits(row.tflops * (1000 if small else 1))} {'G' if small else 'T'}FLOP/s"
    return f"{_digits(row.gbs)} GB/s" if row.gbs is not None else ""


def _digits(number: float) -> str:
    """Three significant digits."""
    if number >= 100:
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 10 else f"{number:.2f}"


def _yes(met: bool) -> str:
    return "yes" if met else "no"


def _remarks(rows: list[Row]) -> list[str]:
    """How exact, through which code, and why there is no number."""
    lines = []
    largest: dict[str, float] = {}
    notes: dict[str, set[str]] = defaultdict(set)
    reasons: dict[tuple[str, str, str], int] = defaultdict(int)
    for row in rows:
        if row.error is not None:
            largest[row.variant] = max(row.error, largest.get(row.variant, 0.0))
        if row.note:
            notes[row.variant].add(row.note)
        if row.status != MEASURED:
            reasons[row.variant, row.status, row.reason] += 1
    if largest:
        errors = ", ".join(f"{variant} {error:.1e}" for variant, error in largest.items())
        lines.append(f"Largest relative error against float64: {errors}.")
    for variant, forms in notes.items():
        lines.append(f"{variant} ran as: {'; '.join(sorted(forms))}.")
    for (variant, status, reason), count in reasons.items():
        lines.append(f"* {variant}, {status} in {count}: {reason.replace('|', '/')}")
    bullets = "\n".join(line for line in lines if line.startswith("* "))
    return [*(line for line in lines if not line.startswith("* ")), *([bullets] if bullets else [])]
