"""Tables of regions beside UNIMO's TSV: ";" rows, VinVL, HDF5, kinds of .npz, quoted columns."""

import base64
import json

import h5py
import numpy as np
import pytest

from unimo_ds.data.schema import read_manifest

WIDTH, HEIGHT, F, K = 80, 50, 12, 20
BOXES = np.array([[0, 0, 80, 50], [10, 5, 40.5, 25], [60, 20, 79, 49]], dtype=np.float32)
SHARES = BOXES / [WIDTH, HEIGHT, WIDTH, HEIGHT]


def b64(array):
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def features_of(number):
    return np.random.default_rng(number).normal(size=(3, F)).astype(np.float32)


def probs_of(number):
    return np.random.default_rng(number).dirichlet(np.full(K, 0.3), size=3).astype(np.float32)


@pytest.fixture
def build(prep, read_rows, quarantine, tmp_path):
    """Builds a corpus of precomputed regions; its rows and its quarantine, reason by record."""

    def run(*sources, more=()):
        out = tmp_path / "o"
        ran = prep("images", out, *sources, "--regions", "precomputed", "--max-bad", 0.9, *more)
        assert ran.code == 0, ran.err
        assert prep("verify", out).code == 0
        return read_rows(out), {bad["record"]: bad["reason"] for bad in quarantine(out)}

    return run


def check(row, number, boxes=SHARES):
    assert np.array_equal(row["features"], features_of(number).astype(np.float16).reshape(-1))
    assert np.allclose(np.reshape(row["boxes"], (-1, 5))[:, :4], boxes, atol=1e-5)
    assert (row["width"], row["height"]) == (WIDTH, HEIGHT)


def snli_ve(image, number, *, text="0 5 2", size=(WIDTH, HEIGHT)):
    fields = [image, f"row{number}", "entailment", text, "0 0 0", "2 3 4", "", *size]
    fields += [len(BOXES), b64(BOXES), b64(features_of(number)), "", ""]
    return ";".join(map(str, fields)) + "\n"


def coco(image, number, *, size=(HEIGHT, WIDTH), boxes=BOXES):
    fields = [f"COCO_cap_{image}", f"c{number}", "0 5 2", "0 0 0", "2 3 4", "0", "", "", *size]
    fields += [len(boxes), b64(boxes), b64(probs_of(number)), "", b64(features_of(number)), "1"]
    return ";".join(map(str, fields)) + "\n"


@pytest.mark.parametrize("swapped", [False, True])
def test_rows_of_snli_ve(swapped, build, tmp_path):
    size = (HEIGHT, WIDTH) if swapped else (WIDTH, HEIGHT)
    rows = [snli_ve(f"{n}.jpg", n, size=size) for n in range(5)]
    rows.insert(2, snli_ve("0.jpg", 0, text="0 7 7 2", size=size))  # another text
    rows.append(snli_ve("1.jpg", 9, size=size))  # other regions
    rows.append("a;b;c\n")
    (tmp_path / "a.csv").write_text("".join(rows))
    found, bad = build(tmp_path / "a.csv", more=("--num-classes", 5))
    assert [row["id"] for row in found] == [f"{n}.jpg" for n in range(5)]
    for number, row in enumerate(found):
        check(row, number)
    assert bad == {"1.jpg": "duplicate_id", "a": "bad_record"}


@pytest.mark.parametrize("swapped", [False, True])
def test_rows_of_coco_captions(swapped, build, tmp_path):
    size = (WIDTH, HEIGHT) if swapped else (HEIGHT, WIDTH)
    rows = [coco(n, n, size=size) for n in range(3)]
    (tmp_path / "a.txt").write_text("".join(rows))
    found, bad = build(tmp_path / "a.txt", more=("--kept-classes", 2))
    assert [row["id"] for row in found] == ["0", "1", "2"] and not bad
    for number, row in enumerate(found):
        check(row, number)
        order = np.argsort(-probs_of(number), axis=1)[:, :2]
        assert np.array_equal(np.reshape(row["class_ids"], (3, 2)), order)


def test_where_boxes_fit_both_ways_the_format_tells(build, tmp_path):
    small = BOXES / 4
    (tmp_path / "a.txt").write_text(coco(0, 0, boxes=small))
    ((row,), _) = build(tmp_path / "a.txt")
    assert (row["width"], row["height"]) == (WIDTH, HEIGHT)


