"""What the report takes for granted: every input by name, with its range, unit, source and status.

A preset (`configs/report/NAME.yaml`) may rest on another (`base:`) and then states only what it changes, so
its file *is* the difference between, say, the corrected report and the published one. `--set NAME=VALUE`
changes any single value on top.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from minisora.config_files import config_folder
from minisora.errors import UserError, nearest
from minisora.flops.peaks import CARDS
from minisora.report.model import Inputs, Results, estimate
from minisora.report.units import Number, Quantity
from minisora.screen import plain

Status = Literal["published", "corrected", "measured", "derived", "sourced", "assumed"]
GPU = "hardware.gpu"


class Assumption(BaseModel):
    """One input.

    Args:
        value: the best guess; a word where there is a choice of words; None: filled from the GPU's table.
        low, high: the range that the intervals are drawn from; both absent for what is taken as certain.
        spread: how draws fill the range: evenly on a log scale (a range that is a factor) or a linear one.
        limits: outside of these the model means nothing; a value beyond is refused.
        choices: the words allowed.
        unit: as `units.parse_unit` reads it.
        source: where the value comes from.
        status: what kind of knowledge it is.
        about: what it is, for the page.
        short: the same for a row of a figure; assumptions with the same one change together there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: float | str | None
    low: float | None = None
    high: float | None = None
    spread: Literal["factor", "linear"] = "factor"
    limits: tuple[float, float] | None = None
    choices: tuple[str, ...] | None = None
    unit: str = ""
    source: str
    status: Status
    about: str
    short: str = Field(default="", exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _numbers(cls, fields: Any) -> Any:
        """YAML reads 20e9 as a word; here it is a number."""
        for key in ("value", "low", "high"):
            if isinstance(fields.get(key), str):
                fields[key] = as_number(fields[key])
        return fields

    @model_validator(mode="after")
    def _in_order(self) -> "Assumption":
        if self.choices is not None and self.value not in self.choices:
            raise ValueError(f"{self.value!r} is none of {', '.join(self.choices)}")
        if self.choices is None and isinstance(self.value, str):
            raise ValueError(f"{self.value!r} is not a number")
        if (self.low is None) != (self.high is None):
            raise ValueError("low and high go together")
        if isinstance(self.value, float):
            if not math.isfinite(self.value):
                raise ValueError(f"{self.value} is not a finite number")
            if self.low is not None and self.high is not None and not self.low <= self.value <= self.high:
                raise ValueError(f"{self.value:g} is outside its own range {self.low:g} to {self.high:g}")
            if self.limits and not self.limits[0] <= self.value <= self.limits[1]:
                raise ValueError(f"{self.value:g} is outside {self.limits[0]:g} to {self.limits[1]:g}")
        return self

    @property
    def is_certain(self) -> bool:
        """Whether there is nothing to draw."""
        return self.low is None or self.low == self.high

    @property
    def is_switch(self) -> bool:
        """Whether it is a no (0) or a yes (1): a factor cannot range from 0 to 1."""
        return self.spread == "factor" and self.limits == (0, 1) and not self.unit

    @property
    def brief(self) -> str:
        """What it is, in few words."""
        return self.short or self.about

    def at(self, position: Number) -> Number:
        """The value at a position between low (0) and high (1)."""
        assert self.low is not None
        assert self.high is not None
        if self.spread == "factor":
            return self.low * (self.high / self.low) ** position
        return self.low + (self.high - self.low) * position


@dataclass(frozen=True)
class Gpu:
    """An accelerator for rent: dense bfloat16 peak in FLOP/s, power in kW, price in $ an hour (low, best, high)."""

    name: str
    peak: float
    power: float
    price: tuple[float, float, float]
    source: str


@dataclass(frozen=True)
class Assumptions:
    """A preset: every assumption by name.

    Args:
        preset: its name.
        title: one line about it.
        entries: by name, in the order of the file.
    """

    preset: str
    title: str
    entries: dict[str, Assumption]

    @property
    def name(self) -> str:
        """The preset's name in a figure, or what stands for one too long to draw."""
        name = self.preset.replace("_", " ")
        return name if len(name) <= 18 else "of this report"

    def inputs(self, changed: dict[str, Number] | None = None) -> Inputs:
        """What the model reads: best values with their units, some replaced by other numbers or draws."""
        inputs: dict[str, Quantity[Any] | str] = {}
        for name, entry in self.entries.items():
            value = (changed or {}).get(name, entry.value)
            assert value is not None, name
            inputs[name] = value if isinstance(value, str) else Quantity(value, entry.unit)
        return inputs

    def change(self, name: str, **fields: Any) -> "Assumptions":
        """A copy in which one assumption has other fields.

        Raises:
            UserError: there is no such assumption, or it cannot have that value.
        """
        if name not in self.entries:
            raise UserError(f"no assumption '{name}'{nearest(name, self.entries)}; see configs/report")
        merged = {**dict(self.entries[name]), **fields}
        return replace(self, entries={**self.entries, name: _validate(name, merged)})

    @cached_property
    def results(self) -> Results:
        """Every result at the best values, evaluated once."""
        return estimate(self.inputs())

    @cached_property
    def best(self) -> dict[str, float]:
        """The same as plain numbers, in the unit of the result."""
        return {name: float(quantity.value) for name, quantity in self.results.items()}

    def set_by_user(self, items: Iterable[str]) -> "Assumptions":
        """A copy with `NAME=VALUE` items applied. A value set by hand has no range any more.

        Raises:
            UserError: an item is not of that form, its name is unknown, or its value is out of range.
        """
        changed, hand_set = self, set()
        for item in items:
            name, equals, text = (part.strip() for part in item.partition("="))
            if not equals or not text:
                raise UserError(f"'{item}' is not NAME=VALUE, as in --set sora.params=30e9")
            value = as_number(text)
            entry = changed.entries.get(name)
            if entry is not None and isinstance(value, str) and entry.choices is None:
                raise UserError(f"{name}={text} is not a number")
            changed = changed.change(
                name, value=text if entry and entry.choices else value, low=None, high=None,
                source="set by hand", status="assumed",
            )  # fmt: skip
            hand_set.add(name)
        return changed.with_gpu(keep=hand_set) if GPU in hand_set else changed

    def with_gpu(self, keep: Iterable[str] = ()) -> "Assumptions":
        """A copy whose peak, power and price are those of its GPU, except what `keep` names."""
        gpu = gpus()[str(self.entries[GPU].value)]
        low, best, high = gpu.price
        filled = {
            "hardware.peak": {"value": gpu.peak},
            "hardware.power": {"value": gpu.power},
            "hardware.price": {"value": best, "low": low, "high": high},
        }
        changed = self
        for name, fields in filled.items():
            if name not in keep:
                source = f"{gpu.name}: {gpu.source}"
                changed = changed.change(name, **fields, source=source, status="sourced")
        return changed


def as_number(text: str) -> float | str:
    """A number, if the text is one."""
    try:
        return float(text)
    except ValueError:
        return text


def presets() -> list[str]:
    """Names of the shipped presets."""
    folder = config_folder() / "report"
    return sorted(p.stem for p in folder.glob("*.yaml") if "assumptions" in _read(p))


def load_preset(name: str) -> Assumptions:
    """A shipped preset by name, or one from a file.

    Raises:
        UserError: there is none of that name, or its file is wrong; the message names the entry.
    """
    path = Path(name) if name.endswith(".yaml") else config_folder() / "report" / f"{name}.yaml"
    # Of the shipped files not all are presets.
    if not path.is_file() or (not name.endswith(".yaml") and "assumptions" not in _read(path)):
        known = presets()
        raise UserError(f"no preset '{name}'{nearest(name, known)}; there are: {', '.join(known)}")
    tree = _read(path)
    entries = tree.get("assumptions", {} if "base" in tree else None)
    if not isinstance(entries, dict) or not all(isinstance(fields, dict) for fields in entries.values()):
        raise UserError(f"{path} is not a preset: see configs/report/as_published.yaml")
    title = str(tree.get("title", path.stem))
    if "base" in tree:
        changed = load_preset(str(tree["base"]))
        for entry, fields in entries.items():
            # A new value leaves the range of the old one behind, unless the preset gives it one.
            fresh = {"low": None, "high": None} if "value" in fields else {}
            changed = changed.change(entry, **{**fresh, **fields})
        assumptions = replace(changed, preset=plain(path.stem), title=plain(title))
    else:
        checked = {entry: _validate(entry, fields) for entry, fields in entries.items()}
        assumptions = Assumptions(path.stem, title, checked)
    try:
        return assumptions.with_gpu()
    except KeyError as error:
        raise UserError(
            f"{path} has no assumption {error}: give it 'base: measured', or all of them"
        ) from error


@cache
def shipped(name: str) -> Assumptions:
    """A shipped preset by name, read and evaluated once a process."""
    return load_preset(name)


def gpus() -> dict[str, Gpu]:
    """The GPUs that the estimate knows, by name: peaks from `flops.peaks`, power and rent from here."""
    peaks = {card.name: card.tflops for card in CARDS}
    tree = _read(config_folder() / "report" / "gpus.yaml")["gpus"]
    return {
        name: Gpu(
            name, peaks[name]["bfloat16"] * 1e12, row["kilowatts"], tuple(row["dollars"]), row["source"]
        )
        for name, row in tree.items()
    }


def _validate(name: str, fields: dict[str, Any]) -> Assumption:
    try:
        return Assumption.model_validate(dict(fields))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{name}: {f'{where}: ' if where else ''}{message}") from error


@cache
def _parse(text: str) -> Any:
    """YAML by its text: a preset is read several times in a report, and parsing is most of the work."""
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = _parse(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"cannot read {path}: {str(error).splitlines()[0]}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{path} is not a preset: see configs/report/as_published.yaml")
    return tree
