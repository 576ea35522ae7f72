"""Positives of whole sentences: what says the same in other words, and what does not quite.

Where paraphrases come from is a plug: two translation models (back-translation, Li et al.
2021, section 2.1), any command, or the grammar of the demo world.
"""

import shlex
import subprocess
from collections.abc import Callable, Collection, Iterator, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import NamedTuple

from data_prep.demo.paraphrase import paraphrases_of
from data_prep.regions.model_folder import check_weights
from data_prep.rewrite.replacement import Rewrite, normalised
from data_prep.rewrite.similar_captions import content
from data_prep.rewrite.translation import back_translated
from unimo_ds.data.schema import Level

BACK_TRANSLATION, COMMAND, GRAMMAR = "back-translation", "command", "grammar"
NEAR_IDENTICAL = 0.95
"""Share of words in the same order, above which a paraphrase teaches nothing."""
SECONDS = 600
"""That a command may take for the captions of one record batch."""

Paraphrase = Callable[[Sequence[str], int], list[list[str]]]
"""(captions, how many of each) -> the paraphrases of each."""


class Plug(NamedTuple):
    """Where paraphrases come from; picklable."""

    how: str  # BACK_TRANSLATION, COMMAND or GRAMMAR
    arguments: tuple[str, ...]  # the two model folders, or the words of the command

    def paraphrase(self, captions: Sequence[str], count: int) -> list[list[str]]:
        """At most ``count`` paraphrases of each caption, good or bad.

        Raises:
            ValueError: the command or the model does not do its work.
        """
        if self.how == GRAMMAR:
            return [paraphrases_of(caption)[:count] for caption in captions]
        if self.how == COMMAND:
            return [[text] for text in _through(self.arguments, captions)]
        return back_translated(captions, self.arguments, count)


def make_plug(paraphrase: str, command: str, folders: Sequence[Path | None]) -> Plug | None:
    """What the command line asked for; None: no positives.

    Raises:
        ValueError: more than one was asked for, or what cannot work.
    """
    to, back = folders
    if (to is None) != (back is None):
        raise ValueError("--translate-to and --translate-back go together: a model each way")
    asked = [bool(paraphrase), bool(command), to is not None]
    if sum(asked) > 1:
        raise ValueError("--paraphrase, --command and --translate-to: at most one of them")
    if paraphrase:
        if paraphrase != "demo":
            raise ValueError(f"--paraphrase {paraphrase}: expected demo")
        return Plug(GRAMMAR, ())
    if command:
        words = shlex.split(command)
        if not words:
            raise ValueError("--command is empty")
        return Plug(COMMAND, tuple(words))
    if to is None or back is None:
        return None
    for folder in (to, back):
        check_weights(folder, "--translate-to and --translate-back")
    return Plug(BACK_TRANSLATION, (str(to), str(back)))


def positives(
    caption: str,
    found: Sequence[str],
    how: str,
    min_similarity: float,
    own: Collection[str],
    rejected: dict[str, int],
) -> Iterator[Rewrite]:
    """The paraphrases that say the same in other words.

    Args:
        min_similarity: share of content words (Dice) below which a paraphrase has drifted.
        own: the normalised captions of the image; a paraphrase that is one of them is no news.
        rejected: reason -> count, added to.
    """
    words, told = normalised(caption).split(), content(caption)
    made = set()
    for text in found:
        text = " ".join(text.split())
        plain, said = normalised(text), content(text)
        similarity = 2 * len(told & said) / max(len(told) + len(said), 1)
        reason = ""
        if not plain:
            reason = "empty"
        elif SequenceMatcher(None, words, plain.split()).ratio() > NEAR_IDENTICAL:
            reason = "near-identical"
        elif similarity < min_similarity:
            reason = "drifted"
        elif plain in own or plain in made:
            reason = "is a caption already"
        if reason:
            rejected[f"positive: {reason}"] = rejected.get(f"positive: {reason}", 0) + 1
            continue
        made.add(plain)
        yield Rewrite(Level.SENTENCE, True, 0, len(caption), how, round(similarity, 4), text)


def _through(command: Sequence[str], captions: Sequence[str]) -> list[str]:
    """The lines that ``command``, started without a shell, makes of the captions, one each."""
    lines = "".join(" ".join(caption.split()) + "\n" for caption in captions)
    try:
        done = subprocess.run(
            list(command), input=lines, capture_output=True, text=True, timeout=SECONDS
        )
    except OSError as error:
        raise ValueError(f"--command {command[0]}: cannot be started: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise ValueError(
            f"--command {command[0]}: no end after {SECONDS} s with {len(captions)} captions"
        ) from error
    found = done.stdout.splitlines()
    if done.returncode or len(found) != len(captions):
        raise ValueError(
            f"--command {command[0]}: exit code {done.returncode}, {len(found)} lines for "
            f"{len(captions)}, expected 0 and as many; it said: {done.stderr[-300:].strip()!r}"
        )
    return found
