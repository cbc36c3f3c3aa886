"""What a caption says that an altered view of its clip would make untrue: a side, writing, a speed, brightness.

Judged by words, those that only begin like one too: a view altered too little costs little, an untrue caption is
learned. Of languages other than English only the commonest words are known; of footage with writing that no caption
names nothing is.
"""

import re

_NUMBERS = "zero|one|two|three|four|five|six|seven|eight|nine"
_SIDE = re.compile(
    r"\b(?:left|right|(?:north|south)?(?:east|west)|(?:counter|anti)?-?clockwise|starboard|port\b"
    r"|link(?:s|e|er|en|es)\b|recht|gauch|droit|izquierd|derech|esquerd|direit|sinistr|destr|лев|прав)|[左右東东西]",
    re.IGNORECASE,
)
# Digits, quotations, letters that stand alone (a and I are words where they are not all of it), numerals that are the
# thing itself ("a seven", not "seven cars"), and what writing is on.
_WRITING = re.compile(
    r"\d|[\"“”„«»]|(?<![\w'’])[b-hj-z](?![\w'’])|\A\W*(?:[ai]|" + _NUMBERS + r")\W*\Z"
    r"|\b(?:an?|the|digit)\s+(?:\w+\s+)?(?:" + _NUMBERS + r")\b"
    r"|\b(?:text|letter|words?\b|digit|number|numeral|signs?\b|signpost|logo|title|subtitle|caption|label|writ"
    r"|reads\b|reading\b|says\b|spell|score|clock|banner|poster|newspaper|alphabet|licen[cs]e)",
    re.IGNORECASE,
)
_SPEED = re.compile(
    r"\b(?:slow|fast|quick|rapid|rápid|swift|speed|hurr|rush|sprint|sluggish|time-?\s?lapse|hyperlapse|langsam"
    r"|schnell|lent|veloz|медленн|быстр)|[慢快速]",
    re.IGNORECASE,
)
_BRIGHTNESS = re.compile(
    r"\b(?:dark|bright|dim\b|dimm|pale|faint|contrast|(?:over|under)-?exposed|dunk[el]|hell\b|sombre|oscur|claro?s?\b"
    r"|тёмн|темн|ярк)|[暗明]",
    re.IGNORECASE,
)


def names_side(caption: str) -> bool:
    """Whether it names a side, a direction of the compass or a sense of rotation: untrue of a mirrored view."""
    return _SIDE.search(caption) is not None


def names_writing(caption: str) -> bool:
    """Whether it names letters, digits or what they are on, which are none when mirrored."""
    return _WRITING.search(caption) is not None


def names_speed(caption: str) -> bool:
    """Whether it says how fast something goes."""
    return _SPEED.search(caption) is not None


def names_brightness(caption: str) -> bool:
    """Whether it says how bright or pale something is."""
    return _BRIGHTNESS.search(caption) is not None


def may_be_mirrored(caption: str) -> bool:
    """Whether it is as true of the clip's mirror image."""
    return not (names_side(caption) or names_writing(caption))
