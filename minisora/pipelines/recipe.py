"""The recipe of a video: all that makes it again, byte for byte, kept inside the mp4 (its comment tag, JSON).

Torch is not needed to read or to check one.

Every choice stands in it as a number or a name, also where it was left to the model, so that later defaults change
nothing. The model is told by its name and by what its weights are (`minisora.pipelines.model_folder.weights_digest`),
never by its place.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minisora.errors import UserError
from minisora.limits import MAX_FRAMES, MAX_GUIDANCE, MAX_SIDE, MAX_STEPS, check_number, check_seed

# Of the form below; a reader of this one refuses the next.
VERSION = 1
SCHEDULERS = ("euler", "heun", "dpm++")
MAX_PROMPT = 2000
_MOST_BYTES = 1 << 18
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

    Raises:
        UserError: a value is out of its range.
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

    def __post_init__(self) -> None:
        if self.mode != "sample":
            raise UserError(
                f"the recipe is of mode '{self.mode[:40]}', which this minisora does not know: update it"
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

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"minisora": VERSION, **vars(self), "size": list(self.size)}

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
    names = set(Recipe.__dataclass_fields__)
    given = {name: item for name, item in value.items() if name != "minisora"}
    if set(given) != names:
        off = sorted(names.symmetric_difference(given))[0]
        raise UserError(f"the recipe {'lacks' if off in names else 'has an unknown key'} '{off[:40]}'")
    size = given["size"]
    if not isinstance(size, list) or len(size) != 3 or not isinstance(given["mode"], str):
        raise UserError("the recipe's size must be three numbers, and its mode a name")
    return Recipe(**{**given, "size": tuple(size)})


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
        if not text or len(text) > _MOST_BYTES:
            raise UserError("it has none")
        return recipe_of(json.loads(text))
    except (UserError, ValueError, RecursionError) as error:
        why = str(error) if isinstance(error, UserError) else "its comment is something else"
        raise UserError(
            f"{file} holds no recipe ({why}): minisora studio writes one into each video"
        ) from error
