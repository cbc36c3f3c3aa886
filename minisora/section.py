"""A section of settings, typed and strict: an unknown key is an error that names the nearest right one.

This module imports neither torch nor the rest of minisora, which keeps `minisora --help` fast.
"""

from typing import Annotated, Any, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from minisora.errors import UserError, nearest
from minisora.limits import LAST_SEED, MAX_COUNT, MAX_FRAMES, MAX_SIDE

PositiveInt = Annotated[int, Field(gt=0, le=MAX_COUNT)]
Natural = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Frames = Annotated[int, Field(gt=0, le=MAX_FRAMES)]
# Pixels.
Side = Annotated[int, Field(gt=0, le=MAX_SIDE)]
# Frames per second.
Rate = Annotated[float, Field(ge=0.01, le=1000.0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
# Of a moving average; at 1 it would never move.
Decay = Annotated[float, Field(ge=0.0, lt=1.0)]
Seed = Annotated[int, Field(ge=0, le=LAST_SEED)]

_Kind = TypeVar("_Kind", bound="Section")


class Section(BaseModel):
    """Base of every section: no unknown keys, no infinite numbers, no change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    def replace(self, **changes: Any) -> Self:
        """A copy with other values, validated: `config.replace(seed=1, **{"data.num_clips": 100})`.

        Raises:
            UserError: a key or a value is wrong; the message names it.
        """
        tree = self.model_dump()
        for key, value in changes.items():
            put(tree, key, value)
        return validate(type(self), tree)


def put(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set "section.key" in a tree of sections; raises UserError where a section is a value."""
    *sections, last = key.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise UserError(f"--set {key}: '{section}' is a value, not a section")
    tree[last] = value


def validate(kind: type[_Kind], tree: dict[str, Any]) -> _Kind:
    """The section of a tree of values.

    Raises:
        UserError: a key or a value is wrong; the message names it.
    """
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise UserError(_explain(error, kind)) from error


def _explain(error: ValidationError, kind: type[Section]) -> str:
    """The first fault of a section in one line, with the nearest right key where a key is unknown."""
    fault = error.errors()[0]
    key = ".".join(str(part) for part in fault["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if fault["type"] == "extra_forbidden":
        known = _keys(kind, fault["loc"][:-1])
        hint = nearest(str(fault["loc"][-1]), known)
        listed = f"; known here: {', '.join(known)}" if known else ""
        return f"unknown config key '{key}'{hint}{listed}{more}"
    message = fault["msg"].removeprefix("Value error, ")
    where = f"config key '{key}' = {fault['input']!r}: " if key else ""
    return f"{where}{message}{more}"


def _keys(kind: type[Section], path: tuple[int | str, ...]) -> list[str]:
    """The keys of the section at a path; a number in it is an item of a tuple of sections."""
    here: Any = kind
    for part in path:
        if isinstance(part, int):
            here = next(iter(get_args(here)), None)
        elif isinstance(here, type) and issubclass(here, Section) and part in here.model_fields:
            here = here.model_fields[part].annotation
    return list(here.model_fields) if isinstance(here, type) and issubclass(here, Section) else []
