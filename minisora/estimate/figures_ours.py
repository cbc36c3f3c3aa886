"""Figures of what the published estimate leaves out: its changes factor by factor, attention, diffusion steps."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from minisora.estimate.assumptions import Assumptions
from minisora.estimate.bridge import Step, best_values, bridge
from minisora.estimate.cost import ATTENTIONS, forward_macs
from minisora.estimate.figure_style import (
    GREEN,
    MARKERS,
    ORANGE,
    OURS,
    PURPLE,
    SKY,
    SOFT,
    NamedFigure,
    canvas,
    color_of,
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
    short,
    tick_words,
)
from minisora.estimate.model import Inputs, estimate, number, sora_shape, token_grid
from minisora.estimate.units import Number

# From published to corrected to ours.


def waterfall_steps(
    presets: Sequence[Assumptions], result: str
) -> tuple[list[tuple[Assumptions, float]], list[list[Step]]]:
    """The value of a result in each preset, and the steps between neighbours."""
    totals = [(preset, best_values(preset)[result]) for preset in presets]
    legs = [bridge(a, b, result) for a, b in pairwise(presets)]
    return totals, legs


@styled
def waterfall(name: str, title: str, presets: Sequence[Assumptions], result: str) -> NamedFigure:
    """A result from the published preset by way of others, each changed assumption a bar on a log axis.

    Args:
        name, title: of the figure.
        presets: from first to last.
        result: its name.
    """
    totals, legs = waterfall_steps(presets, result)
    rows: list[tuple[Assumptions, float] | Step] = [totals[0]]
    for total, leg in zip(totals[1:], legs, strict=True):
        rows += [*leg, total]
    seen = [value for _, value in totals] + [step.after for leg in legs for step in leg]
    spread = max(seen) / min(seen)
    height = 0.25 * len(rows)
    figure = canvas(0.12 + height + 0.6)
    axes = panel(figure, left=3.2, right=0.9, top=0.12, height=height)
    rows_axis(axes, len(rows))
    axes.grid(axis="y", visible=False)
    log_axis(axes, "x", min(seen) / spread**0.06, max(seen) * spread**0.06, label=tick_words)
    axes.set_xlabel(RESULT_WORDS.get(result, result))
    for row, shown in enumerate(rows):
        if row + 1 < len(rows):
            level = shown.after if isinstance(shown, Step) else shown[1]
            axes.plot([level, level], [row - 0.3, row + 1.3], color=SOFT, lw=0.8)
        if isinstance(shown, Step):
            grows = shown.factor >= 1
            left, right = sorted((shown.before, shown.after))
            axes.barh(row, right - left, 0.6, left=left, color=SKY if grows else ORANGE, gid=f"step-{row}")
            row_label(axes, row, shown.label, fontsize=9)
            note(axes, factor(shown.factor), (right, row), (5, 0))
        else:
            preset, value = shown
            color = color_of(preset.preset)
            axes.plot(value, row, MARKERS[color], color=color, ms=8, gid=f"total-{row}")
            row_label(axes, row, preset_title(preset), color=color, fontweight="bold")
            note(axes, number_words(value), (value, row), (8, 0), color=color, fontweight="bold")
    (first, start), (last, end) = totals[0], totals[-1]
    strongest = max((step for leg in legs for step in leg), key=lambda step: abs(np.log(step.factor)))
    caption = (
        f"From {number_words(start)} ({preset_title(first)}) to {number_words(end)} ({preset_title(last)}), "
        f"{factor(end / start)} in all; the largest step is {strongest.label} ({factor(strongest.factor)})."
    )
    return named(name, title, caption, figure)


# Attention.

_KIND_COLORS = {"full": OURS, "divided": PURPLE, "factorised": GREEN}
FRAME_SIZES = {"720p": (720, 1280), "1080p": (1080, 1920)}


def attention_shares(assumptions: Assumptions, tokens: np.ndarray) -> dict[str, np.ndarray]:
    """Attention's share of a pass by kind, at that many video tokens in the preset's number of latent frames."""
    inputs = assumptions.inputs()
    shape, frames = sora_shape(inputs), token_grid(inputs)[0]
    return {
        kind: np.asarray(forward_macs(shape, frames, tokens / frames, kind).attention_share)
        for kind in ATTENTIONS
    }


def token_marks(assumptions: Assumptions) -> dict[str, float]:
    """Tokens of the preset's clip, of larger frames, and where attention costs as much as the rest (S = 6 d)."""
    inputs = assumptions.inputs()
    frames, places = token_grid(inputs)
    cell = number(inputs, "sora.vae_pixels") * number(inputs, "sora.patch")
    height, width = number(inputs, "sora.height"), number(inputs, "sora.width")
    marks = {"S = 6d": 6 * float(sora_shape(inputs).width), f"{width:g}×{height:g}": float(frames * places)}
    for name, (tall, wide) in FRAME_SIZES.items():
        tokens = float(frames * tall * wide / cell**2)
        if tokens not in marks.values():
            marks[name] = tokens
    return marks


