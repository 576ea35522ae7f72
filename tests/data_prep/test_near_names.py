"""Names that no file has, but one nearly has: told with the right one, never taken by itself."""

import pytest

from data_prep.quarantine import BadRecord
from data_prep.readers.images import file_below

NFC, NFD = "p/caf\u00e9.jpg", "p/cafe\u0301.jpg"
FORMS = ", the same letters in another Unicode form (NFC, NFD)"


@pytest.mark.parametrize(
    ("there", "named", "why"),
    [
        ("p/a.jpg", "p\\a.jpg", ", with / between folders"),
        ("p/q/a.JPG", "P\\q\\a.jpg", ", with / between folders"),
        ("p/a.jpg", "C:\\Users\\me\\p\\a.jpg", ", with / between folders"),
        (NFD, NFC, FORMS),
        (NFC, NFD, FORMS),
        ("p/IMG_1.JPG", "p/IMG_1.jpg", ""),
        ("a.jpg", "train2014/a.jpg", ""),
        ("p/b.jpg", "/old/machine/p/b.jpg", ""),
        ("c.JPG", "/old/machine/images/c.jpg", ""),
    ],
)
def test_the_file_that_was_meant_is_named(there, named, why, tmp_path):
    file = tmp_path / there
    file.parent.mkdir(exist_ok=True, parents=True)
    file.write_bytes(b"")
    with pytest.raises(BadRecord) as error:
        file_below(tmp_path, named)
    assert error.value.reason == ("path_escapes" if named[0] == "/" else "missing_image")
    assert error.value.detail.endswith(f"; did you mean {there!r}{why}?")


def test_a_folder_of_another_machine_is_not_advised(tmp_path):
    with pytest.raises(BadRecord, match=r"leads out of .*: there is no folder /old/machine here"):
        file_below(tmp_path, "/old/machine/absent.jpg")


def test_nothing_outside_of_the_folder_is_suggested(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "secret.jpg").write_bytes(b"")
    (tmp_path / "root" / "link.JPG").symlink_to(tmp_path / "secret.jpg")
    for name in ("x\\..\\..\\secret.jpg", "link.jpg", "absent.jpg"):
        with pytest.raises(BadRecord) as error:
            file_below(tmp_path / "root", name)
        assert "did you mean" not in error.value.detail


def test_absolute_paths_name_the_option_that_takes_them(
    prep, make_pictures, write_lines, quarantine, read_rows, tokenizer_file, tmp_path
):
    paths = make_pictures(tmp_path / "photos", 3)
    lines = [{"image": str(path), "captions": ["a red star"]} for path in paths]
    source = write_lines(tmp_path / "lists" / "pairs.jsonl", lines)
    arguments = ("--tokenizer", tokenizer_file, "--grid", 2, "--num-classes", 2)
    ran = prep("pairs", tmp_path / "o", source, *arguments)
    assert ran.code == 3
    (detail,) = {q["detail"].partition(": ")[2] for q in quarantine(tmp_path / "o")}
    assert detail == f"name a folder above it, such as --image-root {tmp_path / 'photos'}"
    option = detail.split()[-2:]
    assert prep("pairs", tmp_path / "again", source, *arguments, *option).code == 0
    assert len(read_rows(tmp_path / "again")) == 3
