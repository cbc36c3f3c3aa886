"""Captions to tokens: how a text is split into words, a vocabulary of them, and what does not fit.

A model keeps the way of splitting that it was trained with: `TOKENIZER_VERSION` is written beside its vocabulary, and a
model without it is of version 1.

Letters: B batch, M tokens.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor

from minisora.config import MAX_TOKENS, MIN_TOKENS, TextConfig
from minisora.errors import UserError, nearest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PAD, START, UNKNOWN = 0, 1, 2
NUM_SPECIAL = 3
TOKENIZER_VERSION = 2
_WORD = re.compile(r"\w+|[^\w\s]")
# Characters shown of what is read of a cut caption.
_TAIL = 40

_Kind = Literal["letter", "alone", "symbol", "mark", "joiner", "space", "ignored"]
# Scripts written without spaces, by how Unicode names their letters: each letter is a word. (Tibetan is not one of
# them: its syllables are set apart by a mark of punctuation.)
_WITHOUT_SPACES = (
    "CJK ",
    "IDEOGRAPHIC ",
    "HIRAGANA ",
    "KATAKANA ",
    "KATAKANA-HIRAGANA ",
    "HALFWIDTH KATAKANA ",
    "BOPOMOFO ",
    "THAI ",
    "LAO ",
    "KHMER ",
    "MYANMAR ",
    "TAI LE ",
    "TAI THAM ",
    "TAI VIET ",
    "NEW TAI LUE ",
    "JAVANESE ",
    "BALINESE ",
    "YI ",
    "TANGUT ",
)
# Letters to Unicode, but part of the letter before: am of Thai and Lao, voicing of half-width kana (UAX 29, table 2).
_LIKE_MARKS = "\u0e33\u0eb3\uff9e\uff9f"


class CaptionTokenizer(Protocol):
    """What tells how much of a text a model reads."""

    max_tokens: int

    @property
    def longest(self) -> int:
        """The largest `max_tokens` there can be."""
        ...

    def count(self, text: str) -> int:
        """Tokens of a text, all of it, with those that mark its ends."""
        ...

    def cut(self, text: str) -> str | None:
        """What is read of a text that is cut at `max_tokens`; None if all of it is."""
        ...


@cache
def _kind(char: str) -> _Kind:
    """What a character is to `words`, by its category in Unicode."""
    category, name = unicodedata.category(char), unicodedata.name(char, "")
    if char in "\u200c\u200d":
        return "joiner"
    # Such as a soft hyphen or a change of direction.
    if category == "Cf" and char != "\u200b":
        return "ignored"
    if name.startswith("VARIATION SELECTOR"):
        return "ignored"
    if category[0] == "M" or char in _LIKE_MARKS or name.startswith("EMOJI MODIFIER"):
        return "mark"
    if char.isspace() or category == "Cc" or char == "\u200b":
        return "space"
    if char.isalnum() or char == "_":
        return "alone" if name.startswith(_WITHOUT_SPACES) else "letter"
    return "symbol"


def words(text: str, version: int = TOKENIZER_VERSION) -> list[str]:
    """Lower-case words and punctuation marks of a caption, the same however its accents are encoded (NFC).

    Marks (accents, vowel signs, harakat) stay with the letter before them, and joiners within words and emoji. Where
    a script has no spaces, every letter with its marks is a word. Version 1 knew neither marks nor such scripts.
    """
    lower = text.lower()
    if version == 1 or (lower.isascii() and lower.isprintable()):
        return _WORD.findall(lower)
    split: list[str] = []
    last: _Kind = "space"
    joiner = ""
    for char in unicodedata.normalize("NFC", lower):
        kind = _kind(char)
        if kind == "ignored":
            continue
        if kind == "joiner":
            joiner = char
            continue
        in_word = kind == last and (kind == "letter" or (kind == "symbol" and joiner != ""))
        if in_word or (kind == "mark" and last != "space"):
            split[-1] += joiner + char
        elif kind != "space":
            split.append(char)
            last = "letter" if kind == "mark" else kind
        else:
            last = "space"
        joiner = ""
    return split


def join_words(split: Sequence[str], version: int = TOKENIZER_VERSION) -> str:
    """Words as a text that `words` splits alike: a space between them, but none within a script without spaces."""
    if version == 1:
        return " ".join(split)
    text = ""
    for word, before in zip(split, ["", *split], strict=False):
        close = before and _kind(before[0]) == "alone" and _kind(word[0]) == "alone"
        text += word if close or not before else f" {word}"
    return text


def build_vocabulary(captions: Iterable[str], max_words: int, version: int = TOKENIZER_VERSION) -> list[str]:
    """The most frequent words of the captions; ties in alphabetical order, so it is reproducible."""
    counts = Counter(word for caption in captions for word in words(caption, version))
    return [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))][:max_words]


class Tokenizer:
    """Words to ids: 0 pads, 1 starts every caption (alone it is the null prompt ""), 2 is an unknown word.

    Args:
        vocabulary: known words, most frequent first.
        max_tokens: longer captions are cut.
        version: how `words` splits.

    Raises:
        UserError: the version is of a newer minisora.
    """

    longest = MAX_TOKENS

    def __init__(self, vocabulary: Sequence[str], max_tokens: int, version: int = TOKENIZER_VERSION):
        if version not in range(1, TOKENIZER_VERSION + 1):
            raise UserError(
                f"this model's tokenizer has version {version}, this minisora reads 1 to {TOKENIZER_VERSION}: "
                "update minisora"
            )
        self.ids = {word: i + NUM_SPECIAL for i, word in enumerate(vocabulary)}
        self.max_tokens, self.version = max_tokens, version

    def __call__(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids (B M, int64) and mask (B M, bool); M is the longest caption, rounded up to a multiple of 8."""
        rows = [
            [START, *(self.ids.get(word, UNKNOWN) for word in self.words(p))][: self.max_tokens]
            for p in prompts
        ]
        longest = min(self.max_tokens, -(-max(len(row) for row in rows) // 8) * 8)
        ids = torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])
        return ids, ids != PAD

    def words(self, text: str) -> list[str]:
        """The words of a text as this tokenizer splits it."""
        return words(text, self.version)

    def count(self, text: str) -> int:
        """Tokens of a text, all of it, and one for its start."""
        return 1 + len(self.words(text))

    def cut(self, text: str) -> str | None:
        """What is read of a text that is cut at `max_tokens`; None if all of it is."""
        split = self.words(text)
        room = self.max_tokens - 1
        return join_words(split[:room], self.version) if len(split) > room else None

    def check(self, prompt: str) -> list[str]:
        """The words of a prompt that the model never saw.

        Raises:
            UserError: it knows none of them, so the prompt could not steer anything.
        """
        split = self.words(prompt)
        unknown = [word for word in split if word not in self.ids]
        if split and len(unknown) == len(split):
            hint = nearest(split[0], self.ids)
            known = ", ".join(list(self.ids)[:12])
            raise UserError(f"the model knows no word of the prompt '{prompt}'{hint}; it knows: {known}, ...")
        return unknown


