"""Measures the kernels on this machine and puts the numbers into kernels/README.md.

    python kernels/bench/run.py                 all of it: 8 minutes at most with a GPU, 4 without
    python kernels/bench/run.py --out DIR       the JSON file goes to DIR; the README stays as it is
    python kernels/bench/run.py --table         only the README, from the files under results/

Needs torch and triton, and nothing to be installed. What is missing or goes wrong is named in the
results and stops nothing.
"""

import argparse
import json
import sys
import time
from pathlib import Path

# As a script it finds its own folder on the path, whose modules would shadow others: it wants the
# folder above, where they are bench.*, next to unimo_kernels.
if Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
    sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from bench import attention, fused, machine, rivals, similarity
from bench.collect import Collection
from bench.rows import MEASURED, Row, as_json
from bench.table import COMMAND, device_tables, write_readme
from bench.worker import planned

RESULTS = Path(__file__).resolve().parent / "results"
README = RESULTS.parents[1] / "README.md"

SECONDS = {
    "cuda": {
        machine.SECTION: 30,
        similarity.SECTION: 190,
        fused.SECTION: 240,
        attention.SECTION: 440,
    },
    "cpu": {machine.SECTION: 220, similarity.SECTION: 220, attention.SECTION: 220},
}
"""From the start: when the time of a section is over."""


def main() -> None:
    arguments = _arguments()
    if arguments.table:
        write_readme(README, RESULTS)
        return
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    start = time.monotonic()
    seconds = SECONDS[device]
    if arguments.seconds:
        seconds = dict.fromkeys(seconds, arguments.seconds)
    jobs = planned(device, arguments.quick)
    collected = Collection(jobs, device, arguments.quick, seconds, _report).run()
    if not collected.machine:
        sys.exit(f"no process of the bench started: {collected.rows[0].reason}")
    rows = [machine.with_share(row, collected.rows) for row in collected.rows]
    file = {
        "kind": device,
        "command": _command(arguments),
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(time.monotonic() - start, 1),
        "machine": collected.machine,
        "missing": rivals.missing(),
        "rows": [as_json(row) for row in rows],
    }
    folder = arguments.out or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{machine.slug(device, collected.machine)}.json"
    path.write_text(json.dumps(file, indent=1) + "\n", encoding="utf-8")
    if arguments.out is None:
        write_readme(README, RESULTS)
    sys.stdout.write(f"{device_tables(file)}\n\n{path}\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], help="the GPU where there is one")
    parser.add_argument("--out", type=Path, help="folder of the JSON file")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try it; with --out")
    parser.add_argument("--seconds", type=float, help="after these, what is left is skipped")
    parser.add_argument("--table", action="store_true", help="only write the README")
    arguments = parser.parse_args()
    if arguments.quick and arguments.out is None:
        parser.error("--quick measures no real sizes: say with --out where its file goes")
    return arguments


def _command(arguments: argparse.Namespace) -> str:
    """What was asked for, without the folder that took the file."""
    asked = [f"--device {arguments.device}"] if arguments.device else []
    asked += ["--quick"] if arguments.quick else []
    asked += [f"--seconds {arguments.seconds:g}"] if arguments.seconds else []
    return " ".join([COMMAND, *asked])


def _report(row: Row) -> None:
    found = f"{row.ms:.3f} ms" if row.status == MEASURED else f"{row.status}: {row.reason}"
    sys.stderr.write(f"{row.section}, {row.case}, {row.variant}, {row.step}: {found}\n")


if __name__ == "__main__":
    main()
