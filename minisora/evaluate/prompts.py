"""Which prompts a model is evaluated on: fixed sets, or a text file with one prompt a line.

72     COLOR x SHAPE x DIRECTION, the triples
all    these, 36 with a wall (permanence) and 36 that say the light (day and night)
"""

from pathlib import Path
from typing import Literal, get_args

from minisora.data.shapes_world.grammar import (
    COLORS,
    DIRECTIONS,
    SHAPES,
    Light,
    Motion,
    ShapesPrompt,
    Size,
    all_prompts,
    parse,
)
from minisora.errors import UserError

Kind = Literal["plain", "wall", "light"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def wall_prompts() -> list[str]:
    """36 prompts COLOR x SHAPE x left or right behind the wall; small and medium take turns.

    No large ones: a large object would not come out of the wall, and the world draws none.
    """
    sideways: tuple[Motion, ...] = ("left", "right")
    sizes: tuple[Size, ...] = ("small", "medium")
    return [
        ShapesPrompt(color, shape, motion, size=sizes[(i + j + k) % 2], wall=True).caption()
        for i, color in enumerate(COLORS)
        for j, shape in enumerate(SHAPES)
        for k, motion in enumerate(sideways)
    ]


def light_prompts() -> list[str]:
    """36 prompts COLOR x SHAPE x "by day" or "at night"; both lights of a pair move the same way."""
    lights: tuple[Light, ...] = ("day", "night")
    return [
        ShapesPrompt(color, shape, DIRECTIONS[(i * len(SHAPES) + j) % len(DIRECTIONS)], light=light).caption(
            say_night=True
        )
        for i, color in enumerate(COLORS)
        for j, shape in enumerate(SHAPES)
        for light in lights
    ]


def prompt_set(name: str | Path) -> list[str]:
    """The prompts of "72" or "all", or of a text file; empty lines and lines that begin with # are skipped.

    Raises:
        UserError: no such set or file, a line that is not of the grammar (with its number), or no prompt.
    """
    if str(name) == "72":
        return all_prompts()
    if str(name) == "all":
        return all_prompts() + wall_prompts() + light_prompts()
    file = Path(name)
    if not file.is_file():
        raise UserError(f"prompts '{name}': no such file; use 72, all, or a text file with one prompt a line")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    prompts = []
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        try:
            parse(text)
        except UserError as error:
            raise UserError(f"{file}, line {number}: {error}") from error
        prompts.append(text)
    if not prompts:
        raise UserError(f"{file} holds no prompt: write one a line, such as 'a small red circle moving left'")
    return prompts


def kind_of(caption: str) -> Kind:
    """What a caption of the grammar tests: "wall" if it has one, else "light" if it says it, else "plain"."""
    if parse(caption).wall:
        return "wall"
    names_light = " ".join(caption.lower().split()).endswith(("by day", "at night"))
    return "light" if names_light else "plain"
