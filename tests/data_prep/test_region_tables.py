"""Precomputed regions: UNIMO's and bottom-up-attention's TSV, LXMERT's, and .npz."""

import base64
import pickle

import numpy as np
import pytest

from unimo_ds.data.schema import read_manifest

WIDTH, HEIGHT, F, K = 80, 50, 12, 20
BOXES = np.array([[0, 0, 80, 50], [10, 5, 40.5, 25], [60, 20, 79, 49]], dtype=np.float32)


def b64(array):
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def content(number):
    """Features [3, F] and class probabilities [3, K] of an image."""
    rng = np.random.default_rng(number)
    features = rng.normal(size=(3, F)).astype(np.float32)
    probs = rng.dirichlet(np.full(K, 0.3), size=3).astype(np.float32)
    return features, probs


def unimo_line(number, *, boxes=BOXES, features=None, size=(WIDTH, HEIGHT), probs=True):
    own_features, own_probs = content(number)
    columns = [number, *size, len(boxes), b64(boxes)]
    columns.append(b64(own_features if features is None else features))
    if probs:
        columns.append(b64(own_probs))
    return "\t".join(map(str, columns)) + "\n"


def precomputed(prep, out, *sources, code=0, more=()):
    ran = prep("images", out, *sources, "--regions", "precomputed", *more)
    assert ran.code == code, ran.err
    return ran


def test_unimo_table_with_probabilities(prep, read_rows, tmp_path):
    table = tmp_path / "a.tsv"
    table.write_text("".join(unimo_line(n) for n in range(5)))
    precomputed(prep, tmp_path / "o", table, more=("--kept-classes", 4))
    rows = read_rows(tmp_path / "o")
    assert [row["id"] for row in rows] == ["0", "1", "2", "3", "4"]
    for number, row in enumerate(rows):
        features, probs = content(number)
        assert np.array_equal(row["features"], features.astype(np.float16).reshape(-1))
        assert (row["width"], row["height"], row["num_regions"]) == (WIDTH, HEIGHT, 3)
        boxes = np.reshape(row["boxes"], (3, 5))
        assert np.allclose(boxes[1], [0.125, 0.1, 40.5 / 80, 0.5, (30.5 / 80) * 0.4])
        assert np.allclose(boxes[0], 1 - np.array([1, 1, 0, 0, 0]))
        order = np.argsort(-probs, axis=1)[:, :4]
        assert np.array_equal(np.reshape(row["class_ids"], (3, 4)), order)
        top = np.take_along_axis(probs, order, 1).astype(np.float16)
        assert np.array_equal(np.reshape(row["class_probs"], (3, 4)), top)
    regions = read_manifest(tmp_path / "o").regions
    assert (regions.name, regions.feature_size) == ("precomputed", F)
    assert (regions.num_classes, regions.kept_classes) == (K, 4)
    assert not regions.visual_words_sha256 and prep("verify", tmp_path / "o").code == 0


@pytest.mark.parametrize(
    ("swapped", "flag", "good"),
    [(False, "auto", True), (True, "auto", True), (True, "hw", True), (True, "wh", False)],
)
def test_order_of_the_size_columns(swapped, flag, good, prep, read_rows, tmp_path, quarantine):
    table = tmp_path / "a.tsv"
    size = (HEIGHT, WIDTH) if swapped else (WIDTH, HEIGHT)
    table.write_text("".join(unimo_line(n, size=size) for n in range(3)))
    precomputed(prep, tmp_path / "o", table, code=0 if good else 3, more=("--box-order", flag))
    if good:
        assert {(row["width"], row["height"]) for row in read_rows(tmp_path / "o")} == {
            (WIDTH, HEIGHT)
        }
    else:
        reasons = {bad["reason"] for bad in quarantine(tmp_path / "o")}
        assert reasons == {"box_column_order"}


