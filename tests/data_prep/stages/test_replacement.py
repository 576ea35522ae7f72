"""Hard negatives: they differ in the span they tell, and are not true by another word."""

import random
from collections import Counter
from itertools import pairwise

import pytest

from data_prep.rewrite.replacement import hard_negatives, normalised
from data_prep.rewrite.scene_graph import ATTRIBUTE, OBJECT, RELATION, scene_graphs
from data_prep.rewrite.vocabulary import Vocabulary, count_items
from data_prep.rewrite.words import COLOURS, NUMBERS, alike, article_for, stem
from unimo_ds.data.schema import Level

NOUNS = ["dog", "cat", "elephant", "owl", "car", "apple"]
NOUNS += ["boat", "ball", "umbrella", "horse", "table", "guitar"]
COLOUR = ["red", "green", "blue", "orange", "yellow", "black"]
WHERE = ("on", "under", "behind", "next to", "in front of")
CAPTIONS = [
    f"{article_for(c, 'A')} {c} {a} is {w} {article_for(b, 'a')} {b} ."
    for i, a in enumerate(NOUNS)
    for b in (NOUNS[(i + 3) % 12], NOUNS[(i + 7) % 12])
    for c, w in zip(COLOUR, WHERE, strict=False)
]


@pytest.fixture(scope="module")
def graphs():
    return scene_graphs(CAPTIONS)


@pytest.fixture(scope="module")
def vocabulary(graphs):
    return Vocabulary(count_items(graphs))


def rewrites(graphs, vocabulary, level, count=4, told=frozenset()):
    for at, (caption, nodes) in enumerate(zip(CAPTIONS, graphs, strict=True)):
        rng = random.Random(at)
        for one in hard_negatives(caption, nodes, level, count, vocabulary, told, rng):
            yield caption, one


@pytest.mark.parametrize("level", [Level.WORD, Level.PHRASE])
def test_only_the_span_differs_and_the_article_agrees(graphs, vocabulary, level):
    seen = Counter()
    for caption, one in rewrites(graphs, vocabulary, level):
        rest = caption[one.end :]
        assert one.text.startswith(caption[: one.begin]) and one.text.endswith(rest)
        replaced = one.text[one.begin : len(one.text) - len(rest)]
        assert replaced != caption[one.begin : one.end] and one.text != caption
        assert (
            not one.positive
            and one.level == level
            and one.how.count("+") == (0 if level == Level.WORD else one.how.count("+"))
        )
        words = one.text.split()
        for article, word in pairwise(words):
            if article.lower() in ("a", "an"):
                assert article_for(word, article) == article, one.text
        assert one.text[0].isupper()
        seen[one.how] += 1
    kinds = {OBJECT, ATTRIBUTE, RELATION}
    wanted = kinds if level == Level.WORD else {"attribute+object", "relation+object"}
    assert wanted <= seen.keys()
    assert (level == Level.WORD) == (not any("+" in how for how in seen))


def test_what_replaces_is_of_the_same_type_and_not_alike(graphs, vocabulary):
    for caption, one in rewrites(graphs, vocabulary, Level.WORD):
        rest = caption[one.end :]
        new = one.text[one.begin : len(one.text) - len(rest)].lower()
        old = caption[one.begin : one.end].lower()
        new, old = (text.removeprefix("an ").removeprefix("a ") for text in (new, old))
        assert not alike(old, new)
        if one.how == OBJECT:
            assert new in NOUNS
        elif one.how == ATTRIBUTE:
            assert new in COLOUR
        else:
            assert new in WHERE


def test_nothing_that_the_image_is_told_to_show_replaces(graphs, vocabulary):
    told = frozenset(stem(word) for word in ("dog", "cats", "red"))
    items = Counter()
    for caption, one in rewrites(graphs, vocabulary, Level.WORD, told=told):
        items[one.text[one.begin : len(one.text) - len(caption[one.end :])].lower()] += 1
    assert sum(items.values()) > 100
    assert not {"dog", "cat", "a cat", "a dog", "red", "a red"} & items.keys()


def test_the_same_key_gives_the_same_rewrites(graphs, vocabulary):
    first, second = (
        [one for _, one in rewrites(graphs, vocabulary, Level.PHRASE)] for _ in range(2)
    )
    assert first == second and len(first) > 100


def test_a_vocabulary_without_another_item_rewrites_nothing(graphs):
    alone = Vocabulary(count_items(graphs[:1]))
    node = graphs[0][0]
    assert alone.draw(node, frozenset(), random.Random(1)) is None


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("man", "person", True),
        ("man", "woman", False),
        ("dog", "dogs", True),
        ("dog", "puppy", True),
        ("running", "runs", True),
        ("next to", "beside", True),
        ("in front of", "behind", False),
        ("red", "blue", False),
        ("black dog", "puppy", True),
    ],
)
def test_what_may_be_said_of_the_same_thing(a, b, same):
    assert alike(a, b) is alike(b, a) is same


def test_colours_and_numbers_are_words():
    assert not COLOURS & NUMBERS and len(COLOURS) > 15


@pytest.mark.parametrize(
    ("word", "article"),
    [
        ("apple", "an"),
        ("unicorn", "a"),
        ("uniform", "a"),
        ("hour", "an"),
        ("umbrella", "an"),
        ("european", "a"),
    ],
)
def test_a_or_an(word, article):
    assert article_for(word, "a") == article
    assert article_for(word, "An") == article.capitalize()


def test_captions_are_the_same_without_case_and_punctuation():
    assert normalised("A  dog, runs .") == normalised("a dog runs")
