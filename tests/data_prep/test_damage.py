"""One byte flipped anywhere, any file lost, any file added: `verify` reports it, for every kind."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_prep.engine import Options
from data_prep.hashing import hashes_of, id_hashes, repeated, value_hashes
from data_prep.images import RegionPlan
from data_prep.pairs import build_pairs, group_by_picture
from data_prep.readers.formats import find_sources
from data_prep.readers.pairs import read_pairs
from data_prep.readers.text import DocumentReader
from data_prep.texts import build_texts
from data_prep.verify import damage
from unimo_ds.data.schema import KINDS, MANIFEST_NAME, manifest_text

SHARED = settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory, tokenizer_file: Path) -> dict[str, Path]:
    """A small corpus of each kind, of several shards and with a record in quarantine."""
    root = tmp_path_factory.mktemp("corpora")
    options = Options(command=["made", "by", "a", "test"], max_bad=0.5)
    rng = np.random.default_rng(5)
    lines = [f'{{"image": "{n}.png", "captions": ["a red star", "a blue ring"]}}' for n in range(5)]
    for number in range(5):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
    (root / "pairs.jsonl").write_text("\n".join([*lines, "{"]))
    (root / "texts.txt").write_text("the fox jumps.\nthe dog sleeps.\nnobody knows why.\n")
    (root / "more.jsonl").write_text("{\n")
    reader = DocumentReader([root / "texts.txt", root / "more.jsonl"])
    build_texts(root / "texts", reader, str(tokenizer_file), options, rows_per_shard=2)
    plan = RegionPlan(grid=2, patch=2, num_classes=3, rows_per_shard=3)
    grouped = group_by_picture(
        read_pairs(find_sources([root / "pairs.jsonl"], captioned=True)).entries, None
    )
    build_pairs(root / "pairs", grouped, plan, str(tokenizer_file), options)
    made = {kind: root / kind for kind in ("texts", "pairs")} | {"images": root / "pairs/images"}
    assert all(list(damage(folder)) == [] for folder in made.values())
    return made


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@SHARED
def test_any_flipped_byte_of_any_file_is_reported(corpora, kind, data):
    path = data.draw(st.sampled_from([p for p in _files(corpora[kind]) if p.stat().st_size]))
    content = path.read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    mask = data.draw(st.integers(1, 255))
    try:
        path.write_bytes(content[:at] + bytes([content[at] ^ mask]) + content[at + 1 :])
        assert list(damage(corpora[kind])), f"byte {at} of {path}"
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("kind", KINDS)
def test_any_lost_file_is_reported(corpora, kind):
    for path in _files(corpora[kind]):
        content = path.read_bytes()
        path.unlink()
        assert any(path.parent.name in line for line in damage(corpora[kind])), path
        path.write_bytes(content)


@pytest.mark.parametrize("kind", KINDS)
@given(name=st.text("abz.-_ ~é", min_size=1, max_size=20).filter(lambda n: n not in (".", "..")))
@settings(SHARED, max_examples=40)
def test_any_added_file_or_folder_is_reported(corpora, kind, name):
    path = corpora[kind] / name
    path.mkdir()
    assert any(f"{path}: not in the manifest" in line for line in damage(corpora[kind]))
    path.rmdir()
    path.touch()
    assert any(f"{path}: not in the manifest" in line for line in damage(corpora[kind]))
    path.unlink()


@given(st.lists(st.lists(st.text(max_size=3), max_size=8), max_size=4), st.integers(1, 9))
@SHARED
def test_repeated_ids_are_those_that_a_set_finds(files, at_once):
    hashes = [hashes_of(id_hashes(pa.array(ids, pa.string()))) for ids in files]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data_prep.hashing.ROWS_AT_ONCE", at_once)
        found = sorted(tuple(map(tuple, pair)) for pair in repeated(hashes))
    first: dict[str, tuple[int, int]] = {}
    wanted = []
    for file, ids in enumerate(files):
        for row, name in enumerate(ids):
            if name in first:
                wanted.append((first[name], (file, row)))
            first.setdefault(name, (file, row))
    assert found == sorted(wanted)


@given(st.lists(st.lists(st.lists(st.integers(0, 3), max_size=3), max_size=3), max_size=12))
@SHARED
def test_rows_have_the_same_hash_exactly_when_they_are_equal(rows):
    hashes = value_hashes(pa.array(rows, pa.list_(pa.list_(pa.uint16())))).tolist()
    for a, one in zip(rows, hashes, strict=True):
        for b, other in zip(rows, hashes, strict=True):
            assert (a == b) == (one == other)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["..", "../images", "/", "manifest.json", "images", "a\0b", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)
UNTESTABLE = ("command", "seed", "max_tokens", "tokenizer", "regions", "digest")
"""What a manifest alone says: but for the digest nobody could tell that it was something else."""


def _places(value, path=()):
    """Paths to everything within a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from _places(inner, (*path, key))


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@SHARED
def test_an_edited_manifest_is_reported_and_never_a_crash(corpora, kind, data):
    path = corpora[kind] / MANIFEST_NAME
    content = path.read_text()
    values = json.loads(content)
    place = data.draw(st.sampled_from(sorted(_places(values), key=str)))
    new = data.draw(JSON)
    *way, last = place
    holder = values
    for key in way:
        holder = holder[key]
    same = json.dumps(holder[last]) == json.dumps(new)
    holder[last] = new
    try:
        path.write_text(json.dumps(values))
        assert list(damage(corpora[kind]))
        path.write_text(manifest_text(values))  # by somebody who knows how to make a digest
        found = list(damage(corpora[kind]))
        assert found or same or place[0] in UNTESTABLE
    finally:
        path.write_text(content)