def test_each_file_has_its_own_order(prep, read_rows, tmp_path):
    (tmp_path / "a.tsv").write_text(unimo_line(0))
    (tmp_path / "b.tsv").write_text(unimo_line(1, size=(HEIGHT, WIDTH)))
    precomputed(prep, tmp_path / "o", tmp_path / "a.tsv", tmp_path / "b.tsv")
    assert [row["width"] for row in read_rows(tmp_path / "o")] == [WIDTH, WIDTH]


def test_bad_rows_are_told_apart(prep, read_rows, quarantine, tmp_path):
    nan, huge = content(0)[0].copy(), content(0)[0].copy()
    nan[1, 2], huge[0, 0] = np.nan, 70_000
    outside, backwards, left = BOXES.copy(), BOXES.copy(), BOXES.copy()
    outside[2, 2], left[1, 0] = 300, -9
    backwards[1] = [40, 5, 10, 25]
    lines = [
        unimo_line(0),
        unimo_line(1, features=nan),
        unimo_line(2, features=huge),
        unimo_line(3, features=np.ones((3, F + 1), np.float32)),
        unimo_line(4, boxes=outside),
        unimo_line(5, boxes=left),
        unimo_line(6, boxes=backwards),
        unimo_line(7, size=(HEIGHT, WIDTH)),
        unimo_line(0),
        "8\t80\t50\n",
        "9\t80\t50\t3\t@@@\tAAAA\tAAAA\n",
        unimo_line(10).replace("\t80\t", "\tnan\t"),
        unimo_line(11, probs=False),
        unimo_line(12),
    ]
    table = tmp_path / "a.tsv"
    table.write_text("".join(lines))
    precomputed(prep, tmp_path / "o", table, more=("--max-bad", 1))
    found = {bad["line"]: bad["reason"] for bad in quarantine(tmp_path / "o")}
    assert found == {
        2: "non_finite_features",
        3: "feature_overflow",
        4: "wrong_feature_size",
        5: "box_outside_image",
        6: "box_outside_image",
        7: "box_column_order",
        8: "box_column_order",
        9: "duplicate_id",
        10: "missing_field",
        11: "bad_record",
        12: "bad_record",
        13: "wrong_feature_size",
    }
    assert [row["id"] for row in read_rows(tmp_path / "o")] == ["0", "12"]


def test_bottom_up_attention_without_classes_gets_visual_words(prep, read_rows, tmp_path):
    table = tmp_path / "a.tsv"
    header = "image_id\timage_w\timage_h\tnum_boxes\tboxes\tfeatures\n"
    table.write_text(header + "".join(unimo_line(n, probs=False) for n in range(6)))
    precomputed(prep, tmp_path / "o", table, more=("--num-classes", 5, "--max-regions", 2))
    rows = read_rows(tmp_path / "o")
    words = np.load(tmp_path / "o" / "visual_words.npy")
    assert words.shape == (5, F) and len(rows) == 6
    features = np.reshape([row["features"] for row in rows], (12, F)).astype(np.float64)
    nearest = np.square(features[:, None] - words[None]).sum(axis=2).argmin(axis=1)
    assert [i for row in rows for i in row["class_ids"]] == nearest.tolist()
    assert [row["num_regions"] for row in rows] == [2] * 6


def test_lxmert_table(prep, read_rows, quarantine, tmp_path):
    def line(number, ids):
        confidences = np.array([0.9, 0.5, 0.25], dtype=np.float32)
        features = content(number)[0]
        columns = [f"img{number}", HEIGHT, WIDTH, b64(np.array(ids)), b64(confidences)]
        columns += [b64(np.array(ids)), b64(confidences), 3, b64(BOXES), b64(features)]
        return "\t".join(map(str, columns)) + "\n"

    table = tmp_path / "a.tsv"
    table.write_text(line(0, [3, 1599, 0]) + line(1, [3, 1600, 0]))
    more = ("--num-classes", 1600, "--max-bad", 0.5)
    precomputed(prep, tmp_path / "o", table, more=more)
    (row,) = read_rows(tmp_path / "o")
    assert (row["id"], row["width"], row["height"]) == ("img0", WIDTH, HEIGHT)
    assert row["class_ids"] == [3, 1599, 0]
    assert np.allclose(row["class_probs"], [0.9, 0.5, 0.25], atol=1e-3)
    assert [bad["reason"] for bad in quarantine(tmp_path / "o")] == ["bad_record"]
    regions = read_manifest(tmp_path / "o").regions
    assert (regions.num_classes, regions.kept_classes) == (1600, 1)


