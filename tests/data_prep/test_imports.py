"""`unimo-prep` starts without torch, and takes little of the trainer."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ALLOWED = {
    "unimo_ds.config",
    "unimo_ds.data.shards",
    "unimo_ds.data.packing",
    "unimo_ds.data.schema",
    "unimo_ds.pixels",
    "unimo_ds.storage",
    "unimo_ds.tokenizer",
    "unimo_ds.transfer",
}


def _imported(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            found.add(str(node.module))
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_only_the_ground_of_the_trainer_is_imported():
    files = sorted((ROOT / "data_prep").rglob("*.py"))
    assert len(files) > 20
    for file in files:
        ours = {name for name in _imported(file) if name.split(".")[0].startswith("unimo_")}
        assert ours <= ALLOWED, file


def test_the_command_line_does_not_load_torch_or_scikit_learn():
    heavy = "{'torch', 'sklearn', 'transformers'}"
    code = f"import data_prep.cli.main, sys; print({heavy} & {{*sys.modules}})"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "set()"