def _over_rule(inputs: Inputs) -> str:
    """What a pass at 1080p costs beside the published rule's pass over its own frames of 512x512."""
    frames, _ = token_grid(inputs)
    cell = number(inputs, "sora.vae_pixels") * number(inputs, "sora.patch")
    height, width = FRAME_SIZES["1080p"]
    macs = forward_macs(sora_shape(inputs), frames, height * width / cell**2, "full").total
    size = number(inputs, "sora.params") / number(inputs, "dit.params")
    ratio = float(macs / (number(inputs, "dit.macs_per_step") * size * frames))
    return f"Full attention at 1080p costs {short(ratio)} times the published rule's pass over frames of 512×512."


@styled
def attention_share(assumptions: Assumptions) -> NamedFigure:
    """Attention's share of a pass against tokens, for the preset's model and number of latent frames."""
    marks = token_marks(assumptions)
    low, high = min(1e4, min(marks.values()) / 3), max(3e6, max(marks.values()) * 2)
    tokens = np.geomspace(low, high, 120)
    figure = canvas(3.9)
    axes = panel(figure, left=0.75, right=1.0, top=0.4, height=2.9)
    log_axis(axes, "x", low, high)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(lambda value, _: percent(value))
    inputs = assumptions.inputs()
    seconds, frames = number(inputs, "sora.seconds"), float(token_grid(inputs)[0])
    axes.set_xlabel(f"tokens of a clip of {seconds:g} s, {frames:g} latent frames")
    axes.set_ylabel("attention's share of a pass")
    for name, value in marks.items():
        axes.axvline(value, color=SOFT, lw=0.9, ls=(0, (1, 1.5)), gid=f"mark-{list(marks).index(name)}")
        note(axes, name, (value, 1), (0, 5), ha="center", va="bottom", color=SOFT)
    shares = attention_shares(assumptions, tokens)
    at = attention_shares(assumptions, np.array(list(marks.values())))
    for kind, share in shares.items():
        color = _KIND_COLORS[kind]
        axes.plot(tokens, share, color=color, gid=f"share-{kind}")
        axes.plot(list(marks.values()), at[kind], "o", color=color, ms=4)
        note(axes, kind, (high, share[-1]), (6, 0), color=color, fontweight="bold")
        if kind == "full":
            for value, level in zip(marks.values(), at[kind], strict=True):
                note(axes, f"{percent(level)}", (value, level), (5, -9), color=color)
    clip, largest = list(marks)[1], list(marks)[-1]
    full, parts = at["full"], at["factorised"]
    caption = (
        f"With full attention {percent(full[1])} of a pass over the {clip} clip is attention, and {percent(full[-1])} "
        f"at {largest}; with attention factorised it is {percent(parts[1], 1)} and {percent(parts[-1], 1)}. "
        f"Attention costs as much as everything else at S = 6d, {short(marks['S = 6d'])} tokens. {_over_rule(inputs)}"
    )
    return named("attention_share", "Attention's share of a pass, by kind of attention", caption, figure)


# Diffusion steps.

STEP_MARKS = (4, 8, 50, 250)
_GUIDANCE = ((1.0, "-", "no guidance"), (2.0, (0, (4, 2)), "guidance"))


def break_even_by_steps(assumptions: Assumptions, steps: np.ndarray, passes: float) -> np.ndarray:
    """Minutes of video until serving has cost as much as training, at that many steps and passes a step."""
    changed: dict[str, Number] = {"serve.steps": steps, "serve.guidance_passes": np.full_like(steps, passes)}
    found = estimate(assumptions.inputs(changed))["sora_break_even"].value
    return np.broadcast_to(np.asarray(found, dtype=float), steps.shape)


@styled
def steps_break_even(presets: Sequence[Assumptions]) -> NamedFigure:
    """Break-even against the number of diffusion steps, with and without guidance, for two presets."""
    steps = np.geomspace(1, 250, 60)
    marks = np.array([float(m) for m in STEP_MARKS])
    colors = (color_of(presets[0].preset), GREEN)
    lines = [
        (preset, color, passes, style, words, break_even_by_steps(preset, steps, passes))
        for preset, color in zip(presets, colors, strict=True)
        for passes, style, words in _GUIDANCE
    ]
    figure = canvas(4.05)
    axes = panel(figure, left=0.85, right=2.1, top=0.15, height=3.3)
    log_axis(axes, "x", 1, 250)
    axes.xaxis.set_ticks([1, 2, *STEP_MARKS, 16, 100])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    values_drawn = [value for *_, line in lines for value in (line.min(), line.max())]
    log_axis(axes, "y", min(values_drawn) / 1.5, max(values_drawn) * 1.5, label=short)
    axes.set_xlabel("diffusion steps")
    axes.set_ylabel("minutes of video at break-even")
    for mark in STEP_MARKS:
        axes.axvline(mark, color="#b0b0b0", lw=1)
    for place, (preset, color, passes, style, words, line) in enumerate(lines):
        axes.plot(steps, line, color=color, ls=style, gid=f"steps-{place}")
        axes.plot(marks, break_even_by_steps(preset, marks, passes), "o", color=color, ms=4.5)
        note(axes, f"{preset_title(preset)}, {words}", (steps[-1], line[-1]), (8, 0), color=color)
    preset, passes = presets[0], 2.0
    many, few = break_even_by_steps(preset, np.array([250.0, 4.0]), passes)
    caption = (
        f"With the preset {preset_title(preset)} and guidance, going from 250 steps to 4 moves the break-even from "
        f"{short(many)} to {short(few)} minutes of video; at any number of steps guidance about halves it."
    )
    return named("steps_break_even", "Break-even against the number of diffusion steps", caption, figure)
