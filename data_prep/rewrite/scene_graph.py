"""The scene graph of a caption, as far as its words show it: objects, attributes, relations.

Nodes are spans of the caption, found in the tags and chunks of TextBlob's English parser, which
needs no download. UNIMO's own parser (Li et al. 2021, section 2.1) was never published.
"""

from collections.abc import Sequence
from typing import NamedTuple

from data_prep.phrases import tagged_words
from data_prep.rewrite.words import (
    AUXILIARIES,
    COLOURS,
    NOT_ATTRIBUTES,
    NOT_OBJECTS,
    NUMBERS,
    OPENERS,
    words_of,
)

OBJECT, ATTRIBUTE, RELATION = "object", "attribute", "relation"
TYPES = (OBJECT, ATTRIBUTE, RELATION)

_PLURAL_MODIFIERS = words_of("sports goods arts athletics gymnastics")
_SINGULAR = words_of("a an another each every one this")


class Node(NamedTuple):
    """A part of a caption that can be replaced by another of the same ``slot``."""

    type: str  # of TYPES
    slot: str  # what may stand in its place: part of speech, number, article, what follows
    begin: int  # characters
    end: int
    text: str  # in lower case
    phrase: int  # number of its noun phrase; -1: of none
    context: str = ""  # narrower than the slot: the noun of an attribute, the verb before an object


class _Word(NamedTuple):
    text: str
    begin: int
    end: int
    tag: str
    chunk: str


def scene_graphs(captions: Sequence[str]) -> list[list[Node]]:
    """The nodes of each caption, in their order.

    Raises:
        ValueError: the parser is not installed.
    """
    return [_nodes([_Word(*word) for word in words]) for words in tagged_words(captions)]


def _nodes(words: list[_Word]) -> list[Node]:
    words = _verbs_mended(words)
    nodes: list[Node] = []
    i = phrase = 0
    while i < len(words):
        end = _phrase_end(words, i)
        if end > i:
            nodes += _of_phrase(words, i, end, phrase)
            phrase += 1
            i = end
            continue
        found = _preposition(words, i) or _verb(words, i)
        if found:
            nodes.append(found[0])
        i = found[1] if found else i + 1
    return [node for node in nodes if node.type != RELATION or _relates(node, nodes)]


def _verbs_mended(words: list[_Word]) -> list[_Word]:
    """The tagger takes verbs behind a noun for nouns: "a dog jumps", "a man drilling a hole"."""
    mended, singular = list(words), False
    for i in range(1, len(words)):
        word, before = words[i], mended[i - 1]
        singular = words[i - 1].text in _SINGULAR or (singular and before.tag[:2] != "IN")
        if before.tag[:2] != "NN":
            continue
        after = words[i + 1].tag if i + 1 < len(words) else ""
        ends = before.tag in ("NNS", "NNPS") or (singular and before.tag in ("NN", "NNP"))
        compound = before.text in _PLURAL_MODIFIERS
        if word.tag == "NN" and before.tag == "NNS" and not compound and after:
            mended[i] = word._replace(tag="VBP", chunk="B-VP")
        elif word.tag == "NNS" and (ends or after in ("DT", "PRP$")):
            mended[i] = word._replace(tag="VBZ", chunk="B-VP")
        elif word.tag == "NN" and word.text.endswith("ing") and after in ("DT", "PRP$", "IN"):
            mended[i] = word._replace(tag="VBG", chunk="B-VP")
    return mended


def _phrase_end(words: list[_Word], i: int) -> int:
    """One past the noun phrase that begins at ``i``; ``i`` if none does."""
    if _preposition(words, i):
        return i
    end = i
    while end < len(words) and (_in_phrase(words[end]) or _is_participle(words, i, end)):
        end += 1
        if words[end - 1].tag[:2] == "NN" and (end == len(words) or words[end].tag[:2] != "NN"):
            return end
    return end if end > i and words[end - 1].tag[:2] == "NN" else i


def _in_phrase(word: _Word) -> bool:
    if word.tag in ("VBG", "VBN"):  # an attribute within a noun phrase, a verb elsewhere
        return word.chunk.endswith("NP")
    return word.tag[:2] in ("NN", "JJ", "CD", "DT") or word.tag == "PRP$"


