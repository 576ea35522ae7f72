"""The house: imports point down, packages stay where they belong, files stay short."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GROUND = [
    "unimo_ds.config",
    "unimo_ds.config_rules",
    "unimo_ds.batch",
    "unimo_ds.distributed",
    "unimo_ds.launch",
    "unimo_ds.tokenizer",
    "unimo_ds.tokenizer_rules",
    "unimo_ds.pixels",
    "unimo_ds.storage",
]
TRAINING = [f"unimo_ds.{name}" for name in ("objectives", "model", "data", "train")]
# What each part may import of ours, besides itself. The roof may import everything.
MAY_IMPORT = {
    "unimo_ds/data": [*GROUND, "unimo_ds.transfer"],
    "unimo_ds/model": [*GROUND, "unimo_ds.data", "unimo_kernels"],
    "unimo_ds/objectives": [*GROUND, "unimo_ds.model", "unimo_ds.data", "unimo_kernels"],
    "unimo_ds/train": [*GROUND, "unimo_ds.objectives", "unimo_ds.model", "unimo_ds.data"],
    "unimo_ds/convert": [*GROUND, *TRAINING],
    "unimo_ds/tasks": [*GROUND, *TRAINING],
    "unimo_ds/report": [*GROUND, *TRAINING, "unimo_ds.tasks"],
    "unimo_ds/ablation": [
        *GROUND,
        *TRAINING,
        "unimo_ds.tasks",
        "unimo_ds.report",
        "unimo_ds.pretrain",  # how a process is set up
        "data_prep.pool",  # how it ends
    ],
    "kernels/unimo_kernels": [],
    "kernels/bench": ["unimo_kernels"],
    "data_prep": [
        "unimo_ds.data.schema",
        "unimo_ds.data.shards",  # neither this nor packing imports torch
        "unimo_ds.data.packing",
        "unimo_ds.tokenizer",
        "unimo_ds.config",
        "unimo_ds.pixels",
        "unimo_ds.storage",
        "unimo_ds.transfer",
    ],
}
OURS = ("unimo_ds", "unimo_kernels", "bench", "data_prep", "tests")
FILES = [
    path
    for part in ("unimo_ds", "kernels", "data_prep", "tests")
    for path in (ROOT / part).rglob("*.py")
]


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return names


def within(name: str, packages: list[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_imports_point_down(part):
    own = part.removeprefix("kernels/").replace("/", ".")
    for path in (ROOT / part).rglob("*.py"):
        ours = {name for name in imported(path) if name.split(".")[0] in OURS}
        wrong = {name for name in ours if not within(name, [own, *MAY_IMPORT[part]])}
        assert not wrong, f"{path} imports {wrong}"


def test_the_ground_imports_nothing_of_ours_but_the_ground():
    for name in GROUND:
        path = ROOT / f"{name.replace('.', '/')}.py"
        ours = {n for n in imported(path) if n.split(".")[0] in OURS}
        assert not {n for n in ours if not within(n, GROUND)}, path


def test_deepspeed_is_at_home_in_training_and_conversion():
    for path in FILES:
        if path.is_relative_to(ROOT / "tests"):
            continue
        if any(within(name, ["deepspeed"]) for name in imported(path)):
            assert path.parent.name in ("train", "convert"), path


def test_corpora_are_built_without_torch():
    """But where a model is asked for, which is imported by the function that loads it."""
    with_model = {"model_folder.py", "detector.py", "translation.py", "sentence_encoder.py"}
    for path in (ROOT / "data_prep").rglob("*.py"):
        heavy = {n for n in imported(path) if within(n, ["torch", "transformers"])}
        assert not heavy or path.name in with_model, path
        body = ast.parse(path.read_text(encoding="utf-8")).body
        first = {n for node in body if isinstance(node, ast.Import) for n in node.names}
        assert not {a.name for a in first} & {"torch", "transformers"}, path
        froms = {str(node.module) for node in body if isinstance(node, ast.ImportFrom)}
        assert not {n for n in froms if within(n, ["torch", "transformers"])}, path


def test_the_kernels_folder_shadows_no_package():
    # transformers probes for Hugging Face's `kernels`; an __init__ here would be taken for it.
    assert not (ROOT / "kernels" / "__init__.py").exists()


def test_the_kernels_and_their_bench_need_torch_and_triton_only():
    ours = {"unimo_kernels", "bench", "torch", "triton"}
    optional = {"flash_attn", "inf_cl", "siglip_kernel", "liger_kernel"}  # imported where called
    for path in (ROOT / "kernels").rglob("*.py"):
        names = {name.split(".")[0] for name in imported(path)}
        assert names <= ours | optional | sys.stdlib_module_names, path


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_say_what_they_are_for_and_stay_short(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 350, "a file is one noun"
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), "the first line says what the file is for"


def test_citations_name_what_a_reader_can_find():
    """The paper's own sections, upstream issue numbers, files of this repository."""
    private = re.compile(r"\b(?:PAPER|KERNELS|FINDINGS|DESIGN|COMPOSITION)(?:\.md)? ?\d")
    cited = [path for path in FILES if private.search(path.read_text(encoding="utf-8"))]
    assert not cited
