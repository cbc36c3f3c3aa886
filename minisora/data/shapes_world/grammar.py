"""The language of the shapes world: what a clip shows, as fields and as an English caption, both ways.

    a [small |large ]COLOR SHAPE moving DIRECTION[ behind a gray wall][ by day| at night]
    a [small |large ]COLOR SHAPE standing still[ by day| at night]

A wall hides the object *for some frames in the middle*, so it comes with left and right motion only: behind
a vertical bar an object that stands still, or moves up or down, would never be seen.
"""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from minisora.errors import UserError, nearest

Motion = Literal["left", "right", "up", "down", "still"]
Size = Literal["small", "medium", "large"]
Light = Literal["day", "night"]

COLORS: dict[str, tuple[float, float, float]] = {  # RGB in [0, 1]
    "red": (0.90, 0.10, 0.10),
    "green": (0.10, 0.80, 0.20),
    "blue": (0.15, 0.25, 0.95),
    "yellow": (0.95, 0.90, 0.10),
    "white": (0.95, 0.95, 0.95),
    "purple": (0.60, 0.10, 0.80),
}
SHAPES: tuple[str, ...] = ("circle", "square", "triangle")
DIRECTIONS: tuple[Motion, ...] = ("left", "right", "up", "down")
SIZES: tuple[Size, ...] = ("small", "medium", "large")

# A tenth of the 72 triples, never shown in training, to test composition. Written out, so that no change of
# code can move it: each colour, shape and direction is in it at least once; no colour loses more than 2 of
# its 12 triples, no shape more than 3 of its 24, no direction more than 2 of its 18.
HELD_OUT: frozenset[tuple[str, str, str]] = frozenset(
    {
        ("red", "circle", "left"),
        ("red", "triangle", "down"),
        ("green", "square", "right"),
        ("blue", "triangle", "up"),
        ("yellow", "circle", "down"),
        ("white", "square", "left"),
        ("purple", "triangle", "right"),
    }
)


def held_out(color: str, shape: str, direction: str) -> bool:
    """Whether this triple is kept out of training. Standing still is never held out."""
    return (color, shape, direction) in HELD_OUT


@dataclass(frozen=True)
class ShapesPrompt:
    """What one clip of the shapes world shows.

    Raises:
        UserError: a field has a value the world does not know, or a wall comes without left/right motion.
    """

    color: str
    shape: str
    motion: Motion
    size: Size = "medium"
    wall: bool = False
    light: Light = "night"

    def __post_init__(self) -> None:
        _known("color", self.color, COLORS)
        _known("shape", self.shape, SHAPES)
        _known("motion", self.motion, get_args(Motion))
        _known("size", self.size, SIZES)
        _known("light", self.light, get_args(Light))
        if self.wall and self.motion not in ("left", "right"):
            raise UserError(
                f"a wall needs an object moving left or right, not '{self.motion}': drop 'behind a gray wall'"
            )

    def caption(self, say_night: bool = False) -> str:
        """The caption in the grammar. Medium size is never said; night is the default and said on request."""
        size = "" if self.size == "medium" else f"{self.size} "
        motion = "standing still" if self.motion == "still" else f"moving {self.motion}"
        wall = " behind a gray wall" if self.wall else ""
        light = " by day" if self.light == "day" else " at night" if say_night else ""
        return f"a {size}{self.color} {self.shape} {motion}{wall}{light}"

    @property
    def held_out(self) -> bool:
        """Whether the triple of this prompt is kept out of training."""
        return held_out(self.color, self.shape, self.motion)


def parse(caption: str) -> ShapesPrompt:
    """Read a caption of the grammar back into its fields; case and extra spaces do not matter.

    Raises:
        UserError: the caption is not of the grammar; the message quotes it and shows one that is.
    """
    match = _CAPTION.fullmatch(" ".join(caption.lower().split()))
    if match is None:
        raise UserError(
            f"caption '{caption}' is not of the shapes world; one that is: 'a small red circle moving left'"
        )
    size, color, shape, direction, wall, light = match.groups()
    return ShapesPrompt(
        color=color,
        shape=shape,
        motion=direction or "still",  # type: ignore[arg-type]  # the pattern admits the right words only
        size=size or "medium",  # type: ignore[arg-type]
        wall=wall is not None,
        light="day" if light == "by day" else "night",
    )


def all_prompts() -> list[str]:
    """The 72 captions COLOR x SHAPE x DIRECTION, medium, at night (unsaid), in a fixed order."""
    return [
        ShapesPrompt(color, shape, direction).caption()
        for color in COLORS
        for shape in SHAPES
        for direction in DIRECTIONS
    ]


def _known(field: str, value: str, known: object) -> None:
    words = list(known)  # type: ignore[call-overload]
    if value not in words:
        raise UserError(
            f"{field} '{value}' is not in the shapes world{nearest(value, words)}; known: {', '.join(words)}"
        )


_CAPTION = re.compile(
    r"an? (?:(small|large) )?"
    rf"({'|'.join(COLORS)}) ({'|'.join(SHAPES)}) "
    rf"(?:moving ({'|'.join(DIRECTIONS)})|standing still)"
    r"( behind a gr[ae]y wall)?"
    r"(?: (by day|at night))?"
)
