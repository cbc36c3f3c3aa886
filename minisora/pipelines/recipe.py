"""The recipe of a video: all that makes it again, byte for byte, kept inside the mp4 (its comment tag, JSON).

Torch is not needed to read or to check one.

Every choice stands in it as a number or a name, also where it was left to the model, so that later defaults change
nothing. The model is told by its name and by what its weights are (`minisora.pipelines.model_folder.weights_digest`),
never by its place. What a video was made from stands in it too, as recipes within the recipe: it needs no other file.
"""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from minisora.errors import UserError
from minisora.limits import MAX_FRAMES, MAX_GUIDANCE, MAX_SIDE, MAX_STEPS, check_number, check_seed

# Of the form below; a reader of this one refuses the next.
VERSION = 1
SCHEDULERS = ("euler", "heun", "dpm++")
MAX_PROMPT = 2000
# Letters of a recipe, those that it was made from within it: a video of two that were of two each doubles every time.
MOST_LETTERS = 1 << 18
# Videos made one from another.
_MOST_DEEP = 64
# Of a video made of several: images that it leads through, and clips that follow each other.
MOST_KEYFRAMES, MOST_SEGMENTS = 5, 8
# Frames of a video that a mask is painted for.
MOST_MASKS = 8


class Mode(NamedTuple):
    """What a video of a mode is made from.

    Args:
        least, most: how many other videos.
        needs: fields of the recipe that it must have.
        may: those that it can have.
    """

    least: int
    most: int
    needs: frozenset[str] = frozenset()
    may: frozenset[str] = frozenset()


