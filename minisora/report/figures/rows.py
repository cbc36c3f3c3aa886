"""Figures of rows over a logarithmic axis: steps between presets, sensitivity, intervals, outputs, the back-test.

Rows rather than a scatter: two dozen points along a diagonal cannot all carry their names.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from minisora.report.assumptions import Assumptions
from minisora.report.claims import claims_of, printed_values
from minisora.report.figures.style import (
    CORRECTED,
    INK,
    MARKERS,
    ORANGE,
    OURS,
    PUBLISHED,
    SKY,
    SOFT,
    Drawn,
    RowLabel,
    beside,
    color_of,
    note,
    row_figure,
)
from minisora.report.sensitivity import Influence, Interval, MonteCarlo, Step, bridge
from minisora.report.units import SECONDS_PER_HOUR
from minisora.report.words import big, factor, percent, result_words, setting, short

# From published to corrected to ours.


def waterfall(title: str, presets: Sequence[Assumptions], result: str) -> Drawn:
    """A result from the published preset by way of others, each changed assumption a bar.

    Args:
        title: of the figure, without the last preset.
        presets: from first to last.
        result: its name.
    """
    totals = [(preset, preset.best[result]) for preset in presets]
    rows: list[tuple[Assumptions, float] | Step] = [totals[0]]
    for (before, _), total in pairwise(totals):
        rows += [*bridge(before, total[0], result), total]
    steps = [row for row in rows if isinstance(row, Step)]
    levels = [row.after if isinstance(row, Step) else row[1] for row in rows]
    labels = [
        RowLabel(row.label)
        if isinstance(row, Step)
        else RowLabel(row[0].name, color_of(row[0].preset), bold=True)
        for row in rows
    ]
    pad = (max(levels) / min(levels)) ** 0.06
    span = (min(levels) / pad, max(levels) * pad)
    figure, axes = row_figure(labels, span, result_words()[result].axis, height=0.25)
    for place, (row, level) in enumerate(zip(rows, levels, strict=True)):
        if row is not rows[-1]:
            axes.plot([level, level], [place - 0.3, place + 1.3], color=SOFT, lw=0.8)
        if isinstance(row, Step):
            left, right = sorted((row.before, row.after))
            color = SKY if row.factor >= 1 else ORANGE
            axes.barh(place, right - left, 0.6, left=left, color=color, gid=f"step-{place}")
            note(axes, factor(row.factor), (right, place), (5, 0))
        else:
            color = color_of(row[0].preset)
            axes.plot(level, place, MARKERS[color], color=color, ms=8, gid=f"total-{place}")
            note(axes, short(level), (level, place), (8, 0), color=color, fontweight="bold")
    (first, start), (last, end) = totals[0], totals[-1]
    strongest = max(steps, key=lambda step: abs(np.log(step.factor)))
    caption = (
        f"From {short(start)} ({first.name}) to {short(end)} ({last.name}), {factor(end / start)} in all; "
        f"the largest step is {strongest.label} ({factor(strongest.factor)})."
    )
    return Drawn(f"{title}, from the published value to that of the preset {last.name}", caption, figure)


# Sensitivity.

# A factor; what moves a result less is left out.
LEAST_SWING = 1.05


def tornado(assumptions: Assumptions, influences: Sequence[Influence], result: str) -> Drawn:
    """What each uncertain assumption alone does to a result, the strongest on top.

    Args:
        assumptions: the preset.
        influences: of that result, from `sensitivity.influences`.
        result: its name.
    """
    strongest = [one for one in influences if one.swing > LEAST_SWING][:12]
    best, words = assumptions.best[result], result_words()[result].axis
    ends = [best, *(value for one in strongest for value in (one.at_low, one.at_high))]
    pad = max((max(ends) / min(ends)) ** 0.14, 1.05)
    entries = [assumptions.entries[one.assumption] for one in strongest]
    labels = [RowLabel(entry.brief) for entry in entries]
    figure, axes = row_figure(labels, (min(ends) / pad, max(ends) * pad), words, height=0.3)
    for row, (one, entry) in enumerate(zip(strongest, entries, strict=True)):
        for end, value, at, color in (
            ("low", one.at_low, entry.low, ORANGE),
            ("high", one.at_high, entry.high, SKY),
        ):
            left, right = sorted((value, best))
            axes.barh(row, right - left, 0.55, left=left, color=color, gid=f"{end}-{row}")
            if right / left > 1.01:
                side = ((4, 0), "left") if value > best else ((-4, 0), "right")
                note(axes, setting(at), (value, row), side[0], ha=side[1])
        beside(axes, row, percent(one.variance_share), column=48)
    axes.axvline(best, color=INK, lw=1.2, gid="best")
    note(axes, f"best guess {short(best)}", (best, -0.5), (0, 5), ha="center", va="bottom", fontweight="bold")
    beside(axes, -0.66, "of variance", column=60, va="bottom", color=SOFT)
    first, swing = entries[0], sorted((strongest[0].at_low, strongest[0].at_high))
    caption = (
        f"The strongest is {first.brief}: over its range the {words} go from {short(swing[0])} to {short(swing[1])} "
        f"({factor(strongest[0].swing)}). A bar's ends carry the values that do it."
    )
    return Drawn(f"What moves the {words}", caption, figure)


# The published answer against an interval.

COMPARED = ("sora_training_compute", "sora_minutes_per_gpu_hour", "sora_break_even", "peak_demand_gpus")


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


def compare(corrected: Assumptions, other: Assumptions, run: MonteCarlo) -> dict[str, Compared]:
    """The results of `COMPARED`."""
    printed, mended, best = printed_values(), corrected.best, other.best
    rows = {}
    for result in COMPARED:
        ends = [printed[claim] for claim in claims_of(result)]
        rows[result] = Compared(ends[0], ends[-1], mended[result], best[result], run.intervals[result])
    return rows


# Of a row's three lines.
_OFFSET = {PUBLISHED: -0.22, CORRECTED: 0.0, OURS: 0.22}


def against_interval(corrected: Assumptions, other: Assumptions, run: MonteCarlo) -> Drawn:
    """Main results as multiples of what was published: its range, the corrected value, our 5 to 95 %."""
    rows = compare(corrected, other, run)
    seen = [v / row.centre for row in rows.values() for v in (row.corrected, row.best, *(row.interval or ()))]
    figure, axes = row_figure(
        [RowLabel(result_words()[name].axis) for name in rows],
        (min(*seen, 0.5) / 1.4, max(*seen, 2) * 1.4),
        "times the published value",
        height=0.62,
        ticks=lambda value: f"×{value:g}",
        key=((PUBLISHED, "published", True), (CORRECTED, "corrected", True),
             (OURS, f"{other.name}: best, 5–50–95 %", True)),
    )  # fmt: skip
    axes.axvline(1, color=PUBLISHED, lw=1)
    for place, row in enumerate(rows.values()):
        published = short(row.low) + (f" to {short(row.high)}" if row.high > row.low else "")
        _line(axes, place, (row.low / row.centre, row.high / row.centre), PUBLISHED, alpha=1.0)
        _mark(axes, place, 1.0, PUBLISHED, published)
        _mark(axes, place, row.corrected / row.centre, CORRECTED, short(row.corrected))
        ours = short(row.best)
        if row.interval:
            low, middle, high = (value / row.centre for value in row.interval)
            _line(axes, place, (low, high), OURS, alpha=0.45, gid=f"interval-{place}")
            y = place + _OFFSET[OURS]
            axes.plot([middle, middle], [y - 0.12, y + 0.12], color=OURS, lw=2, gid=f"median-{place}")
            ours = f"{short(row.interval[0])} to {short(row.interval[2])}"
        _mark(axes, place, row.best / row.centre, OURS, ours)
    return Drawn("The published answers against our intervals", _interval_caption(other, rows), figure)


def _mark(axes: Axes, place: int, value: float, color: str, words: str) -> None:
    y = place + _OFFSET[color]
    axes.plot(value, y, MARKERS[color], color=color, ms=6, gid=f"mark-{color[1:]}-{place}")
    beside(axes, y, words, color=color)


def _line(axes: Axes, place: int, ends: tuple[float, float], color: str, **style: Any) -> None:
    axes.plot(ends, [place + _OFFSET[color]] * 2, color=color, lw=4, solid_capstyle="butt", **style)


def _interval_caption(other: Assumptions, rows: Mapping[str, Compared]) -> str:
    known = [row for row in rows.values() if row.interval]
    caption = (
        f"The 5 to 95 % of the preset {other.name} meet {sum(row.overlaps for row in known)} of {len(known)} "
        "published answers"
    )
    speed = rows["sora_minutes_per_gpu_hour"]
    if speed.interval:
        caption += (
            f"; minutes per GPU-hour were published as {short(speed.low)} and come out between "
            f"{short(speed.interval[0])} and {short(speed.interval[2])}"
        )
    return f"{caption}."


# The report's own comparison of models.

OUTPUTS = {
    "Sora, 1 minute of video": "sora_compute_per_minute",
    "GPT-4, 1,000 tokens": "gpt4_compute_per_output",
    "Llama 2 70B, 1,000 tokens": "llama2_70b_compute_per_output",
    "DiT-XL/2, one 512×512 image": "dit_compute_per_image",
}


def compute_per_output(presets: Sequence[Assumptions]) -> Drawn:
    """Inference compute per output across models, one mark a preset.

    Args:
        presets: as published, corrected and perhaps one more.
    """
    height = 0.2 * len(presets) + 0.22
    values = [preset.best for preset in presets]
    numbers = [[one[result] for one in values] for result in OUTPUTS.values()]
    low = 10 ** np.floor(np.log10(min(map(min, numbers))) - 0.3)
    span = (low, max(map(max, numbers)) * 1.5)
    words = "FLOP per output (as published: MACs and FLOPs mixed)"
    figure, axes = row_figure([RowLabel(name) for name in OUTPUTS], span, words, height=height)
    for row, ours in enumerate(numbers):
        if row:
            axes.axhline(row - 0.5, color="#c8c8c8", lw=0.8)
        for place, (preset, value) in enumerate(zip(presets, ours, strict=True)):
            y = row + (place - (len(presets) - 1) / 2) * 0.2 / height
            color = color_of(preset.preset)
            axes.plot([low, value], [y, y], color=color, lw=1, alpha=0.45)
            axes.plot(value, y, MARKERS[color], color=color, ms=6, gid=f"{preset.preset}-{row}")
            note(
                axes,
                f"{big(value)}  {preset.name}" if row == 0 else big(value),
                (value, y),
                (7, 0),
                color=color,
            )
    sora, dit = (
        [factor(one[name])[1:] for one in values[:2]] for name in ("sora_over_gpt4", "dit_over_llama2_70b")
    )
    caption = (
        f"As published, a minute of Sora costs {sora[0]} answers of GPT-4 and an image of DiT {dit[0]} of Llama 2 70B; "
        f"with every model in FLOPs it is {sora[1]} and {dit[1]}."
    )
    return Drawn("Inference compute per output, across models", caption, figure)


# The back-test: predicted over disclosed, for our method and the published one.

# A factor either way that the caption counts.
CLOSE = 1.5
_HEADINGS = {"seconds": "seconds a clip", "training": "training", "step": "one step of training"}
_DISCLOSED = {"seconds": "disclosed", "training": "by GPU-hours", "step": "GPU-seconds"}
_FACTORS = {"seconds": "seconds_factor", "training": "training_factor", "step": "training_factor"}


def compared_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The rows with a prediction beside a disclosure, as in report.json: of seconds, of training, of a step of it."""
    groups: dict[str, list[Mapping[str, Any]]] = {kind: [] for kind in _HEADINGS}
    for row in rows:
        if row["seconds_factor"]:
            groups["seconds"].append(row)
        if row["training_factor"]:
            groups["step" if row["case"].endswith(" step") else "training"].append(row)
    return {kind: group for kind, group in groups.items() if group}


