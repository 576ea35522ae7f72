"""Tables of regions that somebody made to do harm, or that are broken: told, never believed."""

import base64
import pickle
import struct
import zipfile

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.quarantine import Bad, BadRecord
from data_prep.readers.tables.hdf5 import read_hdf5
from data_prep.readers.tables.npz import read_npz
from data_prep.readers.tables.rows import MOST_NUMBERS
from data_prep.readers.tables.scan import read_row, read_tables

BOXES = np.array([[0, 0, 8, 5], [1, 1, 4, 3]], dtype=np.float32)
FEATURES = np.ones((2, 3), np.float32)
SIZES = {"image_w": 8, "image_h": 5}


class _Dangerous:
    def __reduce__(self):
        return (print, ("code of the data was run",))


def npy(header, data=b""):
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def told(shape, dtype="<f4"):
    return f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}}}"


def with_features(path, content, method=zipfile.ZIP_STORED):
    """An .npz whose features are these bytes."""
    np.savez(path, boxes=BOXES, **SIZES)
    with zipfile.ZipFile(path, "a", method) as archive:
        archive.writestr("features.npy", content)
    return str(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (npy(told((2, 10**13))), "too_large"),
        (npy(told((MOST_NUMBERS + 1,)), b"\0" * 64), "too_large"),
        (npy(told((2, 3)), b"\0" * 23), "cut off"),
        (npy(told((2, 3), "|O"), pickle.dumps(_Dangerous())), "object, not numbers"),
        (npy(told((2, 3), "<U9"), b"\0" * 216), "not numbers"),
        (npy(told((2, -3)), b""), "bad_record"),
        (npy(told("(2, 3"), b""), "bad_record"),
        (npy("__import__('os')", b""), "bad_record"),
        (pickle.dumps(_Dangerous()), "bad_record"),
        (b"", "bad_record"),
    ],
)
def test_npz_that_is_refused(content, reason, tmp_path, capsys):
    with pytest.raises(BadRecord, match=reason):
        read_npz(with_features(tmp_path / "a.npz", content))
    assert "code of the data" not in capsys.readouterr().out


def test_a_zip_bomb_is_not_unpacked(tmp_path):
    bomb = npy(told((2, 3)), b"\0" * (1 << 28))  # 256 MiB behind 24 bytes of numbers
    path = with_features(tmp_path / "a.npz", bomb, zipfile.ZIP_DEFLATED)
    assert np.array_equal(read_npz(path).features, np.zeros(6))


def test_members_are_never_files_elsewhere(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, boxes=BOXES, **SIZES)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../features.npy", npy(told((2, 3)), FEATURES.tobytes()))
    with pytest.raises(BadRecord, match="missing_field"):
        read_npz(str(path))
    assert not (tmp_path.parent / "features.npy").exists()


@pytest.fixture
def hdf5(tmp_path):
    """Writes an HDF5 file whose features are what ``write(file)`` makes of it."""

    def make(write):
        path = tmp_path / "a.h5"
        with h5py.File(path, "w") as file:
            file["boxes"], file["image_w"], file["image_h"] = BOXES, 8, 5
            write(file)
        return str(path)

    return make


def test_hdf5_that_is_refused(hdf5, tmp_path):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["features"] = FEATURES
    raw = tmp_path / "secret.raw"
    raw.write_bytes(FEATURES.tobytes())

    def external_link(file):
        file["features"] = h5py.ExternalLink(str(secret), "features")

    def soft_link(file):
        file["features"] = h5py.SoftLink("/boxes")

    def external_storage(file):
        file.create_dataset("features", (2, 3), "f4", external=[(str(raw), 0, 24)])

    def virtual(file):
        layout = h5py.VirtualLayout((2, 3), "f4")
        layout[:] = h5py.VirtualSource(str(secret), "features", (2, 3))
        file.create_virtual_dataset("features", layout)

    def huge(file):
        file.create_dataset("features", (2, 1 << 40), "f4", chunks=(2, 1024))

    def texts(file):
        file.create_dataset("features", (2, 3), h5py.string_dtype())

    def group(file):
        file.create_group("features")

    def unknown_filter(file):
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_chunk((2, 3))
        plan.set_filter(33333, h5py.h5z.FLAG_OPTIONAL, ())
        kind, space = h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((2, 3))
        h5py.h5d.create(file.id, b"features", kind, space, plan)

    for write, reason in (
        (external_link, "path_escapes"),
        (soft_link, "path_escapes"),
        (external_storage, "path_escapes"),
        (virtual, "path_escapes"),
        (huge, "too_large"),
        (texts, "not numbers"),
        (group, "no array"),
        (unknown_filter, "filters"),
        (lambda file: None, "missing_field"),
    ):
        with pytest.raises(BadRecord, match=reason):
            read_hdf5(hdf5(write), "")


def test_links_out_of_a_folder_of_files_are_not_followed(tmp_path):
    np.savez(tmp_path / "secret.npz", features=FEATURES, boxes=BOXES, **SIZES)
    (tmp_path / "in").mkdir()
    np.savez(tmp_path / "in" / "a.npz", features=FEATURES, boxes=BOXES, **SIZES)
    (tmp_path / "in" / "b.npz").symlink_to(tmp_path / "secret.npz")
    rows, bad = read_tables([tmp_path / "in"])
    assert [row.id for row in rows] == ["a"] and [str(b.reason) for b in bad] == ["path_escapes"]


def test_a_line_without_end_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr("data_prep.readers.tables.scan._LONGEST_LINE", 2000)
    numbers = base64.b64encode(BOXES.tobytes()).decode()
    features = base64.b64encode(FEATURES.tobytes()).decode()
    good = f"8\t5\t2\t{numbers}\t{features}\n"
    (tmp_path / "a.tsv").write_text(f"a\t{good}b\t" + "x" * 9000 + f"\nc\t{good}")
    rows, bad = read_tables([tmp_path / "a.tsv"])
    assert [(row.id, row.line) for row in rows] == [("a", 1), ("c", 3)]
    assert np.array_equal(read_row(rows[1]).boxes, BOXES)
    assert [(str(b.reason), b.line, b.record) for b in bad] == [("too_large", 2, "b")]


line_of_table = st.one_of(
    st.binary(max_size=60),
    st.lists(
        st.sampled_from(
            [
                *(b"7", b"8", b"1e400", b"nan", b"-1", b"99999999999999999999", b"AAAA", b"@@"),
                *(base64.b64encode(BOXES.tobytes()), b'{"objects": [[1]]}', b'"', b"", b"{}"),
                *(b'{"num_boxes": 1, "features": "AAAA"}', b'{"objects": [{"rect": "abcd"}]}'),
            ]
        ),
        min_size=1,
        max_size=17,
    ).flatmap(lambda parts: st.sampled_from([b"\t".join(parts), b";".join(parts)])),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(line_of_table, min_size=1, max_size=4))
def test_no_line_ends_in_a_traceback(tmp_path_factory, lines):
    table = tmp_path_factory.mktemp("t") / "a.tsv"
    table.write_bytes(b"\n".join(lines))
    try:
        rows, bad = read_tables([table])
    except ValueError:
        return
    assert all(isinstance(entry, Bad) for entry in bad)
    for row in rows:
        try:
            found = read_row(row)
        except BadRecord:
            continue
        assert found.boxes.shape[1:] == (4,)
