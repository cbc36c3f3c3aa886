"""Verdicts of many clips put together: shares with binomial intervals, seen and held-out triples apart."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from minisora.data.shapes_world.grammar import Light, ShapesPrompt
from minisora.errors import UserError
from minisora.evaluate.judge.verdict import ATTRIBUTES, Verdict

_Z = 1.959964  # 95 % of a normal distribution lie within


@dataclass(frozen=True)
class Rate:
    """So many right of so many."""

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

    `all_right` means colour, shape and motion. `permanence` counts only prompts with a wall, and is right
    where the same object came out in the right place. Size and light count as medium and night when unsaid;
    `day` and `night` are the light of the prompts of each, since most prompts say nothing and mean night.
    """

    color: Rate
    shape: Rate
    motion: Rate
    all_right: Rate
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
        score = cls._flat(list(zip(verdicts, prompts, strict=True)))
        for part in (False, True):
            pairs = [pair for pair in zip(verdicts, prompts, strict=True) if pair[1].held_out is part]
            if pairs:
                setattr(score, "held_out" if part else "seen", cls._flat(pairs))
        return score

    @classmethod
    def _flat(cls, pairs: list[tuple[Verdict, ShapesPrompt]]) -> "Score":
        matches = [verdict.matches(prompt) for verdict, prompt in pairs]
        rates: dict[str, Any] = {
            name: Rate(sum(match[name] for match in matches), len(pairs)) for name in ATTRIBUTES
        }
        triple = sum(match["color"] and match["shape"] and match["motion"] for match in matches)
        walls = [verdict.permanence is True for verdict, prompt in pairs if prompt.wall]
        for light in get_args(Light):
            lit = [verdict.light == light for verdict, prompt in pairs if prompt.light == light]
            rates[light] = Rate(sum(lit), len(lit))
        return cls(
            **rates,
            all_right=Rate(triple, len(pairs)),
            permanence=Rate(sum(walls), len(walls)),
            quality=_quality([verdict for verdict, _ in pairs]),
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        rates = {name: value.to_dict() for name, value in vars(self).items() if isinstance(value, Rate)}
        parts = {"seen": self.seen, "held_out": self.held_out}
        nested = {name: part.to_dict() for name, part in parts.items() if part is not None}
        return {**rates, "quality": self.quality, **nested}


def _quality(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Medians over the clips in which it can be measured; means of shares that are zero or one in most."""
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
    means = {name: float(np.mean([getattr(v, name) for v in verdicts])) for name in ("leftovers", "presence")}
    return medians | means