def backtest_rows(rows: Sequence[Mapping[str, Any]]) -> Drawn:
    """Predicted over disclosed: a line a model, a pair of marks a row.

    Args:
        rows: as in report.json; at least one with a factor.
    """
    groups = compared_rows(rows)
    labels, seen = [], []
    for kind, group in groups.items():
        labels += [RowLabel(_HEADINGS[kind], bold=True)]
        labels += [RowLabel(_case(kind, own)) for own in _by_model(group)]
        key = _FACTORS[kind]
        seen += [row[name] for row in group for name in (key, f"naive_{key}") if row[name]]
    figure, axes = row_figure(
        labels, (min(*seen, 0.5) / 1.4, max(*seen, 2) * 1.4), "predicted over disclosed", height=0.205,
        ticks=lambda value: f"×{value:g}",
        key=((OURS, "this method", True), (OURS, "a source not primary", False),
             (PUBLISHED, "the published method", True)),
    )  # fmt: skip
    axes.axvline(1, color=SOFT, lw=1)
    line = 0
    for kind, group in groups.items():
        beside(axes, line, _DISCLOSED[kind], column=65, color=SOFT)
        for own in _by_model(group):
            line += 1
            axes.axhline(line, color="#ececec", lw=0.6, zorder=0)
            _pairs(axes, line, _FACTORS[kind], own)
            beside(axes, line, _disclosed(kind, own), column=65, color=SOFT)
        line += 1
    return Drawn("The same method on models that disclosed their cost", _backtest_caption(groups), figure)


