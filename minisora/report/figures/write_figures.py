"""Every figure of the report, in order; which of them a preset has, and why it lacks the others."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from minisora.report.assumptions import Assumptions, shipped
from minisora.report.figures.curves import (
    attention_share,
    demand,
    dit_break_even,
    sora_break_even,
    steps_break_even,
)
from minisora.report.figures.rows import (
    COMPARED,
    LEAST_SWING,
    against_interval,
    backtest_rows,
    compared_rows,
    compute_per_output,
    tornado,
    waterfall,
)
from minisora.report.figures.style import Drawn, save, style, svg_text
from minisora.report.sensitivity import MAIN_RESULT, Influence, MonteCarlo

__all__ = ["FIGURES", "FigureContext", "draw", "draw_figures", "left_out", "save", "svg_text"]


@dataclass(frozen=True)
class FigureContext:
    """What the figures are drawn from.

    Args:
        assumptions: the preset of the report.
        monte_carlo: its run.
        influences: what moves `influenced`, the strongest first; empty where nothing does.
        backtest: rows as `backtest.BacktestRow.to_dict` gives them.
        influenced: name of the result that `influences` is about.
        as_published, corrected: the presets that every figure is compared with.
    """

    assumptions: Assumptions
    monte_carlo: MonteCarlo
    influences: list[Influence]
    backtest: list[dict[str, Any]]
    influenced: str = MAIN_RESULT
    as_published: Assumptions = field(default_factory=lambda: shipped("as_published"))
    corrected: Assumptions = field(default_factory=lambda: shipped("corrected"))

    @property
    def other(self) -> Assumptions:
        """What stands beside the published preset: that of the report, or the corrected one if it is the same."""
        same = self.assumptions.entries == self.as_published.entries
        return self.corrected if same else self.assumptions

    @property
    def chain(self) -> list[Assumptions]:
        """Published, corrected, and that of the report unless it is one of them."""
        chain = [self.as_published, self.corrected]
        return chain if self.other.entries == self.corrected.entries else [*chain, self.other]

    @property
    def by_steps(self) -> list[Assumptions]:
        """Two presets for the figure of diffusion steps: today's practice beside that of the report."""
        return [self.other, shipped("measured" if self.other.preset.startswith("modern") else "modern")]


def _no_tornado(context: FigureContext) -> str | None:
    if any(influence.swing > LEAST_SWING for influence in context.influences):
        return None
    return f"no assumption of {context.assumptions.preset} has a range that moves {context.influenced}"


def _no_intervals(context: FigureContext) -> str | None:
    if any(context.monte_carlo.intervals[name] for name in COMPARED):
        return None
    return f"{context.assumptions.preset} takes its assumptions as certain: there is no interval to compare"


def _no_backtest(context: FigureContext) -> str | None:
    return None if compared_rows(context.backtest) else "no model with disclosed costs to compare with"


FIGURES: dict[str, Callable[[FigureContext], Drawn]] = {
    "against_interval": lambda c: against_interval(c.corrected, c.other, c.monte_carlo),
    "waterfall_training": lambda c: waterfall("Compute of training", c.chain, "sora_training_compute_high"),
    "waterfall_serving": lambda c: waterfall("Speed of serving", c.chain, "sora_minutes_per_gpu_hour"),
    "dit_break_even": lambda c: dit_break_even(c.as_published, c.other),
    "sora_break_even": lambda c: sora_break_even(c.as_published, c.other),
    "steps_break_even": lambda c: steps_break_even(c.by_steps),
    "compute_per_output": lambda c: compute_per_output(c.chain),
    "demand": lambda c: demand(c.corrected, c.other),
    "attention_share": lambda c: attention_share(c.other),
    "tornado": lambda c: tornado(c.assumptions, c.influences, c.influenced),
    "backtest": lambda c: backtest_rows(c.backtest),
}
"""Figures by the stem of their files, in the order of the page."""

# Why there is none, in a sentence; None where it can be drawn.
_MISSING: dict[str, Callable[[FigureContext], str | None]] = {
    "against_interval": _no_intervals,
    "tornado": _no_tornado,
    "backtest": _no_backtest,
}


def draw(name: str, context: FigureContext) -> Drawn:
    """One figure, laid out, with its name and title attached, from where the SVG takes them."""
    with style():
        drawn = FIGURES[name](context)
        layout = drawn.figure.get_layout_engine()
        assert layout is not None
        # Here, not at every save; under a key the second pass sees the axes in the size that the first gave them.
        for _ in range(2 if drawn.figure.legends else 1):
            layout.execute(drawn.figure)
        drawn.figure.set_layout_engine("none")
    drawn.figure.set_gid(f"figure-{name}")
    drawn.figure.set_label(drawn.title)
    return drawn


def draw_figures(context: FigureContext) -> dict[str, Drawn]:
    """Every figure that the context has the data for, by name; `left_out` tells of the others."""
    missing = left_out(context)
    return {name: draw(name, context) for name in FIGURES if name not in missing}


def left_out(context: FigureContext) -> dict[str, str]:
    """Why a figure is not drawn, by its name."""
    reasons = {name: missing(context) for name, missing in _MISSING.items()}
    return {name: reason for name, reason in reasons.items() if reason is not None}
