"""Units of span masking: which phrases there are, where they begin, and who breaks them."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import phrases
from data_prep.packing import Pack, Packer
from data_prep.phrases import LONGEST, UnitEncoder, UnitStream, find_phrases
from data_prep.sentences import SentenceEncoder
from data_prep.writer import sha256_of
from unimo_ds.config import CorruptionConfig
from unimo_ds.data.corruption import Words, mask_spans
from unimo_ds.data.schema import manifest_text, read_manifest
from unimo_ds.data.shards import open_corpus
from unimo_ds.tokenizer import SEP_ID, load_tokenizer, train_tokenizer

CAPTIONS = {
    "A black and white dog, and Mr. John Smith's old red hats.": [
        "black and white dog",
        "Mr",
        "John Smith",
        "old red hats",
    ],
    "Two young guys with shaggy hair look at their hands .": [
        "Two young guys",
        "shaggy hair",
        "hands",
    ],
    "men and women don\u2019t see a dog\nRed cats run.": ["men", "women", "dog", "Red cats"],
    "He flew from New York to the U.S.": ["New York", "U.S."],
    "the ( very nice work ) of caf\u00e9 owners": ["very nice work", "caf\u00e9 owners"],
    "": [],
}
ODD = st.text(
    st.sampled_from("ab .!?\u2026\"'\u2019()[]-/\n\r\t\u00a0x1,\u00e9\u4f60\U0001f600<s>&_"),
    max_size=40,
)
PHRASED = st.lists(
    st.sampled_from(
        ["a", "old red", "dog's", "dog", "New York", "\u201cbig", "cats\u201d", "n't", "."]
    ),
    max_size=12,
).map(" ".join)
TEXTS = [f"{caption}\n\nNumber {n} is a big red dog." for n, caption in enumerate(CAPTIONS)] * 4


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """Knows few words, so that phrases are of many tokens."""
    path = tmp_path_factory.mktemp("words") / "t.json"
    train_tokenizer(list(CAPTIONS), 330).save(path)
    return load_tokenizer(path)


def _units(tokenizer, tokens, begins):
    return [tokenizer.decode(u).strip() for u in np.split(tokens, np.flatnonzero(begins)[1:])]


@pytest.mark.parametrize("caption", CAPTIONS)
def test_phrases_of_captions(caption):
    assert [caption[a:b] for a, b in find_phrases(caption)] == CAPTIONS[caption]


def test_units_are_read_as_one_expects(tokenizer):
    (marked,) = UnitEncoder(tokenizer).mark(["A black and white dog, and John Smith's red hats."])
    wanted = ["A", "black and white dog", ",", "and", "John Smith", "'s", "red hats", "."]
    assert _units(tokenizer, *marked) == wanted


def test_a_list_is_no_phrase(tokenizer):
    assert find_phrases("dogs " * LONGEST) and not find_phrases("dogs " * (LONGEST + 1))


@settings(max_examples=150, deadline=None)
@given(text=st.one_of(ODD, PHRASED, st.text(max_size=30)))
def test_units_are_whole_words_and_phrases_one_unit(text, tokenizer):
    text = text.encode(errors="replace").decode()
    (marked,) = UnitEncoder(tokenizer).mark([text])
    tokens, begins = marked
    assert tokens.tolist() == tokenizer.encode([text])[0] and len(begins) == len(tokens)
    word_starts = tokenizer.word_starts()[tokens]
    word_starts[:1] = True
    places = tokenizer.encode_with_places([text])[0][1]
    assert begins[:1].all() and not (begins & ~word_starts).any()
    within = np.zeros(len(tokens), dtype=bool)
    for first, end in find_phrases(text):
        assert "\n" not in text[first:end]
        inside = [i for i, (a, b) in enumerate(places) if b > first and a < end]
        assert not begins[inside[1:]].any()
        within[inside] = True
    assert (begins == word_starts)[~within].all()


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.one_of(ODD, PHRASED), max_size=5),
    max_tokens=st.integers(4, 40),
    pack=st.sampled_from(Pack),
)
def test_rows_have_the_units_of_their_sentences(texts, max_tokens, pack, tokenizer):
    marked = UnitEncoder(tokenizer).encode(texts)
    plain = SentenceEncoder(tokenizer).encode(texts)
    for pieces, same in zip(marked, plain, strict=True):
        assert [piece.tokens.tolist() for piece in pieces] == [piece.tolist() for piece in same]
    documents = [(str(n), pieces) for n, pieces in enumerate(marked) if pieces]
    packer, stream = Packer(pack, max_tokens, tokenizer.word_starts()), UnitStream()
    pending = [begin for _, pieces in documents for piece in pieces for begin in piece.begins]
    for row in packer.rows(stream.through(documents)):
        begins = stream.of_row(row.tokens)
        for at, (token, begin) in enumerate(zip(row.tokens, begins, strict=True)):
            wanted = True if token == SEP_ID else pending.pop(0)
            assert begin == (True if at == 0 else wanted)
    assert not pending


def test_masking_never_cuts_a_unit(tokenizer):
    (marked,) = UnitEncoder(tokenizer).mark([" ".join(CAPTIONS)])
    unit = np.cumsum(marked.begins)
    words = Words(tokenizer.word_starts(), tokenizer.mask_id)
    spans, cut = set(), 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        asked = mask_spans(marked.tokens, words, CorruptionConfig(), rng, marked.begins).labels >= 0
        assert not set(unit[asked[1:-1]]) & set(unit[~asked[1:-1]])
        spans |= set(unit[asked[1:-1]])
        rng = np.random.default_rng(seed)
        asked = mask_spans(marked.tokens, words, CorruptionConfig(), rng).labels >= 0
        cut += bool(set(unit[asked[1:-1]]) & set(unit[~asked[1:-1]]))
    assert spans == set(unit) and cut > 30, "words alone would cut phrases"


@pytest.fixture
def arguments(make_pictures, write_lines, tokenizer, tmp_path):
    make_pictures(tmp_path / "in" / "p", 7)
    captions = [caption for caption in CAPTIONS if caption]
    pairs = [{"image": f"{n:03d}.png", "captions": captions[n % 3 :]} for n in range(7)]
    texts = write_lines(tmp_path / "in" / "t.jsonl", [{"text": text} for text in TEXTS])
    paired = write_lines(tmp_path / "in" / "p" / "pairs.jsonl", pairs)
    words = ("--tokenizer", tokenizer.source, "--rows-per-shard", 3)
    regions = ("--grid", 2, "--patch", 4, "--num-classes", 6)
    return {
        "text": (texts, *words, "--pack", "corpus", "--max-tokens", 80),
        "pairs": (paired, *words, *regions, "--max-tokens", 60),
    }


@pytest.mark.parametrize("builder", ["text", "pairs"])
def test_the_same_bytes_from_workers_and_after_a_loss_and_the_same_shards_as_without(
    builder, prep, arguments, contents, tokenizer, tmp_path
):
    one, two, none = (tmp_path / name for name in ("one", "two", "none"))
    assert prep(builder, none, *arguments[builder]).code == 0
    assert prep(builder, one, *arguments[builder], "--phrases").code == 0
    assert prep(builder, two, *arguments[builder], "--phrases", "--workers", 2).code == 0
    whole, plain = contents(one), contents(none)
    assert contents(two) == whole
    added = set(whole) - set(plain)
    assert len(added) >= 2 and all(name.endswith(".units.npy") for name in added)
    assert all(whole[name] == plain[name] for name in plain if not name.endswith("manifest.json"))
    assert prep("verify", one, "--tokenizer", tokenizer.source).code == 0
    assert prep("diff", one, one).code == 0 and prep("stats", one).code == 0
    assert "phrases marked" in prep("diff", none, one).out
    assert prep("inspect", one, "-o", tmp_path / "page.html").code == 0


def test_a_build_goes_on_where_a_units_file_is_lost_and_not_without_phrases(
    prep, arguments, contents, write_lines, tmp_path
):
    source, *rest = arguments["text"]
    with source.open("a") as stream:
        stream.write("{\n")
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert prep("text", whole, source, *rest, "--phrases", "--max-bad", 1).code == 0
    assert prep("text", out, source, *rest, "--phrases", "--max-bad", 0).code == 3
    ran = prep("text", out, source, *rest, "--resume", "--max-bad", 1)
    assert ran.code == 2 and "phrases was 'textblob" in ran.err
    lost = sorted(out.glob("*.units.npy"))[1]
    lost.unlink()
    again = prep("text", out, source, *rest, "--phrases", "--resume", "--max-bad", 1)
    assert again.code == 0 and lost.exists()
    assert contents(out) == contents(whole)


def test_the_corpus_gives_the_units_of_the_captions(prep, arguments, tokenizer, tmp_path):
    out = tmp_path / "o"
    assert prep("pairs", out, *arguments["pairs"], "--phrases").code == 0
    assert prep("text", tmp_path / "t", *arguments["text"], "--phrases").code == 0
    corpus, texts = open_corpus(out), open_corpus(tmp_path / "t")
    encoder = UnitEncoder(tokenizer)
    for row in range(len(corpus)):
        marked = encoder.mark(corpus.caption_texts(row))
        stored = corpus.unit_begins(row)
        assert [m.begins.tolist() for m in marked] == [begins.tolist() for begins in stored]
    units = [
        unit
        for row in range(len(texts))
        for unit in _units(tokenizer, texts.tokens(row), texts.unit_begins(row))
    ]
    assert units.count("big red dog") >= 20 and units.count("John Smith") == 4


def _flipped(path, bit):
    data = bytearray(path.read_bytes())
    data[-1 - bit // 8] ^= 1 << (bit % 8)
    path.write_bytes(data)


def _signed(folder, name):
    """Makes the manifest's checksum fit the file again."""
    values = json.loads((folder / "manifest.json").read_text())
    for shard in values["shards"]:
        if shard["units"] == name:
            shard["units_sha256"] = sha256_of(folder / name)
    (folder / "manifest.json").write_text(manifest_text(values))


