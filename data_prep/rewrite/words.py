"""What the rewriting knows of English: which words mean the same, how they inflect, a or an.

The lists hold what captions of photos are full of. They only ever forbid a replacement: a word that
is missing here makes a negative now and then true, never a positive wrong.
"""

import re
from functools import cache, lru_cache
from typing import Any


def words_of(text: str) -> frozenset[str]:
    """The words of a list that is written as text."""
    return frozenset(text.split())


COLOURS = words_of(
    "red green blue yellow purple orange black white brown pink gray grey tan beige golden gold "
    "silver blond blonde turquoise maroon violet teal navy"
)
NUMBERS = words_of("two three four five six seven eight nine ten eleven twelve")
"""Of several: with "one" the noun and the verb would have to change too."""

_PEOPLE = "person people adult individual someone human figure"
_DOERS = (
    "player athlete teammate footballer rider biker cyclist bicyclist skateboarder skater skier "
    "snowboarder surfer climber hiker runner dancer swimmer worker"
)
_SAME = [
    f"man men guy male gentleman dude fellow {_PEOPLE}",
    f"woman women lady female gal {_PEOPLE}",
    f"boy kid child youth youngster toddler baby infant son {_PEOPLE} male",
    f"girl kid child youth youngster toddler baby infant daughter {_PEOPLE} female",
    f"{_DOERS} {_PEOPLE} man men boy guy kid child",
    f"{_DOERS} {_PEOPLE} woman women girl lady kid child",
    f"crowd group audience team bunch gathering {_PEOPLE} spectator onlooker",
    "dog puppy animal pet canine hound terrier labrador retriever poodle dalmatian greyhound "
    "collie shepherd bulldog",
    "cat kitten animal pet", "horse pony animal", "bird seagull pigeon duck goose animal",
    "bike bicycle cycle", "motorcycle motorbike bike dirtbike", "car vehicle automobile truck van",
    "street road lane alley sidewalk pavement", "path trail track road walkway",
    "water lake river ocean sea pool pond stream wave creek surf",
    "beach shore coast sand seaside", "grass lawn field yard meadow pasture park",
    "forest wood woods tree jungle", "mountain hill cliff rock slope peak", "rock stone boulder",
    "snow ice slope", "shirt top tshirt t-shirt jersey blouse sweater clothing clothes outfit",
    "jacket coat vest parka", "pants trousers jeans slacks shorts", "hat cap helmet beanie",
    "dress gown outfit costume", "shoe boot sneaker", "glass sunglasses goggles eyeglasses",
    "ball toy football soccerball basketball baseball tennisball frisbee disc", "stick branch log",
    "building house structure home", "store shop market", "photo picture camera image",
    "bench seat chair", "sofa couch", "fence railing rail gate wall barrier", "ramp halfpipe pipe",
    "restaurant cafe bar", "air sky", "boat canoe kayak raft ship", "food meal snack",
    "race event competition contest", "game match sport", "ground floor dirt", "face mouth head",
    "small little tiny young", "big large huge giant tall", "young little small teenage",
    "old elderly older", "happy smiling laughing", "wet soaked", "blond blonde yellow golden tan",
    "gray grey silver", "brown tan beige golden", "pink purple", "bright colorful colored",
    "grassy green", "snowy white icy", "sandy rocky", "wooden wood", "asian oriental",
    "next near by beside alongside at along close",
    "on upon atop onto over above", "in inside into within", "under below beneath underneath",
    "over above across past", "through across along down in into", "to toward towards into",
    "off from out", "around about near by", "outside near in", "during in", "against on by near",
    "run running chase chasing race racing jog jogging", "walk walking stroll strolling",
    "jump jumping leap leaping hop hopping", "look looking watch watching stare gaze staring see",
    "stand standing pose posing wait waiting", "sit sitting rest resting seat seated relax",
    "hold holding carry carrying have grip", "wear wearing dress dressed have", "play playing",
    "ride riding drive driving race", "throw throwing toss tossing", "catch catching grab bite",
    "smile smiling laugh laughing grin", "talk talking speak chat", "swim swimming play splash",
    "climb climbing scale ascend", "fall falling", "slide sliding", "eat eating chew bite",
    "fly flying jump soar", "perform performing do doing", "lie lay lying laying rest",
    "several many some", "pose posing stand sit", "leave go walk", "go walk run", "move walk run",
]  # fmt: skip

