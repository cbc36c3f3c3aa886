"""Verdicts of many clips put together: shares with binomial intervals, seen and held-out triples apart.

In the tables each share has its interval, and the judge's own accuracy stands beside it: "renders" are the same
prompts as the world draws them, "VAE copies" the renders after the model's own VAE. A share of a model is worth
no more than the judge's on its VAE copies.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from rich import box

from minisora.data.shapes_world.grammar import Light, ShapesPrompt
from minisora.errors import UserError
from minisora.evaluate.judge.verdict import ATTRIBUTES, Verdict
from minisora.evaluate.prompts import Kind
from minisora.screen import Table

# 95 % of a normal distribution lie within.
_Z = 1.959964
_RATES = {
    "color": "colour",
    "shape": "shape",
    "motion": "motion",
    "all_right": "all three",
    "whole": "whole",
    "size": "size",
    "day": "day",
    "night": "night",
    "wall": "wall or none",
    "permanence": "permanence",
}
_KINDS: dict[Kind, str] = {"plain": "plain prompts", "wall": "with a wall", "light": "light named"}
# Label and number of decimals.
_QUALITY = {
    "path_error": ("off a straight line, pixels", 2),
    "speed_error": ("off constant speed, share of the path", 3),
    "reappearance_error": ("off the right place behind the wall, pixels", 2),
    "size_variation": ("change of size, share of the area", 3),
    "flicker": ("flicker of the background, of black to white", 4),
    "overlap": ("overlap with the ideal shape (mean)", 3),
    "second": ("frames with a second object, share (mean)", 3),
    "leftovers": ("frames with a second blob far off, share (mean)", 3),
    "presence": ("frames with the object, share (mean)", 3),
}


@dataclass(frozen=True)
class Rate:
    """A count of clips judged right, out of a total."""

    right: int
    total: int

    @property
    def share(self) -> float:
        """In [0, 1]; NaN if there was nothing to count."""
        return self.right / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the true share (Wilson 1927): right near 0 and 1, and for few clips."""
        n = self.total
        if n == 0:
            return 0.0, 1.0
        middle = (self.share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        half = _Z / (1 + _Z**2 / n) * math.sqrt(self.share * (1 - self.share) / n + _Z**2 / (4 * n * n))
        return max(0.0, middle - half), min(1.0, middle + half)

    def __str__(self) -> str:
        if not self.total:
            return "none to judge"
        low, high = self.interval
        return f"{self.share:.1%} ({self.right}/{self.total}, 95 % interval {low:.1%} to {high:.1%})"

    def to_dict(self) -> dict[str, Any]:
        """Counts, share (None if nothing was counted) and interval, for JSON."""
        return {
            "right": self.right,
            "total": self.total,
            "share": self.share if self.total else None,
            "interval": list(self.interval),
        }


@dataclass
class Score:
    """How well clips follow their prompts.

    `all_right` means colour, shape and motion; `whole` also that it is one object with the outline of its shape
    (`Verdict.whole`). `permanence` counts only prompts with a wall, and is right
    where the same object came out in the right place. Size and light count as medium and night when unsaid;
    `day` and `night` are the light of the prompts of each, since most prompts say nothing and mean night.
    """

    color: Rate
    shape: Rate
    motion: Rate
    all_right: Rate
    whole: Rate
    size: Rate
    light: Rate
    day: Rate
    night: Rate
    wall: Rate
    permanence: Rate
    quality: dict[str, float]  # medians and means of what has no right or wrong; see `_quality`
    seen: "Score | None" = None  # prompts whose triple was in training
    held_out: "Score | None" = None  # prompts whose triple was not

    @classmethod
    def of(cls, verdicts: Sequence[Verdict], prompts: Sequence[ShapesPrompt]) -> "Score":
        """The score of clips and their prompts, in the same order.

        Raises:
            UserError: there are not as many verdicts as prompts, or none.
        """
        if len(verdicts) != len(prompts) or not prompts:
            raise UserError(
                f"{len(verdicts)} verdicts and {len(prompts)} prompts: one of each per clip is needed"
            )
        pairs = list(zip(verdicts, prompts, strict=True))
        score = cls._flat(pairs)
        if seen := [pair for pair in pairs if not pair[1].held_out]:
            score.seen = cls._flat(seen)
        if held_out := [pair for pair in pairs if pair[1].held_out]:
            score.held_out = cls._flat(held_out)
        return score

    @classmethod
    def _flat(cls, pairs: list[tuple[Verdict, ShapesPrompt]]) -> "Score":
        matches = [verdict.matches(prompt) for verdict, prompt in pairs]
        rates: dict[str, Any] = {
            name: Rate(sum(match[name] for match in matches), len(pairs)) for name in ATTRIBUTES
        }
        triple = sum(verdict.all_right(prompt) for verdict, prompt in pairs)
        whole = sum(verdict.whole(prompt) for verdict, prompt in pairs)
        walls = [verdict.permanence is True for verdict, prompt in pairs if prompt.wall]
        for light in get_args(Light):
            lit = [verdict.light == light for verdict, prompt in pairs if prompt.light == light]
            rates[light] = Rate(sum(lit), len(lit))
        return cls(
            **rates,
            all_right=Rate(triple, len(pairs)),
            whole=Rate(whole, len(pairs)),
            permanence=Rate(sum(walls), len(walls)),
            quality=_quality([verdict for verdict, _ in pairs]),
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON, by attribute; without the parts that hold no clip."""
        rates = {name: value.to_dict() for name, value in vars(self).items() if isinstance(value, Rate)}
        parts = {"seen": self.seen, "held_out": self.held_out}
        nested = {name: part.to_dict() for name, part in parts.items() if part is not None}
        return {**rates, "quality": self.quality, **nested}


def _quality(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Medians over the clips in which it can be measured; means of overlaps, and of shares that are 0 or 1 in most."""
    known = {
        name: [value for verdict in verdicts if (value := getattr(verdict, name)) is not None]
        for name in (
            "path_error",
            "path_error_share",
            "speed_error",
            "reappearance_error",
            "size_variation",
            "fit_error",
            "flicker",
        )
    }
    medians = {name: float(np.median(values)) for name, values in known.items() if values}
    shares = ("second", "leftovers", "presence")
    means = {name: float(np.mean([getattr(v, name) for v in verdicts])) for name in shares}
    if overlaps := [v.overlap for v in verdicts if v.overlap is not None]:
        means["overlap"] = float(np.mean(overlaps))
    return medians | means


def score_table(
    score: Score, rendered: Score, reconstructed: Score | None, kinds: Mapping[Kind, Score]
) -> Table:
    """Share right of each attribute, for all clips and for seen and held-out triples; at the end by kind of prompt."""
    table = Table(
        title="Judged right, 95 % interval below",
        title_justify="left",
        padding=(0, 1, 0, 0),
        box=box.SIMPLE_HEAD,
    )
    table.add_column("")
    for name in ("all", "seen\ntriples", "held-out\ntriples"):
        table.add_column(name, justify="right")
    table.add_column("judge on\nrenders", justify="right")
    table.add_column("judge on\nVAE copies", justify="right")
    for name, label in _RATES.items():
        parts = (score, score.seen, score.held_out)
        checks = (rendered, reconstructed)
        if not getattr(score, name).total:
            continue
        table.add_row(
            label,
            *[_cell(getattr(part, name)) if part else "" for part in parts],
            *[_short(getattr(part, name)) if part else "" for part in checks],
        )
    if len(kinds) > 1:
        table.add_section()
        for kind, part in kinds.items():
            thirds = (part.all_right, *[p.all_right if p else None for p in (part.seen, part.held_out)])
            table.add_row(f"all three,\n{_KINDS[kind]}", *[_cell(rate) if rate else "" for rate in thirds])
            wholes = (part.whole, *[p.whole if p else None for p in (part.seen, part.held_out)])
            table.add_row(f"whole,\n{_KINDS[kind]}", *[_cell(rate) if rate else "" for rate in wholes])
    return table


def quality_table(score: Score, rendered: Score, reconstructed: Score | None) -> Table:
    """Medians of what has no right or wrong, beside what the judge measures where the truth is perfect."""
    table = Table(title="Measured (medians)", title_justify="left", padding=(0, 1, 0, 0), box=box.SIMPLE_HEAD)
    table.add_column("")
    for name in ("clips", "renders", "VAE copies"):
        table.add_column(name, justify="right")
    for name, (label, decimals) in _QUALITY.items():
        if name not in score.quality:
            continue
        values = [part.quality.get(name) if part else None for part in (score, rendered, reconstructed)]
        table.add_row(label, *["" if value is None else f"{value:.{decimals}f}" for value in values])
    return table


def _cell(rate: Rate) -> str:
    if not rate.total:
        return "-"
    low, high = rate.interval
    return f"{rate.right}/{rate.total} {rate.share:.1%}\n{100 * low:.0f} to {100 * high:.0f} %"


def _short(rate: Rate) -> str:
    return f"{rate.share:.1%}" if rate.total else "-"