@pytest.mark.parametrize("builder", ["text", "pairs"])
def test_verify_finds_damaged_lost_and_foreign_units(builder, prep, arguments, tmp_path):
    out = tmp_path / "o"
    assert prep(builder, out, *arguments[builder], "--phrases").code == 0
    name = read_manifest(out).shards[1].units
    for damage in (
        lambda path: _flipped(path, 100),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.unlink(),
    ):
        broken = Path(shutil.copytree(out, tmp_path / "broken"))
        damage(broken / name)
        ran = prep("verify", broken)
        assert ran.code == 1 and str(broken / name) in ran.out
        shutil.rmtree(broken)


def test_verify_reads_units_beside_their_tokens(prep, arguments, tokenizer, tmp_path):
    out = tmp_path / "o"
    assert prep("text", out, *arguments["text"], "--phrases").code == 0
    shard = read_manifest(out).shards[0]
    name, total = shard.units, shard.length_sum
    bits = np.load(out / name)
    begins = np.unpackbits(bits)[:total]
    corpus = open_corpus(out)
    starts = tokenizer.word_starts()
    within = next(i for i, t in enumerate(corpus.tokens(0)) if i and not starts[t])
    size = len(corpus.tokens(0))
    tokens = np.concatenate([corpus.tokens(row) for row in range(shard.rows)])
    after = int(np.flatnonzero(tokens == SEP_ID)[0]) + 1
    for place, told in (
        (0, "row 0: a text, caption or [SEP] within a unit"),
        (size, "row 1: a text, caption or [SEP] within a unit"),
        (after, "a text, caption or [SEP] within a unit"),
        (within, "row 0: a unit that begins within a word"),
    ):
        changed = begins.copy()
        changed[place] ^= 1
        np.save(out / name, np.packbits(changed))
        _signed(out, name)
        ran = prep("verify", out, "--tokenizer", tokenizer.source)
        assert ran.code == 1 and told in ran.out and name in ran.out
    for wrong, told in (
        (bits[:-1], "expected uint8"),
        (bits.astype(np.uint16), "expected uint8"),
        (np.append(bits[:-1], bits[-1] | 1), "beyond" if total % 8 else ""),
    ):
        np.save(out / name, wrong)
        _signed(out, name)
        ran = prep("verify", out)
        assert ran.code == (1 if told else 0) and told in ran.out


