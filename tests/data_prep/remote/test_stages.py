"""Columns that are added to a corpus on an S3 server: the same bytes as to one on a disk."""

import pytest

SMALL = ("--grid", 2, "--patch", 4, "--num-classes", 6, "--rows-per-shard", 4)
OUT = "s3://corpora/out"


@pytest.fixture
def told(builder_sources, tokenizer_file):
    words = ("--tokenizer", tokenizer_file)
    return words, (builder_sources(20, 10)["pairs"], *words, "--max-bad", 0.1, *SMALL)


def test_rewrites_on_a_server_are_those_on_a_disk(s3, prep, told, contents, download, tmp_path):
    words, arguments = told
    for out in (tmp_path / "local", OUT):
        assert prep("pairs", out, *arguments).code == 0
        ran = prep("rewrite", out, *words, "--command", "sed s/the/a/")
        assert ran.code == 0, ran.err
    assert contents(download(OUT)) == contents(tmp_path / "local")
    ran = prep("verify", OUT)
    assert ran.code == 0 and "whole" in ran.err
    assert (
        "nothing to do" in prep("rewrite", OUT, *words, "--command", "sed s/the/a/", "--resume").err
    )
    ran = prep("rewrite", OUT, *words, "--levels", "word")
    assert ran.code == 2 and "--replace" in ran.err


def test_an_index_does_not_lie_on_a_server(s3, prep, told, tmp_path):
    words, arguments = told
    assert prep("pairs", OUT, *arguments).code == 0
    ran = prep("retrieve", OUT, *words, "--images", OUT + "/images")
    assert ran.code == 2 and "copy the pairs here first" in ran.err