def vinvl_block(number):
    wide = SHARES[:, 2:] - SHARES[:, :2]
    rows = np.concatenate([features_of(number), SHARES, wide], axis=1)
    return {"num_boxes": 3, "features": b64(rows.astype(np.float32))}


def test_vinvl_features_with_their_boxes_behind(build, tmp_path):
    lines = [f"{n}\t{json.dumps(vinvl_block(n))}\n" for n in range(3)]
    block = vinvl_block(3)
    lines.append(f"3\t3\t{block['features']}\n")  # Oscar's three columns
    lines.append(f"4\t{json.dumps(vinvl_block(4))}\n")
    lines.append(f"5\t{json.dumps(vinvl_block(5) | {'image_w': WIDTH, 'image_h': HEIGHT})}\n")
    lines.append(f"6\t{json.dumps(vinvl_block(6) | {'num_boxes': 10**12})}\n")
    lines.append("7\t{broken\n")
    (tmp_path / "train.feature.tsv").write_text("".join(lines))
    size = json.dumps([{"height": HEIGHT, "width": WIDTH}])
    (tmp_path / "train.hw.tsv").write_text("".join(f"{n}\t{size}\n" for n in (0, 1, 2, 3, 6)))
    found, bad = build(tmp_path / "train.feature.tsv", more=("--num-classes", 4))
    assert [row["id"] for row in found] == ["0", "1", "2", "3", "5"]
    for row in found:
        check(row, int(row["id"]))
    assert bad == {"4": "missing_field", "6": "bad_record", "7": "bad_json"}


def test_a_broken_file_of_sizes_is_told(prep, tmp_path):
    (tmp_path / "a.feature.tsv").write_text(f"0\t{json.dumps(vinvl_block(0))}\n")
    (tmp_path / "a.hw.tsv").write_text("0\t[]\n")
    ran = prep("images", tmp_path / "o", tmp_path / "a.feature.tsv", "--regions", "precomputed")
    assert ran.code == 2 and "a.hw.tsv, line 1" in ran.err


def objects(number, **changes):
    things = [
        {"rect": box.tolist(), "class": name, "conf": 0.5, "feature": b64(feature)} | changes
        for box, name, feature in zip(
            BOXES, ("cat", "Dog", "unheard of"), features_of(number), strict=True
        )
    ]
    return {"image_w": WIDTH, "image_h": HEIGHT, "objects": things}


def test_vinvl_objects_get_classes_from_a_list(build, tmp_path):
    bad_lines = [
        objects(1, conf=2.0),
        objects(2, rect=[1, 2]),
        objects(3, feature="AA"),
        objects(4) | {"objects": []},
        objects(5) | {"objects": {"a": 1}},
        objects(6) | {"image_w": "wide"},
    ]
    lines = [objects(0), *bad_lines]
    table = tmp_path / "p.tsv"
    table.write_text("".join(f"{n}\t{json.dumps(v)}\n" for n, v in enumerate(lines)))
    (tmp_path / "names.txt").write_text("dog,hound\ncat\n")
    ((row,), bad) = build(table, more=("--class-names", tmp_path / "names.txt"))
    check(row, 0)
    assert row["class_ids"] == [2, 1, 0] and row["class_probs"] == [0.5] * 3
    assert len(bad) == 6 and set(bad.values()) == {"bad_record", "missing_field"}
    source = read_manifest(tmp_path / "o").regions
    assert (source.num_classes, source.kept_classes) == (3, 1)
    assert (tmp_path / "o" / "class_names.txt").read_text() == "background\ndog,hound\ncat\n"


def test_classes_of_a_table_get_names(prep, build, tmp_path):
    (tmp_path / "a.txt").write_text(coco(0, 0))
    names = tmp_path / "names.txt"
    names.write_text("".join(f"thing {n}\n" for n in range(K)))
    build(tmp_path / "a.txt", more=("--class-names", names))
    assert (tmp_path / "o" / "class_names.txt").read_text() == names.read_text()
    few = tmp_path / "few.txt"
    few.write_text("one\ntwo\n")
    arguments = ("--regions", "precomputed", "--class-names", few)
    ran = prep("images", tmp_path / "x", tmp_path / "a.txt", *arguments)
    assert ran.code == 2 and "names 2 classes, the tables have 20" in ran.err