def _is_participle(words: list[_Word], first: int, i: int) -> bool:
    """ "a flying disc": behind a determiner or an adjective."""
    return i > first and words[i].tag in ("VBG", "VBN") and words[i - 1].tag in ("DT", "JJ", "PRP$")


def _of_phrase(words: list[_Word], first: int, end: int, phrase: int) -> list[Node]:
    nouns = end
    while nouns > first and words[nouns - 1].tag[:2] == "NN":
        nouns -= 1
    article = words[first].text if words[first].tag in ("DT", "PRP$") else ""
    counted = any(word.tag == "CD" for word in words[first:end])
    nodes = []
    head, span = words[end - 1], words[nouns:end]
    for word in words[first:nouns]:
        kind = _attribute_slot(word)
        if kind:
            context = "" if kind in ("colour", "number") else head.text
            nodes.append(Node(ATTRIBUTE, kind, word.begin, word.end, word.text, phrase, context))
    if head.text in NOT_OBJECTS or not all(w.text.replace("-", "").isalpha() for w in span):
        return nodes
    plural = "plural" if head.tag in ("NNS", "NNPS") else "singular"
    given = "counted" if counted else _article_slot(article)
    text = " ".join(word.text for word in span)
    slot = f"{plural} {given}"
    return [
        *nodes,
        Node(OBJECT, slot, span[0].begin, head.end, text, phrase, _governor(words, first)),
    ]


def _governor(words: list[_Word], first: int) -> str:
    """The verb or preposition right before a noun phrase; "subject" where none came yet."""
    if all(word.tag[:2] not in ("VB", "IN", "TO", "RP") for word in words[:first]):
        return "subject"
    before = words[first - 1]
    return before.text if before.tag[:2] in ("VB", "IN", "TO", "RP") else ""


def _article_slot(article: str) -> str:
    if article in _SINGULAR:
        return "a"
    return "the" if article else "bare"


def _attribute_slot(word: _Word) -> str:
    if word.text in COLOURS:
        return "colour"
    if word.text in NUMBERS:
        return "number"
    if word.text in NOT_ATTRIBUTES:
        return ""
    if word.tag in ("JJ", "VBN", "VBG") and word.text.replace("-", "").isalpha():
        return "quality" if word.tag == "JJ" else word.tag
    return ""


def _preposition(words: list[_Word], i: int) -> tuple[Node, int] | None:
    for opener in OPENERS.get(words[i].text, ()):
        span = words[i : i + len(opener)]
        if [word.text for word in span] == opener:
            if len(span) == 1 and span[0].tag not in ("IN", "TO", "RP", "JJ", "NN", "RB", "VBD"):
                return None
            context = words[i - 1].text if i and words[i - 1].tag[:2] == "VB" else ""
            begin, end, text = span[0].begin, span[-1].end, " ".join(opener)
            node = Node(RELATION, "preposition", begin, end, text, -1, context)
            return node, i + len(opener)
    return None


def _verb(words: list[_Word], i: int) -> tuple[Node, int] | None:
    word = words[i]
    if word.tag not in ("VBG", "VBZ", "VBP", "VB") or word.text in AUXILIARIES:
        return None
    if not word.text.isalpha() or len(word.text) < 3:
        return None
    following = words[i + 1] if i + 1 < len(words) else None
    if following is None or following.text in AUXILIARIES:
        return None
    # A verb gives way to one that was seen with the same sequel: "riding a", "standing in".
    if _phrase_end(words, i + 1) > i + 1:
        sequel = "object"
    elif following.tag in ("IN", "TO", "RP"):
        sequel = following.text
    else:
        return None
    return Node(RELATION, f"{word.tag} {sequel}", word.begin, word.end, word.text, -1), i + 1


def _relates(relation: Node, nodes: list[Node]) -> bool:
    """Does an object stand before it, and one behind it?"""
    objects = [node for node in nodes if node.type == OBJECT]
    return (
        bool(objects) and objects[0].begin < relation.begin and objects[-1].begin > relation.begin
    )