class _Dangerous:
    def __reduce__(self):
        return (print, ("code of the data was run",))


def test_npz_folder(prep, read_rows, quarantine, tmp_path, capsys):
    folder = tmp_path / "npz" / "sub"
    folder.mkdir(parents=True)
    for number in range(3):
        features, probs = content(number)
        names = ("features", "boxes", "probs") if number else ("x", "bbox", "cls_prob")
        arrays = dict(zip(names, (features, BOXES, probs), strict=True))
        np.savez(folder / f"{number}.npz", image_w=WIDTH, image_h=HEIGHT, **arrays)
    np.savez(folder / "3.npz", features=content(3)[0], image_w=WIDTH, image_h=HEIGHT)
    evil = np.array([_Dangerous()], dtype=object)
    np.savez(folder / "4.npz", features=evil, boxes=BOXES, image_w=WIDTH, image_h=HEIGHT)
    (folder / "5.npz").write_bytes(pickle.dumps(_Dangerous()))
    precomputed(prep, tmp_path / "o", tmp_path / "npz", more=("--max-bad", 0.5))
    rows = read_rows(tmp_path / "o")
    assert [row["id"] for row in rows] == ["sub/0", "sub/1", "sub/2"]
    assert np.array_equal(rows[2]["features"], content(2)[0].astype(np.float16).reshape(-1))
    reasons = [bad["reason"] for bad in quarantine(tmp_path / "o")]
    assert reasons == ["missing_field", "bad_record", "bad_record"]
    assert "code of the data" not in capsys.readouterr().out


def test_pairs_with_a_table(
    prep, write_lines, read_rows, quarantine, sentences, tokenizer_file, tmp_path
):
    table = tmp_path / "a.tsv"
    broken = np.full((3, F), np.inf, np.float32)
    table.write_text("".join(unimo_line(n) for n in range(4)) + unimo_line(4, features=broken))
    lines = [{"image": name, "captions": sentences} for name in ("2", "0", "9", "4")]
    source = write_lines(tmp_path / "p.jsonl", lines)
    arguments = ("--tokenizer", tokenizer_file, "--regions", "precomputed", "--features", table)
    ran = prep("pairs", tmp_path / "o", source, *arguments, "--max-bad", 0.5)
    assert ran.code == 0, ran.err
    rows, images = read_rows(tmp_path / "o"), read_rows(tmp_path / "o" / "images")
    assert [row["id"] for row in rows] == ["2", "0"]
    assert [images[row["image_row"]]["id"] for row in rows] == ["2", "0"]
    assert len(images) == 2  # rows that no pair asks for are not built
    found = {bad["record"]: bad["reason"] for bad in quarantine(tmp_path / "o")}
    assert found == {"9": "missing_image", "4": "non_finite_features"}
    assert prep("verify", tmp_path / "o").code == 0


def test_usage_errors(prep, tmp_path):
    (tmp_path / "empty.tsv").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.tsv").write_text(unimo_line(0))
    for name, more, told in (
        ("empty.tsv", (), "no row"),
        ("folder", (), "without .npz"),
        ("absent.tsv", (), "no file"),
        ("a.tsv", ("--box-order", "xy"), "expected one of"),
    ):
        ran = precomputed(prep, tmp_path / "o", tmp_path / name, code=2, more=more)
        assert told in ran.err