NOT_OBJECTS = words_of(
    "pair group couple bunch front top side lot back middle end edge set number kind type piece "
    "row line way bit part corner left right background foreground distance other others one "
    "something thing things time day while look it"
)
"""Nouns that name no object, or that only count another one."""

NOT_ATTRIBUTES = words_of("other own same such several many few more most last first next")
"""Adjectives that say nothing about how a thing looks."""

AUXILIARIES = words_of("is are was were be been being am has have had do does did can")

_AN = re.compile(r"(?!uni(?!n|m)|use|usu|eu|ewe|one\b|once|u\b)[aeiou]|hour|honest|heir|honou?r")


def article_for(word: str, article: str) -> str:
    """ "a" or "an" before ``word``, written with a capital where ``article`` is."""
    found = "an" if _AN.match(word.lower()) else "a"
    return found.capitalize() if article[0].isupper() else found


@cache
def _stemmer() -> Any:
    try:
        from nltk.stem import PorterStemmer
    except ImportError as error:
        raise ValueError("rewriting needs nltk: pip install 'unimo-ds[text]'") from error
    return PorterStemmer()


@lru_cache(maxsize=100_000)
def stem(word: str) -> str:
    """What the forms of a word share [Porter, 1980]; irregular plurals of people besides.

    Raises:
        ValueError: the stemmer is not installed.
    """
    word = word.lower()
    return _IRREGULAR.get(word) or _stemmer().stem(word)


_IRREGULAR = {
    "men": "man", "women": "woman", "children": "child", "people": "person", "feet": "foot",
    "wolves": "wolf", "leaves": "leaf", "geese": "goose", "ran": "run", "rode": "ride",
    "sat": "sit", "stood": "stand", "held": "hold", "wore": "wear", "worn": "wear",
    "caught": "catch", "threw": "throw", "lying": "lie", "laying": "lay",
}  # fmt: skip


@lru_cache(maxsize=100_000)
def _groups_of(stemmed: str) -> frozenset[int]:
    return frozenset(i for i, group in enumerate(_groups()) if stemmed in group)


@cache
def _groups() -> list[frozenset[str]]:
    return [frozenset(stem(word) for word in line.split()) for line in _SAME]


@lru_cache(maxsize=200_000)
def alike(a: str, b: str) -> bool:
    """May ``b`` be said of what ``a`` is said of? Of phrases their last words decide.

    A preposition of several words ("next to") counts by its first one.
    """
    if a == b:
        return True
    heads = [stem((phrase.split() or [""])[_head(phrase)]) for phrase in (a, b)]
    return heads[0] == heads[1] or bool(_groups_of(heads[0]) & _groups_of(heads[1]))


def _head(phrase: str) -> int:
    return 0 if phrase in PREPOSITIONS else -1


PREPOSITIONS = words_of(
    "in on at by near under over above below behind beside inside outside around through "
    "across along against between among into onto off toward with without from within upon up down"
) | {
    "in front of", "on top of", "next to", "close to", "away from", "out of", "to the left of",
    "to the right of", "left of", "right of", "above and to the left of",
    "above and to the right of", "below and to the left of", "below and to the right of",
    "to the upper left of", "to the upper right of", "to the lower left of",
    "to the lower right of", "on the side of", "in the middle of", "far from", "along with",
}  # fmt: skip
"""Relations between two things, as they are written."""

OPENERS: dict[str, list[list[str]]] = {}
"""First word -> the prepositions that begin with it, as lists of words, the longest first."""
for _words in sorted((p.split() for p in PREPOSITIONS), key=len, reverse=True):
    OPENERS.setdefault(_words[0], []).append(_words)