def test_without_textblob_the_extra_is_named(prep, arguments, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "textblob.en", None)
    monkeypatch.setattr(phrases, "_parser", phrases._parser.__wrapped__)  # without its cache
    ran = prep("text", tmp_path / "o", *arguments["text"], "--phrases")
    assert ran.code == 2 and "pip install 'unimo-ds[text]'" in ran.err
    assert prep("text", tmp_path / "p", *arguments["text"]).code == 0


@pytest.mark.real
@pytest.mark.skipif("UNIMO_REAL_DATA" not in os.environ, reason="UNIMO_REAL_DATA is not set")
def test_phrases_of_real_captions_are_those_that_people_marked():
    """Flickr30k Entities: phrases that name something, their determiners left out."""
    import lzma
    from itertools import islice

    path = Path(os.environ["UNIMO_REAL_DATA"]) / "regions" / "flickr30k_entities.jsonl.xz"
    determiners = {"a", "an", "the", "his", "her", "their", "its", "some", "another", "this"}
    found = marked = both = 0
    with lzma.open(path, "rt", encoding="utf-8") as stream:
        entries = [json.loads(line) for line in islice(stream, 150)]
    for sentence in (sentence for entry in entries for sentence in entry["sentences"]):
        words = sentence["text"].split(" ")
        ends = np.cumsum([len(word) + 1 for word in words])
        gold = set()
        for first, end, *_ in sentence["phrases"]:
            while first < end and words[first].lower() in determiners:
                first += 1
            if end - first > 1:
                gold.add((int(ends[first]) - len(words[first]) - 1, int(ends[end - 1]) - 1))
        ours = {(a, b) for a, b in find_phrases(sentence["text"]) if " " in sentence["text"][a:b]}
        found, marked, both = found + len(ours), marked + len(gold), both + len(ours & gold)
    assert both / found > 0.75 and both / marked > 0.7, (both / found, both / marked)
