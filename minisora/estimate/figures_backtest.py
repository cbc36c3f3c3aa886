"""The back-test: predicted over disclosed, one row a model and clip, for our method and the published one.

Rows rather than a scatter: two dozen points along a diagonal cannot all carry their names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from matplotlib.axes import Axes

from minisora.estimate.figure_style import (
    MARKERS,
    OURS,
    PUBLISHED,
    SOFT,
    NamedFigure,
    canvas,
    log_axis,
    named,
    panel,
    row_label,
    rows_axis,
    styled,
)
from minisora.estimate.figure_words import big, factor

ROW = 0.205  # inches
CLOSE = 1.5  # a factor either way that the caption counts


@dataclass(frozen=True)
class Point:
    """One row of the figure.

    Args:
        label: model, clip and GPUs.
        disclosed: what it is compared with, in words.
        ours, naive: predicted over disclosed by our method and by the published one; None: not predicted.
        verified: all its sources are primary.
    """

    label: str
    disclosed: str
    ours: float
    naive: float | None
    verified: bool


def points(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Point]]:
    """What can be compared, by quantity, in the order of the rows.

    Args:
        rows: as `backtest.Row.to_dict` gives them.
    """
    found: dict[str, list[Point]] = {"seconds a clip": [], "training": []}
    for row in rows:
        verified = row["grade"] == "primary"
        if row["seconds_factor"]:
            point = Point(
                _label(row["model"], row["case"]), f"{row['seconds_disclosed']:,.0f} s", row["seconds_factor"],
                row["naive_seconds_factor"], verified,
            )  # fmt: skip
            found["seconds a clip"].append(point)
        if row["training_factor"]:
            point = Point(
                row["model"],
                ("≈" if row["training_mfu_is_assumed"] else "") + big(row["training_flops_disclosed"]),
                row["training_factor"],
                row["naive_training_factor"], verified,
            )  # fmt: skip
            found["training"].append(point)
    return {name: these for name, these in found.items() if these}


def _label(model: str, case: str) -> str:
    short_case = case.replace("x", "×").replace(" SXM", "").replace(" 80GB", "")
    return f"{model}, {short_case}"


def can_be_drawn(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a prediction stands beside a disclosure in any row."""
    return bool(points(rows))


@styled
def backtest_rows(rows: Sequence[Mapping[str, Any]]) -> NamedFigure:
    """Predicted over disclosed, by row.

    Args:
        rows: as `backtest.Row.to_dict` gives them; at least one with a factor.
    """
    groups = points(rows)
    every = [point for group in groups.values() for point in group]
    lines = len(every) + len(groups)  # every group has a heading
    figure = canvas(0.4 + lines * ROW + 0.6)
    axes = panel(figure, left=3.05, right=0.95, top=0.4, height=lines * ROW)
    rows_axis(axes, lines)
    axes.grid(axis="y", visible=False)
    seen = [value for point in every for value in (point.ours, point.naive) if value]
    log_axis(axes, "x", min(*seen, 0.5) / 1.4, max(*seen, 2) * 1.4, label=lambda v: f"×{v:g}")
    axes.set_xlabel("predicted over disclosed")
    axes.axvline(1, color=SOFT, lw=1)
    line = 0
    for name, group in groups.items():
        row_label(axes, line, name, fontweight="bold")
        _disclosed(axes, line, "disclosed" if name.startswith("seconds") else "by GPU-hours", SOFT)
        for place, point in enumerate(group, start=line + 1):
            _point(axes, place, point)
        line += len(group) + 1
    for x, color, fill, words in (
        (0.0, OURS, OURS, "this method"),
        (0.3, OURS, "white", "a source not primary"),
        (0.75, PUBLISHED, PUBLISHED, "the published method"),
    ):
        x -= 0.3
        axes.plot(
            x, 1.03, MARKERS[color], color=color, mfc=fill, ms=6, transform=axes.transAxes, clip_on=False
        )
        axes.text(x + 0.025, 1.03, words, transform=axes.transAxes, va="center", color=color, fontsize=9)
    return named("backtest", "The same method on models that disclosed their cost", _caption(groups), figure)


def _disclosed(axes: Axes, line: int, words: str, color: str) -> None:
    axes.annotate(
        words, (1, line), xycoords=axes.get_yaxis_transform(), xytext=(60, 0), textcoords="offset points",
        ha="right", va="center", color=color, fontsize=9,
    )  # fmt: skip


def _point(axes: Axes, line: int, point: Point) -> None:
    row_label(axes, line, point.label, fontsize=9)
    axes.axhline(line, color="#ececec", lw=0.6, zorder=0)
    if point.naive:
        axes.plot(
            point.naive, line, MARKERS[PUBLISHED], color=PUBLISHED, ms=4.5,
            mfc=PUBLISHED if point.verified else "white", gid=f"naive-{line}",
        )  # fmt: skip
    axes.plot(
        point.ours,
        line,
        MARKERS[OURS],
        color=OURS,
        ms=6,
        mfc=OURS if point.verified else "white",
        gid=f"ours-{line}",
    )
    _disclosed(axes, line, point.disclosed, SOFT)


def _caption(groups: Mapping[str, Sequence[Point]]) -> str:
    parts = []
    for name, group in groups.items():
        if name.startswith("seconds"):
            close = sum(1 / CLOSE <= point.ours <= CLOSE for point in group)
            text = f"{close} of {len(group)} latencies are predicted within {factor(CLOSE)} either way"
        else:
            ends = sorted(point.ours for point in group)
            text = (
                f"training comes out at {factor(ends[0])} to {factor(ends[-1])} of what the GPU-hours of {len(group)} "
                "runs come to (≈: at an assumed utilisation)"
            )
        naive = [point.naive for point in group if point.naive]
        parts.append(f"{text}, the published method at a median {factor(median(naive))}" if naive else text)
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."