MODES: dict[str, Mode] = {
    "sample": Mode(0, 0),
    "long": Mode(0, 0, frozenset({"later"})),
    "animate": Mode(1, 1, frozenset({"frame"})),
    "extend": Mode(1, 1),
    "prepend": Mode(1, 1),
    "loop": Mode(1, 1),
    "connect": Mode(2, 2),
    "keyframes": Mode(2, MOST_KEYFRAMES, frozenset({"keyframes"}), frozenset({"later"})),
    "restyle": Mode(1, 1, frozenset({"strength"}), frozenset({"source"})),
    "inpaint": Mode(1, 1, frozenset(), frozenset({"mask", "masks"})),
    "trim": Mode(1, 1, frozenset({"span"})),
    "upload": Mode(0, 0, frozenset({"name", "digest"})),
}
# What a recipe says where nothing is sampled.
UNSAMPLED = {"steps": 1, "guidance": 1.0, "seed": 0, "scheduler": "euler"}
MAX_NAME = 200
_ALWAYS = ("model", "weights", "prompt", "size", "steps", "guidance", "seed", "scheduler", "mode")
# Of some modes; lists in JSON are tuples here.
_OF_A_MODE = (
    "frame", "strength", "source", "mask", "name", "digest", "span", "keyframes", "later", "masks",
)  # fmt: skip
_LISTS = ("span", "keyframes", "later", "masks")
_SOMETIMES = ("parents", *_OF_A_MODE)
_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Recipe:
    """One video.

    Args:
        model: the name of the model, for people: "toy", or the folder of its run.
        weights: SHA-256 of its weights, 64 hex digits.
        prompt: what it shows; "" is none.
        size: (frames, height, width) sampled.
        steps, guidance, scheduler, seed: as of `SampleSettings` and `make_scheduler`.
        mode: one of `MODES`.
        parents: recipes of those.
        frame: of "animate", which frame of the parent begins.
        strength: of "restyle", the noise level to begin from.
        source: of "restyle", what the parent shows; keeps what the prompts share. None: it is noised and denoised.
        mask: of "inpaint", `pack_mask` of what is to change, in every frame.
        masks: of "inpaint" instead, (frame, `pack_mask`) of some frames, rising; between them it moves as
            `minisora.pipelines.mask_path` says.
        span: of "trim", the first frame of the parent that stays and the first that does not any more. Nothing is
            sampled.
        keyframes: of "keyframes", which frame of each parent. What happens between two of them is a segment, sampled
            of `size`.
        later: of "long" and "keyframes", prompts of the segments after the first, whose is `prompt`; where there are
            fewer, the last one goes on.
        name, digest: of "upload", what the file was called, and the SHA-256 of its bytes, 64 hex digits. Nothing is
            sampled (`UNSAMPLED`): the video is the file, fitted to the model's rate and to `size`.

    Raises:
        UserError: a value is out of its range, or does not belong to the mode.
    """

    model: str
    weights: str
    prompt: str
    size: tuple[int, int, int]
    steps: int
    guidance: float
    seed: int
    scheduler: str = "euler"
    mode: str = field(default="sample", kw_only=True)
    parents: tuple["Recipe", ...] = field(default=(), kw_only=True)
    frame: int | None = field(default=None, kw_only=True)
    strength: float | None = field(default=None, kw_only=True)
    source: str | None = field(default=None, kw_only=True)
    mask: str | None = field(default=None, kw_only=True)
    name: str | None = field(default=None, kw_only=True)
    digest: str | None = field(default=None, kw_only=True)
    span: tuple[int, int] | None = field(default=None, kw_only=True)
    keyframes: tuple[int, ...] = field(default=(), kw_only=True)
    later: tuple[str, ...] = field(default=(), kw_only=True)
    masks: tuple[tuple[int, str], ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.mode, str) or self.mode not in MODES:
            raise UserError(
                f"the recipe is of mode '{str(self.mode)[:40]}', which this minisora does not know: update it"
            )
        for name, text, most in (("model", self.model, 200), ("prompt", self.prompt, MAX_PROMPT)):
            if not isinstance(text, str) or len(text) > most:
                raise UserError(f"the recipe's {name} must be a text of at most {most} characters")
        if not isinstance(self.weights, str) or not _DIGEST.fullmatch(self.weights):
            raise UserError("the recipe's weights must be 64 hex digits")
        frames, height, width = self.size
        for name, number, most in (
            ("frames", frames, MAX_FRAMES), ("height", height, MAX_SIDE), ("width", width, MAX_SIDE),
            ("steps", self.steps, MAX_STEPS),
        ):  # fmt: skip
            check_number(f"the recipe's {name}", number, 1, most)
        check_number("the recipe's guidance", self.guidance, 0.0, MAX_GUIDANCE)
        check_seed(self.seed, "the recipe's seed")
        if self.scheduler not in SCHEDULERS:
            raise UserError(f"the recipe's scheduler must be one of {', '.join(SCHEDULERS)}")
        self._check_mode()

    def _check_mode(self) -> None:
        """Raise UserError unless what belongs to the mode is there, and nothing else."""
        mode = MODES[self.mode]
        if not mode.least <= len(self.parents) <= mode.most:
            wanted = f"{mode.least}" if mode.least == mode.most else f"{mode.least} to {mode.most}"
            raise UserError(f"{self.mode} is made from {wanted} videos, not from {len(self.parents)}")
        if self.depth > _MOST_DEEP:
            raise UserError(
                f"it is made from more than {_MOST_DEEP} videos, one after another: begin a new one"
            )
        for name in _OF_A_MODE:
            given = getattr(self, name) not in (None, ())
            if given != (name in mode.needs) and name not in mode.may:
                raise UserError(f"{self.mode} {'takes no' if given else 'needs a'} {name}")
        if self.mode == "inpaint" and (self.mask is None) == (not self.masks):
            raise UserError("inpaint needs a mask: one for all frames, or some that say of which frame")
        if self.frame is not None:
            check_number("the recipe's frame", self.frame, 0, MAX_FRAMES)
        if self.strength is not None:
            check_number("the recipe's strength", self.strength, 0.0, 1.0, above=True)
        if self.source is not None and (not isinstance(self.source, str) or len(self.source) > MAX_PROMPT):
            raise UserError(f"the recipe's source must be a text of at most {MAX_PROMPT} characters")
        if self.name is not None and (not isinstance(self.name, str) or not 0 < len(self.name) <= MAX_NAME):
            raise UserError(f"the recipe's name must be a text of 1 to {MAX_NAME} characters")
        if self.digest is not None and not (isinstance(self.digest, str) and _DIGEST.fullmatch(self.digest)):
            raise UserError("the recipe's digest must be 64 hex digits")
        self._check_masks()
        self._check_segments()
        if len(self.to_text()) > MOST_LETTERS:
            raise UserError(
                f"the recipe and those that it was made from are more than {MOST_LETTERS} letters: begin a new video"
            )

    def _check_masks(self) -> None:
        masks = self.masks if self.mask is None else ((0, self.mask),)
        if len(masks) > MOST_MASKS or any(not isinstance(each, tuple) or len(each) != 2 for each in masks):
            raise UserError(f"the recipe's masks must be at most {MOST_MASKS} pairs of a frame and a mask")
        before = -1
        for frame, _ in masks:
            check_number("the frame of a mask", frame, before + 1, self.size[0] - 1)
            before = frame
        sizes = self.size[1:]
        if masks and not any(any(any(row) for row in unpack_mask(mask, *sizes)) for _, mask in masks):
            raise UserError("the mask is empty: mark what is to change")

    def _check_segments(self) -> None:
        if self.span is not None:
            if not isinstance(self.span, tuple) or len(self.span) != 2:
                raise UserError("the recipe's span must be two frames")
            check_number("the first frame that stays", self.span[0], 0, MAX_FRAMES)
            check_number("the frame after the last that stays", self.span[1], self.span[0] + 1, MAX_FRAMES)
        if self.keyframes and len(self.keyframes) != len(self.parents):
            raise UserError(
                f"{len(self.keyframes)} keyframes of {len(self.parents)} videos: give one of each"
            )
        for frame in self.keyframes:
            check_number("a keyframe", frame, 0, MAX_FRAMES)
        most = len(self.parents) - 2 if self.mode == "keyframes" else MOST_SEGMENTS - 1
        if not all(isinstance(text, str) and len(text) <= MAX_PROMPT for text in self.later):
            raise UserError(f"the prompts of segments must be texts of at most {MAX_PROMPT} characters")
        if len(self.later) > most:
            raise UserError(f"{1 + len(self.later)} prompts for at most {1 + most} segments: leave some out")

    @property
    def prompts(self) -> tuple[str, ...]:
        """Of the segments of a video that has several."""
        count = len(self.keyframes) - 1 if self.keyframes else 1 + len(self.later)
        given = (self.prompt, *self.later)
        return tuple(given[min(k, len(given) - 1)] for k in range(count))

    @property
    def depth(self) -> int:
        """Videos made one from another, this one with them."""
        return 1 + max((parent.depth for parent in self.parents), default=0)

    def to_dict(self) -> dict[str, Any]:
        """For JSON, without what does not belong to the mode."""
        own = {name: value for name, value in vars(self).items() if value is not None and value != ()}
        lists: dict[str, Any] = {name: list(own[name]) for name in ("size", *_LISTS) if name in own}
        if self.masks:
            lists["masks"] = [list(pair) for pair in self.masks]
        nested = {"parents": [parent.to_dict() for parent in self.parents]} if self.parents else {}
        return {"minisora": VERSION, **own, **lists, **nested}

    def to_text(self) -> str:
        """The text of the tag; the same recipe gives the same text."""
        return json.dumps(self.to_dict(), ensure_ascii=False, sort_keys=True)