def test_quoted_columns_and_compressed_tables(prep, build, tmp_path):
    def quoted(number):
        columns = [f'say ""{number}""', WIDTH, HEIGHT, 3, b64(BOXES), b64(features_of(number))]
        return "\t".join(f'"{column}"' for column in columns) + "\r\n"

    header = "\t".join(
        f'"{name}"' for name in ("image_id", "image_w", "image_h", "num_boxes", "boxes", "features")
    )
    (tmp_path / "a.tsv").write_text(header + "\r\n" + "".join(map(quoted, range(3))), newline="")
    found, bad = build(tmp_path / "a.tsv", more=("--num-classes", 4))
    assert [row["id"] for row in found] == [f'say "{n}"' for n in range(3)] and not bad
    check(found[2], 2)
    (tmp_path / "a.tsv.gz").write_bytes(b"")
    ran = prep("images", tmp_path / "x", tmp_path / "a.tsv.gz", "--regions", "precomputed")
    assert ran.code == 2 and "unpack it" in ran.err


def test_kinds_of_npz(build, tmp_path):
    sizes = {"image_w": WIDTH, "image_h": HEIGHT}
    folder = tmp_path / "npz"
    folder.mkdir()
    # bottom-up attention as MCAN stores it: features in columns, a count
    np.savez(folder / "0.npz", x=features_of(0).T, bbox=BOXES, num_bbox=3, **sizes)
    padded, more_boxes = np.zeros((9, F), np.float32), np.zeros((9, 4), np.float32)
    padded[:3], more_boxes[:3] = features_of(1), BOXES
    np.savez_compressed(folder / "1.npz", x=padded, bbox=more_boxes, num_bbox=3, **sizes)
    np.savez(folder / "2.npz", x=features_of(2), bbox=BOXES, num_bbox=4, **sizes)
    np.savez(folder / "3.npz", x=features_of(3)[:2], bbox=BOXES, **sizes)
    np.savez(folder / "4.npz", x=features_of(4), bbox=BOXES[:, :3], **sizes)
    np.savez(folder / "5.npz", x=features_of(5), bbox=BOXES, image_w=np.nan, image_h=HEIGHT)
    np.savez(folder / "6.npz", x=features_of(6), bbox=BOXES, info=np.array([{}]), **sizes)
    found, bad = build(folder, more=("--num-classes", 4))
    assert [row["id"] for row in found] == ["0", "1", "6"]
    for row in found:
        check(row, int(row["id"]))
    assert set(bad) == {"2", "3", "4", "5"} and set(bad.values()) == {"bad_record"}


def test_hdf5_with_a_group_for_each_image(build, tmp_path):
    with h5py.File(tmp_path / "all.h5", "w") as file:
        for number in range(3):
            group = file.create_group(f"img{number}")
            data = features_of(number)
            group.create_dataset("features", data=data, compression="gzip", chunks=True)
            group["boxes"], group["obj_id"] = BOXES, np.array([3, 1, 2])
            group["obj_conf"] = np.array([0.5, 0.25, 1], np.float32)
            group["img_w"], group["img_h"] = WIDTH, HEIGHT
    found, bad = build(tmp_path / "all.h5", more=("--num-classes", 4))
    assert [row["id"] for row in found] == ["img0", "img1", "img2"] and not bad
    for number, row in enumerate(found):
        check(row, number)
        assert row["class_ids"] == [3, 1, 2] and row["class_probs"] == [0.5, 0.25, 1]


def test_hdf5_file_for_each_image(build, tmp_path):
    folder = tmp_path / "h5" / "sub"
    folder.mkdir(parents=True)
    for number in range(3):
        with h5py.File(folder / f"{number}.hdf5", "w") as file:
            file["features"], file["boxes"] = features_of(number), BOXES
            file["probs"] = probs_of(number)
            file.attrs["image_w"], file.attrs["image_h"] = WIDTH, HEIGHT
    (folder / "3.h5").write_bytes(b"no HDF5")
    found, bad = build(tmp_path / "h5", more=("--kept-classes", 3))
    assert [row["id"] for row in found] == ["sub/0", "sub/1", "sub/2"]
    assert bad == {"sub/3": "bad_record"}
    for number, row in enumerate(found):
        check(row, number)
        assert len(row["class_ids"]) == 9
