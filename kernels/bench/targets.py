"""What the kernels are to reach on a GPU, beside what was measured there."""

from typing import NamedTuple

from bench import attention, similarity
from bench.layouts import CAPTIONS, PAIRS, REGIONS, TEXTS
from bench.rows import BOTH, MEASURED, Row


class Target(NamedTuple):
    """One line: what, how much is wanted, how much it is."""

    what: str
    wanted: str
    found: str
    met: bool


def targets(rows: list[Row]) -> list[Target]:
    """Those whose rows were measured."""
    found = {
        (row.section, row.case, row.variant): row
        for row in rows
        if row.status == MEASURED and row.step == BOTH
    }
    lines = []
    size = similarity.case(65536, 768)
    ours = found.get((similarity.SECTION, size, "triton"))
    if ours and ours.ms is not None and ours.extra_mib is not None:
        what = f"similarity, {size}, both directions, forward+backward"
        lines.append(Target(what, "<= 48 ms", f"{ours.ms:.1f} ms", ours.ms <= 48))
        extra = f"{ours.extra_mib:,.0f} MiB"
        lines.append(Target(what, "<= 1,024 MiB extra", extra, ours.extra_mib <= 1024))
    for layout, factor in ((TEXTS, 1.0), (REGIONS, 1.0), (PAIRS, 1.0), (CAPTIONS, 1.3)):
        for dropout_p in (0.0, attention.DROPOUT):
            case = attention.case(layout, dropout_p=dropout_p)
            ours = found.get((attention.SECTION, case, "triton"))
            theirs = found.get((attention.SECTION, case, "flash_attn"))
            if ours and theirs and ours.ms and theirs.ms:
                speed = theirs.ms / ours.ms
                what = f"attention, {case}, triton to flash_attn, forward+backward"
                wanted = f">= {factor:g} times as fast"
                lines.append(Target(what, wanted, f"{speed:.2f} times", speed >= factor))
    return lines
