"""The report's own four figures, redrawn from the model: as published, and beside it another preset."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from minisora.estimate.assumptions import Assumptions
from minisora.estimate.bridge import best_values
from minisora.estimate.figure_style import (
    CORRECTED,
    GREEN,
    MARKERS,
    ORANGE,
    PUBLISHED,
    PURPLE,
    NamedFigure,
    canvas,
    color_of,
    heading,
    log_axis,
    named,
    note,
    panel,
    row_label,
    rows_axis,
    slope_angle,
    styled,
)
from minisora.estimate.figure_words import big, factor, preset_title, short

INSTAGRAM_IMAGES = 95e6  # a day; source: report. No result depends on it, so it is no assumption.
Published = Mapping[str, float | None]


@dataclass(frozen=True)
class BreakEven:
    """What one panel of a break-even figure shows.

    Args:
        title, color: of the panel.
        per_output: compute of one more output, FLOP (as the preset counts them).
        counted: what it calls FLOP.
        training: compute of the training, FLOP, by label.
    """

    title: str
    color: str
    per_output: float
    training: dict[str, float]
    counted: str = "FLOP"

    def crossings(self) -> dict[str, float]:
        """Outputs after which inference has used as much, by label."""
        return {label: compute / self.per_output for label, compute in self.training.items()}


def _break_even(panels: Sequence[BreakEven], marks: Mapping[str, float], unit: str, outputs: str) -> Figure:
    """Cumulative inference against outputs over flat training lines, one panel under another."""
    height, gap = 1.75, 0.5
    figure = canvas(0.35 + len(panels) * height + (len(panels) - 1) * gap + 0.62)
    crossings = [x for p in panels for x in p.crossings().values()]
    low = 10 ** np.floor(np.log10(min([*crossings, *marks.values()])) - 0.8)
    high = 10 ** np.ceil(np.log10(max([*crossings, *marks.values()])) + 0.2)
    for position, shown in enumerate(panels):
        axes = panel(figure, left=0.75, right=1.35, top=0.35 + position * (height + gap), height=height)
        top, bottom = max(shown.training.values()), min(shown.training.values())
        log_axis(axes, "x", low, high, label=lambda v: short(v))
        log_axis(axes, "y", bottom / 40, top * 6)
        heading(axes, shown.title, shown.color)
        axes.set_ylabel(f"{shown.counted}, cumulative")
        for place, (name, value) in enumerate(marks.items()):
            axes.axvline(value, color=PURPLE, lw=1.2, ls=(0, (1, 1.5)), gid=f"mark-{position}-{place}")
            if position == 0:
                side = "right" if value < max(marks.values()) else "left"
                note(
                    axes, name, (value, bottom / 40), (-4 if side == "right" else 4, 9), color=PURPLE, ha=side
                )
        ends = np.array([low, high])
        axes.plot(ends, ends * shown.per_output, color=GREEN, gid=f"inference-{position}")
        start = 1.4 * max(low, bottom / 40 / shown.per_output)  # where the line enters
        note(
            axes, "inference", (start, start * shown.per_output), (-4, 4), color=GREEN,
            rotation=slope_angle(axes), rotation_mode="anchor", va="bottom",
        )  # fmt: skip
        for label, compute in shown.training.items():
            axes.axhline(compute, color=shown.color, gid=f"training-{label}-{position}")
            note(axes, f"{label} {big(compute)}", (high, compute), (5, 0), color=shown.color)
            even = compute / shown.per_output
            axes.plot(
                even,
                compute,
                MARKERS[shown.color],
                color=shown.color,
                ms=7,
                mec="white",
                gid=f"even-{label}-{position}",
            )
            note(
                axes, f"{short(even)} {outputs}", (even, compute), (-7, 8), ha="right", fontweight="bold",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
            )  # fmt: skip
        if position == len(panels) - 1:
            axes.set_xlabel(unit)
        else:
            axes.tick_params(labelbottom=False)
    return figure


def _panels(
    presets: Sequence[Assumptions], training: Mapping[str, str], output: str, printed: float | None
) -> list[BreakEven]:
    """Panels of the published preset and another.

    Args:
        presets: the published one first.
        training: results drawn as flat lines, by label.
        output: result that is the cost of one output.
        printed: that cost as the report rounds it, which its break-even follows; None: the model's.
    """
    panels = []
    for position, preset in enumerate(presets):
        found = best_values(preset)
        per_output = printed if printed and position == 0 else found[output]
        flat = {label: found[result] for label, result in training.items()}
        counted = "MAC" if preset.entries["count.flops_per_mac"].value == 1 else "FLOP"
        panels.append(BreakEven(preset_title(preset), color_of(preset.preset), per_output, flat, counted))
    return panels


@styled
def dit_break_even(printed: Published, published: Assumptions, other: Assumptions) -> NamedFigure:
    """Images after which sampling DiT has cost as much as training it."""
    panels = _panels(
        (published, other), {"training": "dit_training_compute"}, "dit_compute_per_image",
        printed.get("dit_compute_per_image"),
    )  # fmt: skip
    instagram = short(INSTAGRAM_IMAGES)
    figure = _break_even(
        panels, {f"Instagram, {instagram} a day": INSTAGRAM_IMAGES}, "images generated", "images"
    )
    before, after = (next(iter(p.crossings().values())) for p in panels)
    caption = (
        f"Sampling DiT-XL/2 overtakes its training after {short(before)} images as published and after "
        f"{short(after)} with the preset {preset_title(other)}; Instagram takes in {instagram} images a day."
    )
    return named("dit_break_even", "When generating images costs more than training DiT", caption, figure)


@styled
def sora_break_even(printed: Published, published: Assumptions, other: Assumptions) -> NamedFigure:
    """Minutes of video after which serving Sora has cost as much as training it, for least and most data.

    The published 38.1M needs the cost of a video as printed, 708e15; the model's own 707.4e15 gives 38.2M.
    """
    training = {end: f"sora_training_compute_{end}" for end in ("low", "high")}
    per_minute = printed.get("sora_compute_per_video")  # of one minute
    panels = _panels((published, other), training, "sora_compute_per_minute", per_minute)
    tiktok = best_values(published)["tiktok_minutes_per_day"]
    youtube = published.entries["demand.youtube_minutes"].value
    assert isinstance(youtube, float)
    marks = {f"TikTok, {short(tiktok)} a day": tiktok, f"YouTube, {short(youtube)} a day": youtube}
    figure = _break_even(panels, marks, "minutes of video generated", "min")
    (low, high), (our_low, our_high) = (tuple(p.crossings().values()) for p in panels)
    caption = (
        f"Serving Sora overtakes its training after {short(low)} to {short(high)} minutes of video as published and "
        f"after {short(our_low)} to {short(our_high)} with the preset {preset_title(other)}; TikTok takes in "
        f"{short(tiktok)} and YouTube {short(youtube)} minutes a day."
    )
    return named("sora_break_even", "When generating video costs more than training Sora", caption, figure)


OUTPUTS: dict[str, Callable[[dict[str, float]], float]] = {
    "Sora, 1 minute of video": lambda found: found["sora_compute_per_minute"],
    "GPT-4, 1,000 tokens": lambda found: found["gpt4_compute_per_output"],
    "Llama 2 70B, 1,000 tokens": lambda found: found["llama2_70b_compute_per_output"],
    "DiT-XL/2, one 512×512 image": lambda found: found["dit_compute_per_image"],
}


@styled
def compute_per_output(presets: Sequence[Assumptions]) -> NamedFigure:
    """Inference compute per output across models, one mark a preset.

    Args:
        presets: as published, corrected and perhaps one more.
    """
    row_height = 0.2 * len(presets) + 0.22
    figure = canvas(0.15 + row_height * len(OUTPUTS) + 0.62)
    axes = panel(figure, left=2.25, right=1.75, top=0.15, height=row_height * len(OUTPUTS))
    rows_axis(axes, len(OUTPUTS))
    axes.grid(axis="y", visible=False)
    found = [best_values(preset) for preset in presets]
    numbers = [[read(one) for one in found] for read in OUTPUTS.values()]
    low = 10 ** np.floor(np.log10(min(map(min, numbers))) - 0.3)
    log_axis(axes, "x", low, max(map(max, numbers)) * 1.5)
    axes.set_xlabel("FLOP per output (as published: MACs and FLOPs mixed)")
    for row, (name, ours) in enumerate(zip(OUTPUTS, numbers, strict=True)):
        row_label(axes, row, name)
        if row:
            axes.axhline(row - 0.5, color="#c8c8c8", lw=0.8)
        for place, (preset, value) in enumerate(zip(presets, ours, strict=True)):
            y = row + (place - (len(presets) - 1) / 2) * 0.2 / row_height
            color = color_of(preset.preset)
            axes.plot([low, value], [y, y], color=color, lw=1, alpha=0.45)
            axes.plot(value, y, MARKERS[color], color=color, ms=6, gid=f"{preset.preset}-{row}")
            label = f"{big(value)}  {preset_title(preset)}" if row == 0 else big(value)
            note(axes, label, (value, y), (7, 0), color=color)
    printed, right = (one["sora_over_gpt4"] for one in found[:2])
    dit_printed, dit_right = (one["dit_over_llama2_70b"] for one in found[:2])
    caption = (
        f"As published, a minute of Sora costs {factor(printed)[1:]} answers of GPT-4 and an image of DiT "
        f"{factor(dit_printed)[1:]} of Llama 2 70B; with every model in FLOPs it is {factor(right)[1:]} and "
        f"{factor(dit_right)[1:]}."
    )
    return named("compute_per_output", "Inference compute per output, across models", caption, figure)


@dataclass(frozen=True)
class Demand:
    """One way to count GPUs: label, colour, and GPUs after each step."""

    label: str
    color: str
    gpus: tuple[float, ...]


def demand_steps(published: Published, corrected: Assumptions) -> tuple[list[str], list[Demand]]:
    """Names of the steps, and GPUs for average demand and after each of the report's factors of two.

    Args:
        published: printed values by claim.
        corrected: preset with the sum and the FLOPs mended.
    """

    def printed(name: str) -> float:
        value = published[name]
        assert value is not None, name
        return value

    words = {"utilisation_factor": "utilisation", "peak_factor": "peak", "candidates_factor": "candidates"}
    factors = [printed(name) for name in words]
    found = best_values(corrected)
    per_day = printed("minutes_per_h100_day")
    starts = {
        ("as printed", PUBLISHED): printed("ai_minutes_per_day") / per_day,
        ("sum mended", ORANGE): found["ai_minutes_per_day"] / per_day,
        ("sum mended, and MACs counted as two FLOPs", CORRECTED): found["demand_gpus"],
    }
    labels = [
        "average demand",
        *(f"×{f:g} for {word}" for f, word in zip(factors, words.values(), strict=True)),
    ]
    grown = np.cumprod([1.0, *factors])
    return labels, [Demand(label, color, tuple(start * grown)) for (label, color), start in starts.items()]


@styled
def demand(published: Published, corrected: Assumptions, other: Assumptions) -> NamedFigure:
    """The report's build-up of GPUs, as printed and with its arithmetic mended."""
    labels, series = demand_steps(published, corrected)
    printed = published.get("peak_demand_h100")
    figure = canvas(3.5)
    axes = panel(figure, left=0.75, top=0.15, height=2.95)
    axes.set_ylim(0, max(max(one.gpus) for one in series) * 1.1)
    axes.set_xlim(-0.55, len(labels) - 0.45)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(lambda value, _: short(value) if value else "0")
    axes.grid(axis="x", visible=False)
    axes.set_xticks(range(len(labels)), labels)
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("H100")
    for place, one in enumerate(series):
        x = np.arange(len(one.gpus)) + (place - 1) * 0.28
        axes.bar(x, one.gpus, 0.25, color=one.color)
        for at, value in zip(x, one.gpus, strict=True):
            note(axes, short(value), (at, value), (0, 3), ha="center", va="bottom")
        # The key stands where bars are low.
        y = 0.95 - 0.085 * place
        axes.plot(0.03, y, "s", color=one.color, ms=8, transform=axes.transAxes)
        rounding = (
            f", where {short(one.gpus[-1])} is rounded to {short(printed)}" if printed and not place else ""
        )
        axes.text(0.05, y, one.label + rounding, transform=axes.transAxes, va="center")
    start, ends = series[0].gpus[0], [one.gpus[-1] for one in series]
    caption = (
        f"As printed, {short(start)} H100 grow to {short(ends[0])}; with the sum over TikTok and YouTube mended it "
        f"is {short(ends[1])}, and with a multiply-accumulate counted as two FLOPs {short(ends[2])}."
    )
    if other.preset not in ("as_published", "corrected"):
        needed = best_values(other)["peak_demand_gpus"]
        caption += f" The preset {preset_title(other)} needs {short(needed)}, not drawn."
    return named("demand", "GPUs for the published demand, step by step", caption, figure)
