"""Every figure of the report, in order; which of them a preset has, and why it lacks the others."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from minisora.estimate.assumptions import Assumptions, load_preset
from minisora.estimate.figure_style import NamedFigure, save, svg_text
from minisora.estimate.figure_words import preset_title
from minisora.estimate.figures_backtest import backtest_rows, can_be_drawn
from minisora.estimate.figures_ours import attention_share, steps_break_even, waterfall
from minisora.estimate.figures_report import compute_per_output, demand, dit_break_even, sora_break_even
from minisora.estimate.figures_uncertainty import COMPARED, LEAST_SWING, against_interval, compare, tornado
from minisora.estimate.uncertainty import Influence, MonteCarlo

__all__ = ["FIGURES", "FigureContext", "NamedFigure", "draw_figures", "left_out", "save", "svg_text"]


@cache
def _shipped(name: str) -> Assumptions:
    return load_preset(name)  # read once a process: YAML is the slowest part of a figure


@dataclass(frozen=True)
class FigureContext:
    """What the figures are drawn from.

    Args:
        assumptions: the preset of the report.
        monte_carlo: its run.
        influences: what moves `influenced`, the strongest first; empty where nothing does.
        published: printed values by claim; None where a number stands only in a figure.
        backtest: rows as `backtest.Row.to_dict` gives them.
        influenced: name of the result that `influences` is about.
        as_published, corrected: the presets that every figure is compared with.
    """

    assumptions: Assumptions
    monte_carlo: MonteCarlo
    influences: list[Influence]
    published: dict[str, float | None]
    backtest: list[dict[str, Any]]
    influenced: str = "sora_minutes_per_gpu_hour"
    as_published: Assumptions = field(default_factory=lambda: _shipped("as_published"))
    corrected: Assumptions = field(default_factory=lambda: _shipped("corrected"))

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
        return [self.other, _shipped("measured" if self.other.preset.startswith("modern") else "modern")]


@dataclass(frozen=True)
class Drawing:
    """A row of the table of figures.

    Args:
        draw: the figure from its context.
        missing: why there is none, in a sentence; None where it can be drawn.
    """

    draw: Callable[[FigureContext], NamedFigure]
    missing: Callable[[FigureContext], str | None] = lambda context: None


def _no_tornado(context: FigureContext) -> str | None:
    if any(influence.swing > LEAST_SWING for influence in context.influences):
        return None
    return f"no assumption of {context.assumptions.preset} has a range that moves {context.influenced}"


def _no_intervals(context: FigureContext) -> str | None:
    if any(context.monte_carlo.intervals[name] for name in COMPARED):
        return None
    return f"{context.assumptions.preset} takes its assumptions as certain: there is no interval to compare"


def _no_backtest(context: FigureContext) -> str | None:
    return None if can_be_drawn(context.backtest) else "no model with disclosed costs to compare with"


def _waterfall(part: str, context: FigureContext, result: str) -> NamedFigure:
    words = {"training": "Compute of training", "serving": "Speed of serving"}[part]
    title = f"{words}, from the published value to that of the preset {preset_title(context.other)}"
    return waterfall(f"waterfall_{part}", title, context.chain, result)


FIGURES: dict[str, Drawing] = {
    "against_interval": Drawing(
        lambda c: against_interval(
            c.other, compare(c.published, c.as_published, c.corrected, c.other, c.monte_carlo)
        ),
        _no_intervals,
    ),
    "waterfall_training": Drawing(lambda c: _waterfall("training", c, "sora_training_compute_high")),
    "waterfall_serving": Drawing(lambda c: _waterfall("serving", c, "sora_minutes_per_gpu_hour")),
    "dit_break_even": Drawing(lambda c: dit_break_even(c.published, c.as_published, c.other)),
    "sora_break_even": Drawing(lambda c: sora_break_even(c.published, c.as_published, c.other)),
    "steps_break_even": Drawing(lambda c: steps_break_even(c.by_steps)),
    "compute_per_output": Drawing(lambda c: compute_per_output(c.chain)),
    "demand": Drawing(lambda c: demand(c.published, c.corrected, c.other)),
    "attention_share": Drawing(lambda c: attention_share(c.other)),
    "tornado": Drawing(lambda c: tornado(c.assumptions, c.influences, c.influenced), _no_tornado),
    "backtest": Drawing(lambda c: backtest_rows(c.backtest), _no_backtest),
}
"""Figures by the stem of their files, in the order of the page."""


def draw_figures(context: FigureContext) -> list[NamedFigure]:
    """Every figure that the context has the data for; `left_out` tells of the others."""
    return [drawing.draw(context) for drawing in FIGURES.values() if drawing.missing(context) is None]


def left_out(context: FigureContext) -> dict[str, str]:
    """Why a figure is not drawn, by its name."""
    reasons = {name: drawing.missing(context) for name, drawing in FIGURES.items()}
    return {name: reason for name, reason in reasons.items() if reason is not None}