def _by_model(group: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    models: dict[str, list[Mapping[str, Any]]] = {}
    for row in group:
        models.setdefault(row["model"], []).append(row)
    return list(models.values())


def _pairs(axes: Axes, line: int, key: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Both methods' factors of a model's rows, on one line."""
    for place, row in enumerate(rows):
        for name, column, color, size in (
            ("naive", f"naive_{key}", PUBLISHED, 4.5),
            ("ours", key, OURS, 6.0),
        ):
            if row[column]:
                fill = color if row["grade"] == "primary" else "white"
                gid = f"{name}-{line}-{place}"
                axes.plot(row[column], line, MARKERS[color], color=color, ms=size, mfc=fill, gid=gid)


def _case(kind: str, rows: Sequence[Mapping[str, Any]]) -> str:
    model = str(rows[0]["model"])
    if kind == "training":
        return model
    if len(rows) > 1:
        return f"{model}, {len(rows)} {'timings' if kind == 'seconds' else 'steps'}"
    case = rows[0]["case"].removesuffix(", a training step")
    return f"{model}, {case.replace('x', '×').replace(' SXM', '').replace(' 80GB', '')}"


def _disclosed(kind: str, rows: Sequence[Mapping[str, Any]]) -> str:
    if kind == "training":
        return ("≈" if rows[0]["training_mfu_is_assumed"] else "") + big(rows[0]["training_flops_disclosed"])
    if kind == "step":
        seconds = [row["training_gpu_hours_disclosed"] * float(SECONDS_PER_HOUR.value) for row in rows]
    else:
        seconds = [row["seconds_disclosed"] for row in rows]
    ends = dict.fromkeys(f"{end:,.0f}" for end in (min(seconds), max(seconds)))
    return "–".join(ends) + (" s" if kind == "seconds" else "")


def _backtest_caption(groups: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    parts = []
    for kind, group in groups.items():
        key = _FACTORS[kind]
        ours = sorted(row[key] for row in group)
        if kind == "seconds":
            close = sum(1 / CLOSE <= value <= CLOSE for value in ours)
            text = f"{close} of {len(group)} latencies are predicted within {factor(CLOSE)} either way"
        else:
            what, of = ("training", "runs") if kind == "training" else ("one step", "steps")
            text = (
                f"{what} comes out at {factor(ours[0])} to {factor(ours[-1])} of what the GPU-hours of {len(group)} "
                f"{of} come to"
            )
            if any(row["training_mfu_is_assumed"] for row in group):
                text += f" ({'≈: ' if kind == 'training' else ''}at an assumed utilisation)"
        naive = [row[f"naive_{key}"] for row in group if row[f"naive_{key}"]]
        parts.append(f"{text}, the published method at a median {factor(median(naive))}" if naive else text)
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."