class Subwords:
    """The tokenizer of a T5 or CLIP encoder, asked how much of a text it reads."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", max_tokens: int):
        self._tokenizer, self.max_tokens = tokenizer, max_tokens

    @property
    def longest(self) -> int:
        """What the encoder has positions for, if its tokenizer tells."""
        return min(MAX_TOKENS, self._tokenizer.model_max_length)

    def count(self, text: str) -> int:
        """Tokens of a text, all of it, with those that mark its ends."""
        return len(self._tokenizer(text, verbose=False).input_ids)

    def cut(self, text: str) -> str | None:
        """What is read of a text that is cut at `max_tokens`; None if all of it is."""
        if self.count(text) <= self.max_tokens:
            return None
        ids = self._tokenizer(text, truncation=True, max_length=self.max_tokens).input_ids
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))


def read_subwords(path: str) -> "PreTrainedTokenizerBase":
    """The tokenizer of transformers in a folder.

    Raises:
        UserError: transformers is not installed, or the folder holds none.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise UserError("text.kind=pretrained needs transformers: pip install 'minisora[text]'") from error
    try:
        return AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"the text encoder in '{path}' cannot be read: {first}") from error


def caption_tokenizer(text: TextConfig) -> CaptionTokenizer:
    """The tokenizer of a config, without a vocabulary or an encoder's weights: for the lengths of captions.

    Raises:
        UserError: the folder of a pretrained encoder holds no tokenizer, or transformers is not installed.
    """
    if text.kind == "scratch":
        return Tokenizer([], text.tokens, text.tokenizer_version)
    return Subwords(read_subwords(str(text.path)), text.tokens)


def fitting_tokens(tokenizer: CaptionTokenizer, captions: Iterable[str]) -> int:
    """The `max_tokens` that all captions fit into, in steps of 8, from MIN_TOKENS to MAX_TOKENS."""
    most = max((tokenizer.count(caption) for caption in set(captions)), default=0)
    return min(max(MIN_TOKENS, -(-most // 8) * 8), tokenizer.longest)


def cut_captions(
    tokenizer: CaptionTokenizer, captions: Sequence[str], what: str = "captions", remedy: str = "set"
) -> str | None:
    """A line that says how many captions are cut, after what, and how to mend it; None if all are read whole.

    Args:
        tokenizer: the model's.
        captions: texts that the model is to read.
        what: name of such a text in the line, in the plural.
        remedy: verb before text.max_tokens in the line.
    """
    parts = {caption: tokenizer.cut(caption) for caption in dict.fromkeys(captions)}
    count = sum(parts[caption] is not None for caption in captions)
    if not count:
        return None
    read = next(part for part in parts.values() if part is not None)
    tail = read if len(read) <= _TAIL else f"...{read[-_TAIL:]}"
    tail = "".join(char if char.isprintable() else " " for char in tail)
    most = min(max(tokenizer.count(caption) for caption in parts), tokenizer.longest)
    mend = f"{remedy} text.max_tokens={most} (it is {tokenizer.max_tokens})"
    if most <= tokenizer.max_tokens:
        mend = f"shorten them: the encoder reads {tokenizer.longest} tokens at most"
    return f"{count} of {len(captions)} {what} {'is' if count == 1 else 'are'} cut after '{tail}'; {mend}"
