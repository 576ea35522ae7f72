"""Tars: what tarfile and webdataset read is read the same; what nobody should trust is refused."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_prep.quarantine import Bad, BadRecord
from data_prep.readers.images import open_picture
from data_prep.readers.left_out import LeftOut
from data_prep.readers.places import MAX_PICTURE_BYTES
from data_prep.readers.records import Record
from data_prep.readers.shards import shard_records
from data_prep.readers.tars import Member, read_members


def _picture(size=(4, 4), kind="PNG"):
    stream = io.BytesIO()
    Image.new("RGB", size, (200, 10, 10)).save(stream, kind)
    return stream.getvalue()


PICTURE = _picture()


def _add(tar, name, data=b"x", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(data))


@pytest.fixture
def make_tar(tmp_path):
    def make(*members, name="a.tar", form=tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / name, "w", format=form) as tar:
            for member in members:
                _add(tar, *member[:2], **(member[2] if len(member) > 2 else {}))
        return tmp_path / name

    return make


def _split(entries):
    entries = list(entries)
    good = [e for e in entries if not isinstance(e, Bad)]
    return good, [(e.reason, e.record) for e in entries if isinstance(e, Bad)]


names = st.text(
    st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=300
).map(lambda text: "x" + text + "y")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(names, st.binary(max_size=1500)), max_size=6),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_members_are_those_of_tarfile(tmp_path_factory, members, form):
    path = tmp_path_factory.mktemp("t") / "a.tar"
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members:
            _add(tar, name, data)
    found, bad = _split(read_members(path))
    content = path.read_bytes()
    with tarfile.open(path) as tar:
        expected = [
            (info.name, content[info.offset_data : info.offset_data + info.size]) for info in tar
        ]
    expected = [(name, data) for name, data in expected if ".." not in Path(name).parts]
    assert [(m.name, content[m.offset : m.offset + m.length]) for m in found] == [
        (str(Path(name)), data) for name, data in expected
    ]
    assert {reason for reason, _ in bad} <= {"path_escapes"}


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_tars_end_in_entries(tmp_path_factory, data):
    """Whatever is flipped or cut, members lie in the file and nothing but ValueError is raised."""
    path = tmp_path_factory.mktemp("t") / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for number in range(3):
            _add(tar, f"{number}é" + "n" * 120 + ".jpg", b"j" * 700)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, 9000))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    path.write_bytes(content)
    try:
        entries = list(read_members(path))
    except ValueError as error:
        assert str(path) in str(error)
        return
    for entry in entries:
        if isinstance(entry, Member):
            assert 0 <= entry.offset <= entry.offset + entry.length <= len(content)
    assert len(entries) <= 40


def test_members_that_nobody_should_trust(make_tar, tmp_path):
    link = {"linkname": "/etc/passwd"}
    path = make_tar(
        ("../up.jpg", b"x"),
        ("/abs.jpg", b"x"),
        ("a/../../up.jpg", b"x"),
        ("sym.jpg", b"", {"type": tarfile.SYMTYPE, **link}),
        ("hard.jpg", b"", {"type": tarfile.LNKTYPE, **link}),
        ("fifo.jpg", b"", {"type": tarfile.FIFOTYPE}),
        ("char.jpg", b"", {"type": tarfile.CHRTYPE}),
        ("block.jpg", b"", {"type": tarfile.BLKTYPE}),
        ("folder.jpg", b"", {"type": tarfile.DIRTYPE}),
        ("1.pkl", b"cos\nsystem\n(S'touch /tmp/hacked'\ntR."),
        ("1.PICKLE", b"x"),
        ("1.pyd", b"x"),
        ("1.model.pth", b"x"),
        ("sparse.jpg", b"x", {"pax_headers": {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}}),
        ("nul.jpg", b"x", {"pax_headers": {"path": "nul\0.jpg"}}),
        ("./good.jpg", PICTURE),
    )
    before = set(tmp_path.iterdir())
    good, bad = _split(read_members(path))
    assert [member.name for member in good] == ["good.jpg"]
    assert [reason for reason, _ in bad] == (
        ["path_escapes"] * 3 + ["no_file"] * 5 + ["unsafe_member"] * 4 + ["no_file", "bad_record"]
    )
    assert set(tmp_path.iterdir()) == before and not Path("/tmp/hacked").exists()


def test_old_sparse_members_and_names_that_are_no_utf8(make_tar):
    path = make_tar(("s.jpg", b"x"), ("z.jpg", b"x"), ("good.jpg", b"x"), form=tarfile.GNU_FORMAT)
    content = bytearray(path.read_bytes())
    content[156:157] = b"S"
    content[1024:1025] = b"\xff"
    for at in (0, 1024):
        content[at + 148 : at + 156] = b" " * 8
        content[at + 148 : at + 156] = b"%06o\0 " % sum(content[at : at + 512])
    path.write_bytes(content)
    good, bad = _split(read_members(path))
    assert [member.name for member in good] == ["good.jpg"]
    assert [reason for reason, _ in bad] == ["no_file", "bad_utf8"]


def _header(name, size, kind):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_giant_extended_headers_are_not_read(kind, tmp_path):
    path = tmp_path / "a.tar"
    with path.open("wb") as file:
        file.write(_header("first.jpg", 0, b"0") + _header("x", 8 << 40, kind) + b"y" * 512)
        file.truncate(1 << 33)  # 8 GiB of zeros that take no room
    good, bad = _split(read_members(path))
    assert [member.name for member in good] == ["first.jpg"]
    assert bad == [("broken_archive", "")]


def test_members_that_say_they_are_larger_than_the_tar(make_tar, tmp_path):
    path = make_tar(("a.jpg", b"x"), ("b.jpg", b"x"))
    path.write_bytes(path.read_bytes()[:512] + b"x" * 512 + _header("big.jpg", 9 << 40, b"0"))
    good, bad = _split(read_members(path))
    assert [m.name for m in good] == ["a.jpg"] and bad == [("broken_archive", "big.jpg")]
    sizes = make_tar(("c.jpg", b"x", {"pax_headers": {"size": "9" * 30}}), name="b.tar")
    assert _split(read_members(sizes)) == ([], [("broken_archive", "c.jpg")])


@pytest.mark.parametrize(
    ("kept", "members", "record"),
    [(2048, "ab", ""), (1536, "a", "b.jpg"), (1100, "a", ""), (1024, "a", ""), (600, "", "a.jpg")],
)
def test_a_truncated_tar_gives_what_is_there_and_an_entry(kept, members, record, make_tar):
    path = make_tar(("a.jpg", b"x" * 100), ("b.jpg", b"x" * 100), form=tarfile.USTAR_FORMAT)
    path.write_bytes(path.read_bytes()[:kept])
    good, bad = _split(read_members(path))
    assert [m.name[0] for m in good] == list(members) and bad == [("broken_archive", record)]


def test_joined_tars_are_read_to_their_end(make_tar):
    one, two = make_tar(("a.jpg", b"x")), make_tar(("b.jpg", b"x"), name="b.tar")
    one.write_bytes(one.read_bytes() + two.read_bytes())
    good, bad = _split(read_members(one))
    assert [m.name for m in good] == ["a.jpg", "b.jpg"] and bad == []


def test_compressed_tars_and_other_files_are_refused(make_tar, tmp_path):
    path = make_tar(("a.jpg", b"x"))
    packed = tmp_path / "b.tar.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(ValueError, match=r"b\.tar\.gz is compressed with gzip.*unpack it once"):
        list(read_members(packed))
    (tmp_path / "c.tar").write_bytes(b"no tar" * 1000)
    with pytest.raises(ValueError, match=r"c\.tar is no tar"):
        list(read_members(tmp_path / "c.tar"))
    (tmp_path / "d.tar").touch()
    with pytest.raises(ValueError, match="it is empty"):
        list(read_members(tmp_path / "d.tar"))


def test_samples(make_tar):
    path = make_tar(
        ("one.txt", b"first"),
        ("d/two.JPG", PICTURE),
        ("one.png", PICTURE),
        ("three.png", PICTURE),
        ("three.json", json.dumps({"captions": ["x", "y"], "status": "success"}).encode()),
        ("d/two.txt", b"second"),
        ("four.png", PICTURE),
        ("four.json", b'{"status": "failed_to_download", "caption": "z"}'),
        ("five.txt", b"no picture"),
        ("six.png", PICTURE),
        ("six.txt", b"\xff"),
        ("seven.png", PICTURE),
        ("seven.json", b"{"),
        ("eight.png", PICTURE),
        ("eight.jpg", PICTURE),
        ("eight.txt", b"two pictures"),
        ("nine.seg.png", PICTURE),
        ("nine.cls", b"3"),
        ("nine.txt", b"no picture either"),
    )
    entries = list(shard_records(path, "L"))
    records = [e for e in entries if isinstance(e, Record)]
    assert [(r.image, r.captions) for r in records] == [
        ("L/one.png", ("first",)),
        ("L/d/two.JPG", ("second",)),
        ("L/three.png", ("x", "y")),
        ("L/eight.png", ("two pictures",)),
    ]
    assert [e for e in entries if isinstance(e, LeftOut)] == [
        ("files of other kinds", "*.cls"),
        ("status 'failed_to_download'", "four"),
        ("parts of samples that have a picture or caption of their own", "nine.seg.png"),
    ]
    assert [(e.reason, e.record) for e in entries if isinstance(e, Bad)] == [
        ("missing_image", "five"),
        ("bad_utf8", "six"),
        ("bad_json", "seven"),
        ("duplicate_id", "eight.jpg"),
        ("missing_image", "nine"),
    ]
    assert all(open_picture(r.picture).size == (4, 4) for r in records)


@pytest.mark.parametrize("told", ['{"segments": [1]}', "[1, 2]", '{"captions": null}'])
def test_a_dotted_picture_with_json_that_is_no_caption_is_a_part(told, make_tar):
    path = make_tar(
        *(("1.png", PICTURE), ("1.txt", b"a dog")),
        *(("1.seg.png", PICTURE), ("1.seg.json", told.encode())),
        *(("1.v2.png", PICTURE), ("1.v2.json", b'{"caption": "a fox"}')),
    )
    found = [entry for entry in shard_records(path, "L") if isinstance(entry, Record)]
    assert [record.captions for record in found] == [("a dog",), ("a fox",)]
    left_out = [entry.name for entry in shard_records(path, "L") if isinstance(entry, LeftOut)]
    assert left_out == ["1.seg.png", "1.seg.json"]


def test_members_of_other_kinds_own_no_picture(make_tar):
    path = make_tar(("3.cls", b"7"), ("3.v1.png", PICTURE), ("3.v2.png", PICTURE))
    found = [entry for entry in shard_records(path, "L") if isinstance(entry, Record)]
    assert [record.image for record in found] == ["L/3.v1.png", "L/3.v2.png"]


def test_hostile_pictures_in_tars(make_tar):
    bomb = io.BytesIO()
    Image.new("1", (20_000, 10_000)).save(bomb, "PNG")
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    path = make_tar(("a.png", bomb.getvalue()), ("b.jpg", eps), ("c.jpg", b""))
    wanted = ["decompression_bomb", "broken_image", "broken_image"]
    for record, reason in zip(shard_records(path, "L"), wanted, strict=True):
        with pytest.raises(BadRecord) as error:
            open_picture(record.picture)
        assert error.value.reason == reason


def test_a_tar_that_shrinks_and_a_picture_above_the_limit(make_tar):
    path = make_tar(("a.png", PICTURE))
    (record,) = shard_records(path, "L")
    place = record.picture.place
    big = record.picture._replace(place=place._replace(length=MAX_PICTURE_BYTES + 1))
    path.write_bytes(path.read_bytes()[: place.offset + 5])
    for picture, reason in ((record.picture, "broken_archive"), (big, "too_large")):
        with pytest.raises(BadRecord) as error:
            open_picture(picture)
        assert error.value.reason == reason