def recipe_of(value: Any) -> Recipe:
    """The recipe in a JSON value, as `Recipe.to_dict` writes it.

    Raises:
        UserError: it is none, or of a later minisora.
    """
    if not isinstance(value, Mapping) or "minisora" not in value:
        raise UserError("it is no recipe of minisora")
    if value["minisora"] != VERSION:
        raise UserError(
            f"the recipe has version {value['minisora']!r:.40}, this minisora reads {VERSION}: update it"
        )
    given = {name: item for name, item in value.items() if name != "minisora"}
    for name in _ALWAYS:
        if name not in given:
            raise UserError(f"the recipe lacks '{name}'")
    for name in given:
        if name not in (*_ALWAYS, *_SOMETIMES):
            raise UserError(f"the recipe has an unknown key '{str(name)[:40]}'")
    size, parents = given["size"], given.get("parents", [])
    if not isinstance(size, list) or len(size) != 3:
        raise UserError("the recipe's size must be three numbers")
    if not isinstance(parents, list) or len(parents) > MOST_KEYFRAMES:
        raise UserError(f"the recipe's parents must be at most {MOST_KEYFRAMES} recipes")
    lists = {}
    for name in _LISTS:
        if not isinstance(given.get(name, []), list):
            raise UserError(f"the recipe's {name} must be a list")
        if name in given:
            lists[name] = tuple(tuple(each) if isinstance(each, list) else each for each in given[name])
    parents = tuple(recipe_of(parent) for parent in parents)
    return Recipe(**{**given, **lists, "size": tuple(size), "parents": parents})


def pack_mask(rows: Sequence[Sequence[bool]]) -> str:
    """A mask of pixels, row by row from the top left, as base64 of its bits; the last byte is filled with zeros."""
    bits = "".join("1" if each else "0" for row in rows for each in row)
    filled = bits.ljust(-(-len(bits) // 8) * 8, "0")
    packed = bytes(int(filled[start : start + 8], 2) for start in range(0, len(filled), 8))
    return base64.b64encode(packed).decode()


def unpack_mask(text: str, height: int, width: int) -> list[list[bool]]:
    """The rows of a mask of `pack_mask`.

    Raises:
        UserError: it is none, or of another size.
    """
    try:
        packed = base64.b64decode(text, validate=True)
    except (ValueError, TypeError) as error:
        raise UserError("the mask is not base64") from error
    if len(packed) != -(-height * width // 8):
        raise UserError(f"the mask is not of {height}x{width} pixels")
    bits = "".join(f"{byte:08b}" for byte in packed)
    return [[bit == "1" for bit in bits[row * width : (row + 1) * width]] for row in range(height)]


def read_recipe(file: Path) -> Recipe:
    """The recipe inside an mp4.

    Raises:
        UserError: the file is no mp4, or has no recipe that can be read.
    """
    # Both are needed for files alone.
    import av

    from minisora.data.video.frames import file_url

    if not file.is_file():
        raise UserError(f"{file}: no such file")
    try:
        with av.open(file_url(file), format="mp4") as container:
            text = container.metadata.get("comment", "")
    # PyAV's errors are of many kinds, some of them ValueError.
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is no mp4 that can be read: {error}") from error
    try:
        if not text or len(text) > MOST_LETTERS:
            raise UserError("it has none")
        return recipe_of(json.loads(text))
    except (UserError, ValueError, RecursionError) as error:
        why = str(error) if isinstance(error, UserError) else "its comment is something else"
        raise UserError(
            f"{file} holds no recipe ({why}): minisora studio writes one into each video"
        ) from error
