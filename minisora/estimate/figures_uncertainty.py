"""Figures of uncertainty: what moves a result, and the published answers against our intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from minisora.estimate.assumptions import Assumptions
from minisora.estimate.bridge import best_values, short_name, value_words
from minisora.estimate.figure_style import (
    CORRECTED,
    INK,
    MARKERS,
    ORANGE,
    OURS,
    PUBLISHED,
    SKY,
    SOFT,
    NamedFigure,
    canvas,
    log_axis,
    named,
    note,
    panel,
    row_label,
    rows_axis,
    styled,
)
from minisora.estimate.figure_words import (
    RESULT_WORDS,
    factor,
    number_words,
    percent,
    preset_title,
    tick_words,
)
from minisora.estimate.uncertainty import Influence, Interval, MonteCarlo

Published = Mapping[str, float | None]

# Sensitivity.


LEAST_SWING = 1.05  # a factor; what moves a result less is left out


@styled
def tornado(assumptions: Assumptions, influences: Sequence[Influence], result: str) -> NamedFigure:
    """What each uncertain assumption alone does to a result, the strongest on top.

    Args:
        assumptions: the preset.
        influences: of that result, from `uncertainty.influences`.
        result: its name.
    """
    shown = [one for one in influences if one.swing > LEAST_SWING][:12]
    best = best_values(assumptions)[result]
    ends = [value for one in shown for value in (one.at_low, one.at_high)]
    low, high = min([*ends, best]), max([*ends, best])
    height = 0.3 * len(shown)
    figure = canvas(0.4 + height + 0.6)
    axes = panel(figure, left=3.2, right=0.95, top=0.4, height=height)
    rows_axis(axes, len(shown))
    axes.grid(axis="y", visible=False)
    pad = max((high / low) ** 0.14, 1.05)
    log_axis(axes, "x", low / pad, high * pad, label=tick_words)
    axes.set_xlabel(RESULT_WORDS.get(result, result))
    for row, one in enumerate(shown):
        entry = assumptions.entries[one.assumption]
        for end, value, color in (("low", one.at_low, ORANGE), ("high", one.at_high, SKY)):
            bottom, top = sorted((value, best))
            axes.barh(row, top - bottom, 0.55, left=bottom, color=color, gid=f"{end}-{row}")
            if max(value / best, best / value) > 1.01:
                right = value > best
                text = value_words(entry.low if end == "low" else entry.high)
                note(axes, text, (value, row), (4 if right else -4, 0), ha="left" if right else "right")
        row_label(axes, row, short_name(one.assumption, entry))
        axes.annotate(
            f"{percent(one.variance_share)}", (1, row), xycoords=axes.get_yaxis_transform(), xytext=(48, 0),
            textcoords="offset points", ha="right", va="center", fontsize=9,
        )  # fmt: skip
    axes.axvline(best, color=INK, lw=1.2, gid="best")
    note(
        axes,
        f"best guess {number_words(best)}",
        (best, -0.5),
        (0, 5),
        ha="center",
        va="bottom",
        fontweight="bold",
    )
    axes.annotate(
        "of variance", (1, 1), xycoords="axes fraction", xytext=(60, 5), textcoords="offset points", ha="right",
        va="bottom", fontsize=9, color=SOFT,
    )  # fmt: skip
    first, words = shown[0], RESULT_WORDS.get(result, result)
    caption = (
        f"The strongest is {short_name(first.assumption)}: over its range the {words} go from "
        f"{number_words(min(first.at_low, first.at_high))} to {number_words(max(first.at_low, first.at_high))} "
        f"({factor(first.swing)}). A bar's ends carry the values that do it."
    )
    return named("tornado", f"What moves the {words}", caption, figure)


# The published answer against an interval.


COMPARED = {
    "sora_training_compute": "training compute, FLOP",
    "sora_minutes_per_gpu_hour": "minutes per GPU-hour",
    "sora_break_even": "break-even, minutes",
    "peak_demand_gpus": "GPUs at peak",
}
"""Results whose intervals are set against published values."""
_CLAIMS = {"sora_minutes_per_gpu_hour": "sora_minutes_per_h100_hour", "peak_demand_gpus": "peak_demand_h100"}


@dataclass(frozen=True)
class Compared:
    """A result beside what was published, all in its unit.

    Args:
        low, high: ends of what was published; the same where it is one number.
        corrected: with the arithmetic mended.
        best: of the preset.
        interval: its 5, 50 and 95 %; None where it does not vary.
    """

    low: float
    high: float
    corrected: float
    best: float
    interval: Interval | None

    @property
    def centre(self) -> float:
        """The middle of what was published, on a log scale."""
        return math.sqrt(self.low * self.high)

    @property
    def overlaps(self) -> bool:
        """Whether the interval meets the published range."""
        return self.interval is not None and self.low <= self.interval[2] and self.interval[0] <= self.high


def compare(
    published: Published,
    as_published: Assumptions,
    corrected: Assumptions,
    other: Assumptions,
    run: MonteCarlo,
) -> dict[str, Compared]:
    """The results of `COMPARED`; a claim that is missing is taken from the published preset."""
    model, mended, best = (best_values(preset) for preset in (as_published, corrected, other))
    rows = {}
    for result in COMPARED:
        claim, ends = _CLAIMS.get(result, result), ("", "")
        if f"{result}_low" in model:
            ends = ("_low", "_high")
        low, high = (published.get(claim + end) or model[result + end] for end in ends)
        rows[result] = Compared(low, high, mended[result], best[result], run.intervals[result])
    return rows


@styled
def against_interval(other: Assumptions, rows: Mapping[str, Compared]) -> NamedFigure:
    """Main results as multiples of what was published: its range, the corrected value, our 5 to 95 %.

    Args:
        other: the preset.
        rows: from `compare`.
    """
    seen = [
        value / row.centre
        for row in rows.values()
        for value in (row.corrected, row.best, *(row.interval or ()))
    ]
    height = 0.62 * len(rows)
    figure = canvas(0.45 + height + 0.6)
    axes = panel(figure, left=1.85, right=1.8, top=0.45, height=height)
    rows_axis(axes, len(rows))
    axes.grid(axis="y", visible=False)
    log_axis(axes, "x", min(*seen, 0.5) / 1.4, max(*seen, 2) * 1.4, label=lambda v: f"×{v:g}")
    axes.set_xlabel("times the published value")
    axes.axvline(1, color=PUBLISHED, lw=1)
    for place, (name, row) in enumerate(rows.items()):
        row_label(axes, place, COMPARED[name])
        _published_line(axes, place, row)
        _mark(axes, place, row.corrected / row.centre, CORRECTED, number_words(row.corrected))
        _our_line(axes, place, row)
    for x, color, words in (
        (0.0, PUBLISHED, "published"),
        (0.27, CORRECTED, "corrected"),
        (0.54, OURS, f"{preset_title(other)}: best, 5–50–95 %"),
    ):
        axes.plot(x, 1.05, MARKERS[color], color=color, ms=6, transform=axes.transAxes, clip_on=False)
        axes.text(x + 0.025, 1.05, words, transform=axes.transAxes, va="center", color=color, fontsize=9)
    return named(
        "against_interval",
        "The published answers against our intervals",
        _interval_caption(other, rows),
        figure,
    )


_OFFSET = {PUBLISHED: -0.22, CORRECTED: 0.0, OURS: 0.22}  # of a row's three lines


def _mark(axes: Axes, place: int, value: float, color: str, words: str) -> None:
    y = place + _OFFSET[color]
    axes.plot(value, y, MARKERS[color], color=color, ms=6, gid=f"mark-{color[1:]}-{place}")
    axes.annotate(
        words, (1, y), xycoords=axes.get_yaxis_transform(), xytext=(8, 0), textcoords="offset points",
        va="center", color=color, fontsize=9,
    )  # fmt: skip


def _published_line(axes: Axes, place: int, row: Compared) -> None:
    words = number_words(row.low)
    if row.high > row.low:
        words += f" to {number_words(row.high)}"
        ends = np.array([row.low, row.high]) / row.centre
        axes.plot(ends, [place + _OFFSET[PUBLISHED]] * 2, color=PUBLISHED, lw=4, solid_capstyle="butt")
    _mark(axes, place, 1.0, PUBLISHED, words)


def _our_line(axes: Axes, place: int, row: Compared) -> None:
    y, words = place + _OFFSET[OURS], number_words(row.best)
    if row.interval:
        low, middle, high = (value / row.centre for value in row.interval)
        style: dict[str, Any] = {"color": OURS, "solid_capstyle": "butt"}
        axes.plot([low, high], [y, y], lw=4, alpha=0.45, gid=f"interval-{place}", **style)
        axes.plot([middle, middle], [y - 0.12, y + 0.12], lw=2, gid=f"median-{place}", **style)
        words = f"{number_words(row.interval[0])} to {number_words(row.interval[2])}"
    _mark(axes, place, row.best / row.centre, OURS, words)


def _interval_caption(other: Assumptions, rows: Mapping[str, Compared]) -> str:
    known = [row for row in rows.values() if row.interval]
    caption = (
        f"The 5 to 95 % of the preset {preset_title(other)} meet {sum(row.overlaps for row in known)} of "
        f"{len(known)} published answers"
    )
    speed = rows["sora_minutes_per_gpu_hour"]
    if speed.interval:
        caption += (
            f"; minutes per GPU-hour were published as {number_words(speed.low)} and come out between "
            f"{number_words(speed.interval[0])} and {number_words(speed.interval[2])}"
        )
    return f"{caption}."
